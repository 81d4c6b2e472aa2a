"""What the startup files do in CPython 3.14 and 3.15, which npm has compiled for Node: real interpreters (Pyodide).

3.15 is the first that knows .start files (PEP 829).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import MACHINE, VEnv, make_toolkit, run, script
from filelock import FileLock
from test_startup import activated

pytestmark = pytest.mark.everything

RELEASES = {"3.14": "314.0.7", "3.15": "315.0.0-alpha.2"}  # npm's versions, by Python's
SUFFIX = {"3.14": ".pth", "3.15": ".start"}  # of the startup file that runs

# A .pth file that is read before ours imports it.
RECORDER = """
import sys

processed = 0
calls = []
imported = []


def note(frame, event, argument):
    if frame.f_code.co_name == "startup" and frame.f_globals["__name__"] == "cuda_build_activate":
        modules = set(sys.modules)
        if event == "call":
            caller = frame.f_back.f_locals  # those of site's function, also in the line that this executes
            calls.append(caller.get("filename") or caller["fullname"])
            imported.append(modules)
        elif event == "return":
            imported.append(sorted(modules - imported.pop()))


def report():
    import json, os

    print(json.dumps([processed, calls, imported, dict(os.environ)]))


sys.setprofile(note)
"""


class Report(NamedTuple):
    """What has happened in a process: how often the environment's site directory was processed, the file that each call
    of ours came from, what each call imported, and the variables that are set now.
    """

    processed: int
    calls: list[str]
    imported: list[list[str]]
    environ: dict[str, str]


class Pyodide(VEnv):
    """A virtual environment of a CPython that runs under Node, with the wheel and a toolkit in it."""

    def __init__(self, path: Path, version: str, package: Path, wheel: Path) -> None:
        self.path = path
        self.version = version
        node = f'exec node "{Path(__file__).with_name("pyodide.mjs")}" "{package}" "{path.parent}"'
        self.python = script(path / "bin" / "python", f'{node} "$0" "$@"')
        self.prefix = []
        (path / "pyvenv.cfg").write_text("home = /bin\n")
        self.site = path / "lib" / f"python{version}" / "site-packages"
        install(wheel, self.site)

    def reports(self, code: str = "report()", *, env: dict[str, str]) -> list[Report]:
        """Start an interpreter to run *code*, and return its reports."""
        (self.site / "recorder.py").write_text(RECORDER)
        (self.site / "a.pth").write_text("import recorder; recorder.processed += 1\n")
        done = self.start(f"from recorder import report\n{code}", env=env)
        assert (done.returncode, done.stderr) == (0, "")
        return [Report(*json.loads(line)) for line in done.stdout.splitlines()]


def install(wheel: Path, directory: Path) -> None:
    """Put the wheel and a toolkit into *directory*."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    make_toolkit(directory)


def startup_file(directory: Path, suffix: str) -> str:
    return f"{directory}/hatch_autorun_cuda_build_activate{suffix}"


@pytest.fixture(scope="session")
def releases(pytestconfig: pytest.Config) -> dict[str, Path]:
    """Pyodide by Python's version, fetched once and kept in pytest's cache."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not on PATH")
    directory = Path(pytestconfig.cache.mkdir("pyodide"))
    with FileLock(directory / ".lock"):
        for release in RELEASES.values():
            fetched = directory / release / ".fetched"
            if not fetched.exists():
                options = ["--loglevel=error", "--no-audit", "--ignore-scripts", f"--prefix={fetched.parent}"]
                command = ["npm", "install", *options, f"pyodide@{release}"]
                done = subprocess.run(command, env=MACHINE, capture_output=True, text=True, check=False)
                if done.returncode:
                    pytest.skip(f"npm cannot fetch pyodide {release}: {done.stderr.partition(chr(10))[0]}")
                fetched.touch()
    return {version: directory / release / "node_modules" / "pyodide" for version, release in RELEASES.items()}


@pytest.fixture(params=RELEASES)
def each(request: pytest.FixtureRequest, releases: dict[str, Path], tmp_path: Path, wheel: Path) -> Pyodide:
    """An environment with the wheel and a toolkit, for each Python."""
    return Pyodide(tmp_path / "pyodide", request.param, releases[request.param], wheel)


def listing(root: Path) -> list[str]:
    """Every place in *root*: its type and mode, and where a link leads.

    Without targets, which the machine decides, and what is in .site, which has the path of the environment.
    """
    command = ["find", ".", "-name", "targets", "-prune", "-o", "-printf", "%P %y %m %l\\n", "-name", ".site", "-prune"]
    return sorted(run(command, cwd=root).splitlines())


def test_the_activation_is_complete(each: Pyodide, venv: VEnv, clean: dict[str, str]) -> None:
    environ = each.environ(env=clean)
    assert activated(each, environ, each.environ("-S", env=clean))
    make_toolkit(venv.site)
    venv.environ(env=clean)
    assert listing(each.root) == listing(venv.root)
    made = each.root.readlink()
    (seen,) = each.reports(env=clean)
    assert (seen.environ, seen.imported, each.root.readlink()) == (environ, [[]], made)


@pytest.mark.parametrize(
    ("each", "present", "caller"),
    [
        ("3.14", [".pth", ".start"], ".pth"),
        ("3.14", [".pth"], ".pth"),
        ("3.14", [".start"], None),
        ("3.15", [".pth", ".start"], ".start"),
        ("3.15", [".pth"], ".pth"),
        ("3.15", [".start"], ".start"),
    ],
    indirect=["each"],
)
def test_one_startup_file_calls_once(
    each: Pyodide, clean: dict[str, str], present: list[str], caller: str | None
) -> None:
    for suffix in {".pth", ".start"} - set(present):
        Path(startup_file(each.site, suffix)).unlink()
    (seen,) = each.reports(env=clean)
    assert seen.processed == {"3.14": 2, "3.15": 1}[each.version]  # before 3.15 in every virtual environment
    assert seen.calls == ([startup_file(each.site, caller)] if caller else [])
    assert activated(each, seen.environ, each.environ("-S", env=clean)) == bool(caller)


def test_a_directory_added_twice(each: Pyodide, tmp_path: Path, clean: dict[str, str]) -> None:
    added = tmp_path / "added"
    each.site.rename(added)
    each.site.mkdir()
    add = f"import site; site.addsitedir({str(added)!r}); report()"
    first, second = each.reports(f"{add}; {add}", env=clean)
    call = startup_file(added, SUFFIX[each.version])
    assert first.calls == [call]
    assert second.calls == {"3.14": [call], "3.15": [call, call]}[each.version]  # the .pth file's line stops itself
    assert first.environ["CUDA_HOME"] == f"{added}/cuda-build-activate/cu13"
    assert second.environ == first.environ


def test_the_way_pip_isolates(each: Pyodide, wheel: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    """pip's sitecustomize module processes the outer environment again with an empty sys.path, then the inner one."""
    overlay = tmp_path / "overlay"
    install(wheel, overlay)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import site, sys\n"
        "paths, sys.path = sys.path, []\n"
        f"site.addsitedir({str(each.site)!r}, known_paths=set())\n"
        f"sys.path = [path for path in paths if path != {str(each.site)!r}]\n"
        f"site.addsitedir({str(overlay)!r})\n"
    )
    clean["PYTHONPATH"] = str(tmp_path / "site")
    (seen,) = each.reports(env=clean)
    outer, inner = (startup_file(directory, SUFFIX[each.version]) for directory in (each.site, overlay))
    assert seen.calls == {"3.14": [outer, inner], "3.15": [outer, outer, inner]}[each.version]
    assert seen.environ["CUDA_HOME"] == f"{overlay}/cuda-build-activate/cu13"
    assert not [name for name, value in seen.environ.items() if str(each.root) in value]
    assert each.environ(env=seen.environ) == seen.environ


def test_a_child_keeps_what_its_parent_set(each: Pyodide, clean: dict[str, str]) -> None:
    parent = {**each.environ(env=clean), "CUDA_HOME": "/opt/chosen/by/the/build", "PATH": clean["PATH"]}
    assert each.environ(env=parent) == parent


def test_verbose_says_what_was_done_once(each: Pyodide, clean: dict[str, str]) -> None:
    said = each.start(env={**clean, "CUDA_BUILD_ACTIVATE_VERBOSE": "1"}).stderr
    assert said == f"cuda-build-activate: activated CUDA 13.4.0 with nvcc: {each.root}\n"


def test_an_error_of_ours_is_not_told(each: Pyodide, clean: dict[str, str]) -> None:
    (each.site / "cuda_build_activate" / "_assemble.py").write_text("raise RuntimeError('broken')")
    assert each.environ(env=clean) == each.environ("-S", env=clean)
