"""The command line, as a person or a script calls it."""

from __future__ import annotations

import argparse
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT, VEnv, make_toolkit, run, script

from cuda_build_activate.__main__ import _parser
from cuda_build_activate._shells import SHELLS

COMMAND = "-m", "cuda_build_activate"
# All that shells give a meaning to: what a toolkit's path can have of it, and what another directory in PATH can.
ODD = "a b'c %PATH% &g *é\u2019"
ODDER = 'd"$HOME `e` \\f'

# Each shell with its language, and how it evaluates what the command in the variable COMMAND prints.
EVALUATE = {
    "sh": ("sh", 'eval "$({})"'),
    "bash": ("sh", 'eval "$({})"'),
    "zsh": ("sh", 'eval "$({})"'),
    "fish": ("fish", "{} | source"),
}


@pytest.fixture
def activated(venv: VEnv) -> VEnv:
    make_toolkit(venv.site)
    return venv


@pytest.fixture
def odd(tmp_path: Path, wheel: Path, clean: dict[str, str]) -> VEnv:
    """An environment that makes shells stumble."""
    clean["PATH"] += f"{os.pathsep}/opt/{ODDER}"
    made = VEnv(tmp_path / ODD / "venv")
    made.install(wheel)
    make_toolkit(made.site)
    return made


def variables(venv: VEnv, environ: dict[str, str]) -> dict[str, str]:
    report = json.loads(venv.python_(*COMMAND, "--json", env=environ).stdout)
    found: dict[str, str] = report["variables"]
    return found


def evaluated(shell: str, venv: VEnv, environ: dict[str, str], *options: str) -> dict[str, str]:
    """The variables of a process started by *shell* after it evaluated the output of `env` with each of *options*."""
    language, evaluate = EVALUATE[shell]
    lines = [
        evaluate.format(f'"$PYTHON" -m cuda_build_activate env --shell {language} {option}'.strip())
        for option in options
    ]
    show = '"$SHOW" -S -I -c "import json, os; print(json.dumps(dict(os.environ)))"'
    command = [shell, *(["--no-config"] if shell == "fish" else []), "-c", "\n".join([*lines, show])]
    printed = run(command, env={**environ, "PYTHON": str(venv.python), "SHOW": sys.executable})
    seen: dict[str, str] = json.loads(printed)
    return seen


@pytest.mark.parametrize("shell", EVALUATE)
def test_env_is_evaluated_by_the_shell(shell: str, odd: VEnv, clean: dict[str, str]) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    expected = variables(odd, clean)
    assert ODD in expected["CUDA_HOME"]
    before = evaluated(shell, odd, clean)
    after = evaluated(shell, odd, clean, "")
    # Shells keep these for themselves.
    own = {"_", "SHLVL", "PWD", "OLDPWD"}
    changed = {name for name in after.keys() | before.keys() if before.get(name) != after.get(name)} - own
    assert {name: after[name] for name in changed} == expected
    restored = evaluated(shell, odd, clean, "", "--unset")
    assert {name: value for name, value in restored.items() if name not in own} == {
        name: value for name, value in before.items() if name not in own
    }


def test_env_for_github(odd: VEnv, clean: dict[str, str]) -> None:
    """A workflow's runner reads NAME<<DELIMITER, lines, DELIMITER."""
    lines = odd.python_(*COMMAND, "env", "--shell", "github", env=clean).stdout.splitlines()
    read = {}
    while lines:
        name, _, delimiter = lines.pop(0).partition("<<")
        end = lines.index(delimiter)
        read[name] = "\n".join(lines[:end])
        del lines[: end + 1]
    assert read == variables(odd, clean)


def test_env_as_json(odd: VEnv, clean: dict[str, str]) -> None:
    expected = variables(odd, clean)
    assert json.loads(odd.python_(*COMMAND, "env", "--shell", "json", env=clean).stdout) == expected
    undone = json.loads(odd.python_(*COMMAND, "env", "--shell", "json", "--unset", env={**clean, **expected}).stdout)
    assert undone == {**dict.fromkeys(expected), "PATH": clean["PATH"]}


def test_env_for_a_shell_that_cannot_hold_it(odd: VEnv, clean: dict[str, str]) -> None:
    done = odd.python_(*COMMAND, "env", "--shell", "cmd", env=clean)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cuda-build-activate: cmd cannot hold '")


def test_quoting_for_shells_that_are_not_here() -> None:
    """PowerShell and cmd run on Windows: their rules for quotes, unverified by them."""
    changes = {"A": "it's $x \u2019 `n", "B": None}
    assert (
        SHELLS["powershell"](changes) == "$Env:A = 'it''s $x \u2019\u2019 `n'\nRemove-Item -ErrorAction Ignore Env:B\n"
    )
    assert SHELLS["cmd"]({"A": "50% & more", "B": None}) == 'set "A=50%% & more"\nset "B="\n'
    with pytest.raises(ValueError, match="cmd cannot hold"):
        SHELLS["cmd"]({"A": 'a"b'})
    assert SHELLS["github"]({"A": "EOF\nx"}) == "A<<EOF_\nEOF\nx\nEOF_\n"


def test_info(activated: VEnv, clean: dict[str, str]) -> None:
    (activated.site / "nvidia_cuda_nvcc-13.4.92.dist-info").mkdir()
    record = ["nvidia/cu13/bin/nvcc,,", "nvidia/cu13/bin/nvcc.profile,,", "nvidia/cu13/lib/libcudart.so.13,,"]
    record.append("nvidia/cu13/include/cuda_runtime.h,,")
    (activated.site / "nvidia_cuda_nvcc-13.4.92.dist-info" / "RECORD").write_text("\n".join(record))
    (activated.site / "nvidia_nvvm-13.4.92.dist-info").mkdir()  # without a record
    done = activated.python_(*COMMAND, env=clean)
    assert done.returncode == 0
    assert done.stdout.splitlines()[:5] == [
        f"activated CUDA 13.4.92 with nvcc: {activated.root} (rule 3)",
        "version 13.4.92",
        "components:",
        "  nvidia-cuda-nvcc 13.4.92  nvcc, libcudart.so.13, 1 header",
        "  nvidia-nvvm 13.4.92",
    ]
    assert f"  CUDA_HOME={activated.root}" in done.stdout.splitlines()
    for arguments in (["--json"], ["info", "--json"]):
        report: dict[str, Any] = json.loads(activated.python_(*COMMAND, *arguments, env=clean).stdout)
        assert {**report, "variables": None, "reason": None} == {
            "schema": 1,
            "activated": True,
            "rule": 3,
            "code": None,
            "reason": None,
            "root": str(activated.root),
            "own_root": str(activated.root),
            "version": "13.4.92",
            "major": 13,
            "nvcc": True,
            "components": [
                {
                    "name": "nvidia-cuda-nvcc",
                    "version": "13.4.92",
                    "programs": ["nvcc"],
                    "libraries": ["libcudart.so.13"],
                    "headers": 1,
                },
                {"name": "nvidia-nvvm", "version": "13.4.92", "programs": [], "libraries": [], "headers": 0},
            ],
            "variables": None,
        }
    assert report["variables"] == {name: activated.environ(env=clean)[name] for name in report["variables"]}


def test_info_without_a_version(activated: VEnv, clean: dict[str, str]) -> None:
    (activated.site / "nvidia/cu13/include/cuda_runtime_api.h").write_text("")
    said = activated.python_(*COMMAND, env=clean).stdout.splitlines()
    assert said[:2] == [f"activated CUDA 13 with nvcc: {activated.root} (rule 3)", "variables:"]
    assert json.loads(activated.python_(*COMMAND, "--json", env=clean).stdout)["version"] is None


@pytest.mark.parametrize(
    ("variable", "rule", "code"),
    [
        ({}, 5, "no-toolkit"),
        ({"CUDA_BUILD_ACTIVATE": "0"}, 1, "switched-off"),
        ({"CUDACXX": "/opt/cuda/bin/nvcc"}, 2, "compiler-chosen"),
    ],
)
def test_nothing_activated(venv: VEnv, clean: dict[str, str], variable: dict[str, str], rule: int, code: str) -> None:
    environ = {**clean, **variable}
    report = json.loads(venv.python_(*COMMAND, "--json", env=environ).stdout)
    assert (report["activated"], report["rule"], report["code"], report["variables"]) == (False, rule, code, {})
    assert venv.python_(*COMMAND, env=environ).stdout == f"{report['reason']} (rule {rule})\n"
    for arguments in (["root"], ["env"], ["run", "true"]):
        done = venv.python_(*COMMAND, *arguments, env=environ)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"cuda-build-activate: {report['reason']}\n"


def test_root(activated: VEnv, clean: dict[str, str]) -> None:
    done = activated.python_(*COMMAND, "root", env=clean)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{activated.root}\n", "")


def test_run(activated: VEnv, clean: dict[str, str], tmp_path: Path) -> None:
    isolated = ["-S"]  # so that not the hook has set them
    environ = {**clean, "PYTHONPATH": str(activated.site)}
    assert "CUDA_HOME" not in activated.environ(*isolated, env=environ)
    for separator in ([], ["--"]):
        done = activated.python_(*isolated, *COMMAND, "run", *separator, "nvcc", "--version", env=environ)
        assert (done.returncode, done.stdout) == (0, f"{activated.root}/bin/nvcc\n")
    odd = script(tmp_path / "odd", 'printf "%s|" "$CUDA_HOME" "$@"; exit 42')
    done = activated.python_(*isolated, *COMMAND, "run", "--", str(odd), "--json", "-h", "a b", env=environ)
    assert (done.returncode, done.stdout) == (42, f"{activated.root}|--json|-h|a b|")
    (tmp_path / "broken").touch(0o755)
    for command, status in (("nonesuch", 127), (str(tmp_path / "broken"), 126)):
        done = activated.python_(*COMMAND, "run", command, env=clean)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith(f"cuda-build-activate: run: {command}: ")


@pytest.mark.parametrize("arguments", [["bogus"], ["--bogus"], ["env", "--shell", "tcsh"], ["run"], ["root", "more"]])
def test_a_wrong_command_line(activated: VEnv, clean: dict[str, str], arguments: list[str]) -> None:
    done = activated.python_(*COMMAND, *arguments, env=clean)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_help_and_version(venv: VEnv, clean: dict[str, str]) -> None:
    console_script = [venv.path / "bin" / "cuda-build-activate"]
    assert run([*console_script, "--version"], env=clean) == "cuda-build-activate 0.1.0\n"
    said = run([*console_script, "--help"], env=clean)
    for word in ("info", "doctor", "env", "run", "root", 'eval "$(cuda-build-activate env)"', "Exit status"):
        assert word in said


def documented(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The rows of the page's table: each command, and each of its options."""
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    summaries = {action.dest: action.help for action in commands._choices_actions}
    for name, command in commands.choices.items():
        actions = [action for action in command._actions if not isinstance(action, argparse._HelpAction)]
        arguments = "".join(f" {named(action)}" for action in actions if not action.option_strings)
        yield f"| `{name}{arguments}` | {summaries[name]} |"
        for action in actions:
            if action.option_strings:
                yield f"| `{name} {named(action)}` | {action.help} |"


def named(action: argparse.Action) -> str:
    """How an argument is written: its options, and what they take."""
    taken = action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else action.dest.upper())
    more = " ..." if action.nargs == "+" else ""
    if not action.option_strings:
        return f"[{taken}]" if action.nargs == "?" else f"{taken}{more}"
    options = ", ".join(action.option_strings)
    return options if action.nargs == 0 else f"{options} {taken}"


def test_the_page_has_every_command_and_option() -> None:
    table = "\n".join(["| command | what it does |", "|---|---|", *documented(_parser()), ""])
    page = (PROJECT / "docs" / "reference" / "command-line.md").read_text()
    assert f"\n{table}\n" in page, f"docs/reference/command-line.md should have:\n{table}"


def test_a_reader_that_has_seen_enough(activated: VEnv, clean: dict[str, str]) -> None:
    code = f"'{activated.python}' -m cuda_build_activate info | true"
    done = subprocess.run(["sh", "-c", code], env=clean, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_colours_only_on_a_terminal(activated: VEnv, clean: dict[str, str]) -> None:
    def on_a_terminal(environ: dict[str, str]) -> str:
        parent, child = pty.openpty()
        subprocess.run([activated.python, *COMMAND, "doctor"], env=environ, stdout=child, check=False)
        os.close(child)
        return os.read(parent, 4096).decode()

    clean["NVCC_APPEND_FLAGS"] = "-I/opt"
    assert "\033[33mwarning\033[0m: NVCC_APPEND_FLAGS" in on_a_terminal(clean)
    assert "\033" not in on_a_terminal({**clean, "NO_COLOR": "1"})
    assert "\033" not in activated.python_(*COMMAND, "doctor", env=clean).stdout


def test_a_path_that_is_not_text(activated: VEnv, clean: dict[str, str], tmp_path: Path) -> None:
    site = activated.site.rename(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    environ = {**clean, "PYTHONPATH": str(site)}
    root = f"{site}/cuda-build-activate/cu13"
    done = subprocess.run([activated.python, "-S", *COMMAND, "root"], env=environ, capture_output=True, check=False)
    assert done.stdout == os.fsencode(root) + b"\n"
    assert json.loads(activated.python_("-S", *COMMAND, "--json", env=environ).stdout)["root"] == root
