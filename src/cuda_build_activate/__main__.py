"""The command line: ``python -m cuda_build_activate``, or ``cuda-build-activate``."""

import argparse
import csv
import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Union

from cuda_build_activate import __version__, _recipes
from cuda_build_activate._activate import Activation, decide, requested_major
from cuda_build_activate._doctor import Finding, findings, prove
from cuda_build_activate._shells import SHELLS, undone
from cuda_build_activate._toolkit import find, versions

DESCRIPTION = """\
Show and use the CUDA toolkit that pip or uv installed into this Python environment, find out what is wrong with it, and
check whether wheels will find their CUDA libraries. Exit status: 0 success; 1 nothing is activated, an error was found,
a wheel cannot be repaired, or there is no recipe; 2 the command line is wrong, or a wheel cannot be read. run exits
with its command's status."""
EXAMPLES = """\
examples:
  cuda-build-activate doctor --compile        why does my build fail?
  eval "$(cuda-build-activate env)"           use this toolkit in this shell from now on
  cuda-build-activate env --shell github >> "$GITHUB_ENV"
  cuda-build-activate run -- cmake -B build   use this toolkit for one command
  cuda-build-activate recipe lightgbm         how do I build LightGBM with CUDA?
  cuda-build-activate audit dist/*.whl        will this wheel find its CUDA libraries?
  cuda-build-activate repair dist/*.whl       write one that does, to wheelhouse/
"""


def main(arguments: Union[Sequence[str], None] = None) -> int:
    """Run the command line *arguments*, by default those of the process, and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cuda-build-activate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cuda-build-activate {__version__}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_info)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    info = commands.add_parser("info", help="show what is activated, and why (the default)")
    info.add_argument("--json", action="store_true", help="print one JSON object", default=argparse.SUPPRESS)
    info.set_defaults(command=_info)

    doctor = commands.add_parser("doctor", help="find out what is wrong, and what to do about it")
    doctor.add_argument("--json", action="store_true", help="print one JSON object", default=argparse.SUPPRESS)
    doctor.add_argument("--compile", action="store_true", help="also compile, link and inspect small programs")
    doctor.set_defaults(command=_doctor)

    env = commands.add_parser("env", help="print assignments for a shell to evaluate")
    env.add_argument(
        "--shell", choices=SHELLS, default="sh", help="for which shell (default: sh, also for bash and zsh)"
    )
    env.add_argument("--unset", action="store_true", help="print what undoes them; earlier values are not restored")
    env.set_defaults(command=_env)

    run = commands.add_parser("run", help="run a command in the activated environment", usage="%(prog)s [--] CMD ...")
    run.add_argument("cmd", nargs=argparse.REMAINDER, metavar="CMD ...", help="the command and its arguments")
    run.set_defaults(command=_run)

    root = commands.add_parser("root", help="print the path of the toolkit root")
    root.set_defaults(command=_root)

    recipe = commands.add_parser("recipe", help="show how to build another project's source distribution")
    recipe.add_argument("project", nargs="?", help="its name on PyPI; if omitted, list all recipes")
    recipe.set_defaults(command=_recipe)

    audit = commands.add_parser("audit", help="check which CUDA libraries a wheel needs, and whether it will find them")
    audit.add_argument("wheels", nargs="+", metavar="WHEEL", help="a wheel; with --installed, a distribution's name")
    audit.add_argument("--installed", action="store_true", help="audit what is installed in this environment")
    prints = audit.add_mutually_exclusive_group()
    prints.add_argument("--json", action="store_true", help="print one JSON object", default=argparse.SUPPRESS)
    prints.add_argument("--requirements", action="store_true", help="print the requirements to declare")
    prints.add_argument(
        "--exclude", action="store_true", help="print the options that keep auditwheel from bundling CUDA's libraries"
    )
    audit.set_defaults(command=_audit)

    repair = commands.add_parser("repair", help="write a wheel that finds its CUDA libraries")
    repair.add_argument("wheels", nargs="+", metavar="WHEEL")
    repair.add_argument(
        "-w", "--wheel-dir", metavar="DIR", default="wheelhouse", help="where to write (default: wheelhouse)"
    )
    repair.set_defaults(command=_repair)
    return parser


def _info(options: argparse.Namespace) -> int:
    activation = decide(os.environ, sys.path)
    toolkit = find(sys.path, requested_major(os.environ)[0])
    components = _components(toolkit.entries) if toolkit else []
    if options.json:
        described = {
            "schema": 1,
            "activated": activation.root is not None,
            "rule": activation.rule,
            "code": activation.code or None,
            "reason": activation.reason,
            "root": activation.root,
            "own_root": activation.own_root,
            "version": activation.version,
            "major": toolkit.major if toolkit else None,
            "nvcc": bool(toolkit and toolkit.nvcc),
            "components": components,
            "variables": activation.variables,
        }
        _write(json.dumps(described, indent=2) + "\n")
    else:
        lines = [f"{activation.reason} (rule {activation.rule})"]
        if activation.version:
            lines.append(f"version {activation.version}")
        if components:
            width = max(len(f"{component['name']} {component['version']}") for component in components)
            lines.append("components:")
            for component in components:
                lines.append(
                    f"  {component['name'] + ' ' + component['version']:{width}}  {_gives(component)}".rstrip()
                )
        if activation.variables:
            lines.append("variables:")
            lines += [f"  {name}={value}" for name, value in activation.variables.items()]
        _write("\n".join(lines) + "\n")
    return 0 if activation.root else 1


def _components(entries: list[str]) -> list[dict[str, Any]]:
    """The distributions of the toolkit and its products, each with its programs, libraries and number of headers."""
    found = []
    for name, version in versions(entries).items():
        programs, libraries, headers = set(), set(), 0
        for entry in entries:
            try:
                record = os.path.join(entry, f"{name}-{version}.dist-info", "RECORD")
                with open(record, encoding="utf-8", newline="") as file:
                    files = [row[0] for row in csv.reader(file) if row]
            except (OSError, ValueError, csv.Error):
                continue
            for path in files:
                directory, _, base = path.rpartition("/")
                if directory.endswith("/bin") and ("." not in base or base.endswith(".exe")):
                    programs.add(base.removesuffix(".exe"))
                elif base.endswith((".dll", ".lib")) or re.match(r"lib.*(\.so|\.a$)", base):
                    libraries.add(base)
                headers += "/include/" in path
            break
        kinds = {"programs": sorted(programs), "libraries": sorted(libraries), "headers": headers}
        found.append({"name": name.replace("_", "-"), "version": version, **kinds})
    return found


def _gives(component: dict[str, Any]) -> str:
    names = [*component["programs"], *component["libraries"]]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    count = component["headers"]
    headers = f"{count} header{'' if count == 1 else 's'}" if count else ""
    return ", ".join(part for part in (shown, headers) if part)


def _doctor(options: argparse.Namespace) -> int:
    activation = decide(os.environ, sys.path)
    found = findings()
    passed: list[str] = []
    if options.compile:
        for result in prove(activation, os.environ):
            if isinstance(result, Finding):
                found.append(result)
            else:
                passed.append(result)
    errors = any(finding.severity == "error" for finding in found)
    if options.json:
        described = {
            "schema": 1,
            "healthy": not errors,
            "rule": activation.rule,
            "reason": activation.reason,
            "findings": [finding._asdict() for finding in found],
            "passed": passed,
        }
        _write(json.dumps(described, indent=2) + "\n")
        return int(errors)
    lines = [activation.reason]
    lines += [line for finding in found for line in _shown(finding)]
    lines += [f"passed: {line}" for line in passed]
    _write("\n".join(lines if found or passed else [*lines, "nothing is wrong"]) + "\n")
    return int(errors)


def _shown(finding: Finding) -> list[str]:
    severity = f"{_coloured(finding.severity)}: {finding.seen}"
    return [severity, f"  why: {finding.why}", f"  do:  {finding.remedy}"]


def _coloured(severity: str) -> str:
    colour = {"error": 31, "warning": 33}.get(severity)
    if not colour or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return severity
    return f"\033[{colour}m{severity}\033[0m"


def _recipe(options: argparse.Namespace) -> int:
    if options.project is None:
        rows = _recipes.known().values()
        width = max(len(f"{row.name} {row.version}") for row in rows)
        _write(
            "".join(f"{f'{row.name} {row.version}':{width}}  {row.tested.get('outcome', 'not run')}\n" for row in rows)
        )
        return 0
    found = _recipes.find(options.project)
    _write(_recipes.described(found) if found else _recipes.start(options.project))
    return 0 if found else 1


def _audit(options: argparse.Namespace) -> int:
    commands = _wheel_commands("audit")
    return commands.audit(options, _write, _shown) if commands else 2


def _repair(options: argparse.Namespace) -> int:
    commands = _wheel_commands("repair")
    return commands.repair(options, _write) if commands else 2


def _wheel_commands(command: str) -> Union[ModuleType, None]:
    """The module with the commands for wheels; None, with a message, if the extra wheel is not installed."""
    try:
        return importlib.import_module("cuda_build_activate._wheel_commands")
    except ModuleNotFoundError as error:
        _complain(f'{command} needs {error.name}: pip install "cuda-build-activate[wheel]"')
        return None


def _env(options: argparse.Namespace) -> int:
    activation = _activated()
    if activation is None or activation.root is None:
        return 1
    changes = undone(activation.variables, activation.root, os.environ) if options.unset else activation.variables
    try:
        _write(SHELLS[options.shell](changes))
    except ValueError as error:
        return _complain(str(error))
    return 0


def _run(options: argparse.Namespace) -> int:
    command = options.cmd[1:] if options.cmd[:1] == ["--"] else options.cmd
    if not command:
        return _complain("run: give a command, such as: cuda-build-activate run -- cmake -B build", 2)
    activation = _activated()
    if activation is None:
        return 1
    environ = {**os.environ, **activation.variables}
    path = shutil.which(command[0], path=environ["PATH"])
    if path is None:
        return _complain(f"run: {command[0]}: command not found", 127)
    try:
        if os.name == "nt":  # there, exec would return to the shell at once
            import subprocess

            return subprocess.run([path, *command[1:]], env=environ, check=False).returncode
        os.execve(path, command, environ)
    except OSError as error:
        return _complain(f"run: {command[0]}: {error.strerror}", 126)


def _root(options: argparse.Namespace) -> int:
    activation = _activated()
    if activation is None:
        return 1
    _write(f"{activation.root}\n")
    return 0


def _activated() -> Union[Activation, None]:
    activation = decide(os.environ, sys.path)
    if activation.root is None:
        _complain(activation.reason)
        return None
    return activation


def _complain(text: str, status: int = 1) -> int:
    sys.stderr.write(f"cuda-build-activate: {text}\n")
    return status


def _write(text: str) -> None:
    """Print *text* with paths unchanged, even those that are not text in the locale's encoding."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    sys.exit(main())
