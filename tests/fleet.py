"""Build the fleet: source distributions of other projects, unchanged, by the recipes that the package has for them.

``python3 tests --fleet [NAME ...]`` builds those that are named, or all, each in isolation by uv, with this checkout's
wheel, where no CUDA of the machine's can answer, and imports what was built into an environment that has neither nvcc
nor this package. It takes hours. What came of it goes into recipes.json, and from there to docs/reference/fleet.md; so
does what was found where one stopped, which somebody has to write there. Exit status: 0 if all that ran were built and
loaded.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import hermetic

from cuda_build_activate import STABLE, _elf, _recipes

PROJECT = Path(__file__).parent.parent
BUILD = PROJECT / "build" / "fleet"
PAGE = PROJECT / "docs" / "reference" / "fleet.md"
ROWS = PROJECT / "src" / "cuda_build_activate" / "recipes.json"
UV = [sys.executable, "-m", "uv"]
LIMIT_S = 2 * 3600
PREFACE = """# Third-party projects built

These are source distributions of other projects on PyPI. `cuda-build-activate recipe PROJECT` prints the commands that
build one with a toolkit from PyPI, unchanged, with uv or with pip.

Of {recipes} [recipes](../../src/cuda_build_activate/recipes.json), {run} were run, and {built} projects were built and
loaded. *Built*: with uv, in isolation, for one architecture if the project offers the choice, on Linux x86_64 with two
cores and no CUDA. *Loaded*: imported in an environment that has neither nvcc nor this package, with no installed CUDA,
and with a stub in place of the driver. There was no GPU, so no kernel has run. The times are upper limits, since some
builds ran side by side.

`python3 tests --fleet [PROJECT ...]` builds the projects and writes this page.
"""


machine: dict[str, str] = {}  # what it says of where to fetch from: see hermetic.py


def environ() -> dict[str, str]:
    """What builds get: nothing of the machine's but where to fetch from."""
    fetching = {name: value for name, value in machine.items() if re.match(r"(?i)(uv|pip|ssl|https?|no)_", name)}
    kept = {name: value for name, value in os.environ.items() if name not in ("UV_NO_CONFIG", STABLE)}
    return {**fetching, **kept, "UV_CACHE_DIR": str(BUILD / "uv"), "CUDA_BUILD_ACTIVATE_VERBOSE": "1"}


def build(recipe: _recipes.Recipe, wheel: Path, driver: Path) -> dict[str, str]:
    """Build, install and load what *recipe* is for; return what its row says of that."""
    place = Path(tempfile.mkdtemp(prefix=f"{recipe.name}-", dir=BUILD))
    log = BUILD / f"{recipe.name}.log"
    subprocess.run([*UV, "venv", "--quiet", "--python", sys.executable, place / "venv"], check=True)
    python = place / "venv" / "bin" / "python"
    # A value that is new: uv keeps what it has built before.
    settings = recipe._replace(variables={**recipe.variables, "BUILT_FOR": str(place)})
    text = _recipes.uv_settings(settings).replace(
        '"cuda-build-activate"', json.dumps(f"cuda-build-activate @ {wheel.as_uri()}")
    )
    (place / "uv.toml").write_text(text)
    _, *install = _recipes.uv_command(recipe)
    command = [
        *hermetic.without_cuda(),
        *UV,
        *install,
        "--verbose",
        "--python",
        str(python),
        "--config-file",
        str(place / "uv.toml"),
    ]
    started = time.monotonic()
    try:
        with open(log, "w") as file:
            done = subprocess.run(command, env=environ(), stdout=file, stderr=file, timeout=LIMIT_S, check=False)
        failed = f"exit status {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        failed = f"not built in {LIMIT_S // 3600} hours"
    minutes = (time.monotonic() - started) / 60
    outcome = failed or built_by(log.read_text(errors="replace")) or loads(recipe, python, driver)
    today = datetime.date.today().isoformat()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    tested = {"outcome": outcome or _recipes.BUILT, "date": today, "python": version, "minutes": f"{minutes:.1f}"}
    if not outcome:
        tested["toolkit"] = max(re.findall(r"activated CUDA ([\d.]+) with nvcc", log.read_text(errors="replace")))
        tested["device code"] = " ".join(sorted(device_code(place / "venv", recipe)))
    subprocess.run(["rm", "-rf", place], check=True)
    return tested


def built_by(log: str) -> str:
    """Empty if an isolated build's own toolkit was activated; else what is wrong, in words."""
    roots = set(re.findall(r"activated CUDA [\d.]+ with nvcc: \S+ -> (\S+)", log))
    return "" if roots and all(f"{BUILD}/uv/builds-v" in root for root in roots) else f"built with {roots or 'nothing'}"


def device_code(venv: Path, recipe: _recipes.Recipe) -> set[str]:
    """For which architectures the libraries and programs of the distribution have device code."""
    (site,) = venv.glob("lib/python*/site-packages")
    name = recipe.name.replace("-", "_")
    (record,) = site.glob(f"{name}-*.dist-info/RECORD")
    found = set()
    for line in record.read_text().splitlines():
        path = site / line.partition(",")[0]
        if path.is_file():
            with open(path, "rb") as file:
                if file.read(4) == _elf.MAGIC:
                    found |= set(_elf.read(file).device_code)
    return found


def loads(recipe: _recipes.Recipe, python: Path, driver: Path) -> str:
    """Empty if what was built can be loaded; else what Python said last."""
    command = [*hermetic.without_cuda(), str(python), "-c", recipe.load]
    done = subprocess.run(
        command,
        env={**os.environ, "LD_LIBRARY_PATH": str(driver)},
        cwd=python.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return f"does not load: {done.stdout.strip().splitlines()[-1]}" if done.returncode else ""


def main(names: Sequence[str]) -> int:
    """Build the fleet, or those with these *names*; write the rows and the page, and return the exit status."""
    recipes = _recipes.known(str(ROWS))  # the checkout's: the package that is installed here may have older ones
    unknown = set(names) - set(recipes)
    if unknown:
        sys.exit(f"no recipe for {', '.join(sorted(unknown))}")
    machine.update(hermetic.isolate())
    BUILD.mkdir(parents=True, exist_ok=True)
    dist = Path(tempfile.mkdtemp(prefix="dist-", dir=BUILD))
    subprocess.run([*UV, "build", "--quiet", "--wheel", "--out-dir", dist, PROJECT], env=environ(), check=True)
    (wheel,) = dist.glob("*.whl")
    failed = 0
    for recipe in recipes.values():
        if recipe.name in names or not names:
            tested = build(recipe, wheel, stub(wheel))
            print(f"{recipe.name} {recipe.version}: {tested['outcome']}, {tested['minutes']} minutes", flush=True)
            record(recipe.name, tested)
            failed += tested["outcome"] != _recipes.BUILT
    PAGE.write_text(page())
    return int(failed > 0)


def stub(wheel: Path) -> Path:
    """A directory with a driver to load libraries with, which can do nothing."""
    venv = BUILD / "toolkit"
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([*UV, "venv", "--quiet", "--python", sys.executable, venv], check=True)
        requirements = [str(wheel), "cuda-toolkit[crt,cudart,profiler]==13.*"]
        subprocess.run([*UV, "pip", "install", "--quiet", "--python", python, *requirements], env=environ(), check=True)
    command = [str(python), "-m", "cuda_build_activate", "root"]
    root = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    driver = BUILD / "driver"
    driver.mkdir(exist_ok=True)
    link = driver / "libcuda.so.1"
    link.unlink(missing_ok=True)
    link.symlink_to(f"{root}/lib64/stubs/libcuda.so")
    return driver


def record(name: str, tested: dict[str, str]) -> None:
    """Write what came of a build into its row. Where it stopped, somebody has to add whose fault that is."""
    rows = json.loads(ROWS.read_text())
    (row,) = [row for row in rows if row["name"] == name]
    row["tested"] = tested
    ROWS.write_text(json.dumps(rows, indent=1) + "\n")


def page() -> str:
    """docs/reference/fleet.md, as recipes.json has it."""
    recipes = _recipes.known(str(ROWS)).values()
    built = sum(recipe.tested.get("outcome") == _recipes.BUILT for recipe in recipes)
    run = sum(bool(recipe.tested) for recipe in recipes)
    lines = [
        PREFACE.format(built=built, run=run, recipes=len(recipes)),
        "| project | field | backend | result | time |",
    ]
    lines.append("|---|---|---|---|---|")
    stopped = []
    for recipe in recipes:
        tested = recipe.tested
        ended, took = "not run", ""
        if tested:
            code = tested.get("device code", "").split()
            described = " ".join(code) or "no device code"
            if len(code) > 4:
                described = f"device code for {sum(name.startswith('sm_') for name in code)} architectures"
            details = [f"CUDA {tested['toolkit']}", described] if "toolkit" in tested else []
            ended = ", ".join([f"{tested['outcome']} on {tested['date']}", *details])
            took = f"{float(tested['minutes']):.0f} min"
        if tested.get("fault"):
            stopped.append(f"- **{recipe.name} {recipe.version}**: {tested['fault']}")
        backend = recipe.backend + (f" {recipe.torch}" if recipe.torch else "")
        lines.append(f"| {recipe.name} {recipe.version} | {recipe.kind} | {backend} | {ended} | {took} |")
    if stopped:
        lines += ["", "## What failed, and why", "", *stopped]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
