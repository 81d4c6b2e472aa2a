"""Measure what the package costs: ``python3 bench [--MODE] [RESULT.json]``; by default, what a start costs.

Needs valgrind and strace. Makes its own environment and the project's wheel, in build/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import audits
import builds
import caches
import check
import growth
import pictures
import report
import startup
import targets
from environments import PREFERRED, interpreters, run, running
from measure import tool

BENCH = Path(__file__).resolve().parent
OUT = BENCH.parent / "build" / "bench"
VENV = OUT / "venv"


def main() -> int:
    options = _parser().parse_args()
    if options.mode == "pictures":
        pictures.write(json.loads(options.result.read_text()), BENCH.parent / "docs" / "pictures")
        return 0
    mode, tools = MODES["caches" if options.caches else options.mode]
    for name in tools:
        tool(name)
    if options.wheel is None:
        return _in_own_environment()
    directory = OUT / mode.__name__.strip("_")
    shutil.rmtree(directory, ignore_errors=True)
    try:
        return mode(options.wheel, directory, options.result)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 bench", description="Measure what the package costs.")
    modes = parser.add_mutually_exclusive_group()
    for mode, text in (
        ("audits", "instead, time the audit of a 1 GB wheel: needs the network, for what the extra wheel installs"),
        ("builds", "instead, time whole builds of the example: needs the network, fetches 0.6 GB"),
        ("check", "compare three states of this Python with recorded.json: exit status 1 if the cost of one has grown"),
        ("pictures", "draw the last results for the pages, to docs/pictures: measures nothing"),
        ("record", "rewrite recorded.json, for all supported versions of Python on this machine"),
    ):
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, default="startup", help=text)
    text = "instead, build twice with ccache, in several ways: needs the network; lightgbm takes half an hour"
    modes.add_argument("--caches", nargs="?", const="example", choices=[*caches.PROJECTS], help=text)
    wheel = "measure this wheel, with the uv of the running environment, instead of making both"
    parser.add_argument("--wheel", type=Path, help=wheel)
    result = BENCH / "result.json"
    parser.add_argument("result", nargs="?", type=Path, default=result, help=f"where figures go (default: {result})")
    return parser


def _in_own_environment() -> int:
    """Run this program again, in its own environment with uv, on a new wheel of the project."""
    python = VENV / "bin" / "python"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    if not (VENV / "bin" / "uv").exists():
        try:
            venv.create(VENV, with_pip=True, clear=True)
        except subprocess.CalledProcessError:
            sys.exit("This Python lacks ensurepip, which venv needs. On Debian and Ubuntu: apt install python3-venv")
        run(*pip, "install", "--upgrade", "pip", "uv")
    # A path that never existed before: uv caches wheels by path.
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=OUT) as directory:
        run(*pip, "wheel", "--no-deps", "--wheel-dir", directory, BENCH.parent)
        (wheel,) = Path(directory).glob("*.whl")
        return subprocess.run([python, BENCH, *sys.argv[1:], "--wheel", wheel], check=False).returncode


def _startup(wheel: Path, directory: Path, result: Path) -> int:
    """Measure all states in the oldest and newest interpreters, and in the one that the targets are for."""
    found = interpreters()
    stated = PREFERRED if PREFERRED in found else max(found)
    for version in sorted({min(found), stated, max(found)}):
        interpreter = found[version]
        python = run(interpreter, "-c", "import platform; print(platform.python_version())").strip()
        states = startup.States(interpreter, directory / python, wheel)
        compared = states.add_all()
        rows, times = startup.measure(python, states)
        _print(report.startup(python, rows, times))
        if version == stated:
            grown = list(growth.measure(states, interpreter, directory / "growth", wheel))
            evaluated = list(targets.evaluate(version, rows, times, grown))
            kept = {
                "compared with": compared,
                "states": [row._asdict() for row in rows],
                "times": [row._asdict() for row in times],
                "targets": [row._asdict() for row in evaluated],
            }
    _print(report.growth(grown))
    _print(report.targets(evaluated))
    _write(result, "startup", kept)
    return 0


def _builds(wheel: Path, directory: Path, result: Path) -> int:
    """Time whole builds."""
    _, interpreter = running()
    measured = builds.measure(interpreter, directory, wheel)
    evaluated = list(targets.evaluate_builds(measured))
    _print(report.builds(measured))
    _print(report.targets(evaluated))
    figures = {
        "installed toolkit": measured.installed,
        "builds": [{**build._asdict(), "ours": measured.ours(build)} for build in measured.builds],
        "milliseconds of a start": measured.milliseconds,
        "targets": [row._asdict() for row in evaluated],
    }
    _write(result, "builds", figures)
    return 0


def _caches(wheel: Path, directory: Path, result: Path) -> int:
    """Time builds with a compile cache."""
    _, interpreter = running()
    options = _parser().parse_args()
    rows = []
    for row in caches.measure(interpreter, directory, wheel, options.caches):
        rows.append(row)  # each takes minutes: keep what there is
        _write(result, f"caches, {options.caches}", {"builds": [row._asdict() for row in rows]})
    _print(report.caches(rows))
    return 0


def _audits(wheel: Path, directory: Path, result: Path) -> int:
    """Time the audit of a large wheel."""
    _, interpreter = running()
    measured = audits.measure(interpreter, directory, wheel)
    _print(audits.described(measured))
    _write(result, "audits", measured._asdict())
    return 0


def _write(path: Path, section: str, figures: Mapping[str, object]) -> None:
    """Replace this *section* of the results, and keep the others."""
    results = json.loads(path.read_text()) if path.exists() else {}
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        (cpu, *_) = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    machine = {"cpu": cpu, "cpus": os.cpu_count(), "kernel": f"{platform.system()} {platform.release()}"}
    today = datetime.date.today().isoformat()
    results[section] = {"date": today, "machine": machine, "python": platform.python_version(), **figures}
    path.write_text(_compact(results) + "\n")


def _compact(value: object, indent: str = "") -> str:
    """JSON with a line for each row of figures, and no digits that mean nothing."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and any(isinstance(part, (dict, list)) for part in value.values()):
        parts = [f"{indent}  {json.dumps(name)}: {_compact(part, indent + '  ')}" for name, part in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {_compact(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"{indent}  {_compact(row, indent + '  ')}" for row in value) + f"\n{indent}]"
    return json.dumps(value)


def _check(wheel: Path, directory: Path, result: Path) -> int:
    """Check whether the cost of a start has grown."""
    (major, minor), interpreter = running()
    counts = check.count(interpreter, directory, wheel)
    before = check.recorded().get(f"{major}.{minor}")
    _print(report.counts(counts, before))
    if before is None:
        print(f"No counts are recorded for CPython {major}.{minor}. To record them: python3 bench --record")
        return 2
    grown = check.grown(counts, before)
    _print(grown)
    return 1 if grown else 0


def _record(wheel: Path, directory: Path, result: Path) -> int:
    """Record the current costs as those allowed."""
    for (major, minor), interpreter in interpreters().items():
        name = f"{major}.{minor}"
        counts = check.count(interpreter, directory / name, wheel)
        check.record({name: counts})
        print(f"\nCPython {name}")
        _print(report.counts(counts, None))
    return 0


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


MODES: dict[str, tuple[Callable[[Path, Path, Path], int], tuple[str, ...]]] = {
    "audits": (_audits, ("gcc",)),
    "caches": (_caches, ("g++",)),
    "startup": (_startup, ("valgrind", "strace")),
    "builds": (_builds, ("strace",)),
    "check": (_check, ("valgrind",)),
    "record": (_record, ("valgrind",)),
}

if __name__ == "__main__":
    sys.exit(main())
