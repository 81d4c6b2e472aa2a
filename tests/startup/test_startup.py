"""What the startup files do, in real interpreters and real virtual environments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MACHINE, VARIABLES, VEnv, make_toolkit
from faults import ACTIVATED, fault

VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.13t", "3.14", "3.14t")
MODULES = "import sys; print(*sorted(sys.modules))"
OURS = {"cuda_build_activate"}


def interpreters() -> list[Path]:
    """One interpreter of each supported version that this machine has: on PATH, or pyenv's. And PyPy, if it has it."""
    found = {"{}.{}{}".format(*sys.version_info[:2], sys.abiflags.replace("d", "")): Path(sys.executable)}
    pyenv = Path(MACHINE.get("PYENV_ROOT") or f"{MACHINE.get('HOME', '')}/.pyenv") / "versions"
    for version in VERSIONS:
        on_path = [
            Path(entry) / f"python{version}" for entry in MACHINE["PATH"].split(os.pathsep) if "shims" not in entry
        ]
        minor, suffix = version.rstrip("t"), "t" if version.endswith("t") else ""
        of_pyenv = sorted(pyenv.glob(f"{minor}.*[0-9]{suffix}/bin/python"))
        for candidate in [*of_pyenv, *on_path]:
            if version not in found and candidate.exists():
                found[version] = candidate
    pypy = shutil.which("pypy3")
    supported = "import sys; sys.exit(sys.version_info < (3, 9))"
    if pypy and subprocess.run([pypy, "-c", supported], check=False).returncode == 0:
        found["pypy"] = Path(pypy)
    return [found[version] for version in (*VERSIONS, "pypy") if version in found]


@pytest.fixture(params=interpreters(), ids=lambda path: str(path))
def each(request: pytest.FixtureRequest, tmp_path: Path, wheel: Path) -> VEnv:
    """An environment with the wheel and a toolkit, for each Python."""
    made = VEnv(tmp_path / "venv", request.param)
    made.install(wheel)
    make_toolkit(made.site)
    return made


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def activated(venv: VEnv, environ: dict[str, str], before: dict[str, str]) -> bool:
    """Whether *environ* is activated completely; False if it is untouched. Anything between fails."""
    if environ == before:
        return False
    assert changed(before, environ) == VARIABLES
    for name in VARIABLES - {"PATH", "CMAKE_PREFIX_PATH", "CUDACXX", "LIBRARY_PATH", "CUDA_BUILD_ACTIVATE_SITE"}:
        assert environ[name] == str(venv.root)
    assert environ["CUDACXX"] == f"{venv.root}/bin/nvcc"
    assert environ["LIBRARY_PATH"] == f"{venv.root}/lib64/stubs"
    assert environ["PATH"].split(os.pathsep).count(f"{venv.root}/bin") == 1
    assert environ["PATH"].startswith(f"{venv.root}/bin{os.pathsep}")
    assert environ["CMAKE_PREFIX_PATH"].split(os.pathsep).count(str(venv.root)) == 1
    return True


def test_every_python(each: VEnv, clean: dict[str, str]) -> None:
    assert activated(each, each.environ(env=clean), {**clean, **each.environ("-S", env=clean)})


def test_nothing_but_the_hot_module_is_imported(each: VEnv, clean: dict[str, str]) -> None:
    each.environ(env=clean)  # the first start assembles
    with_us = set(each.start(MODULES, env=clean).stdout.split())
    as_a_child = set(each.start(MODULES, env=each.environ(env=clean)).stdout.split())
    (startup_file,) = each.site.glob("hatch_autorun_*.pth")
    startup_file.write_text("import sys\n")  # 3.13 imports a codec for any .pth file at all
    without_us = set(each.start(MODULES, env=clean).stdout.split())
    assert "site" in without_us
    assert with_us - without_us == OURS
    assert as_a_child == without_us


def test_a_child_keeps_what_its_parent_set(venv: VEnv, clean: dict[str, str]) -> None:
    make_toolkit(venv.site)
    parent = {**venv.environ(env=clean), "CUDA_HOME": "/opt/chosen/by/the/build", "PATH": "/usr/bin"}
    assert venv.environ(env=parent) == parent
    # By hand, or for a whole CI job, as `cuda-build-activate env` has them:
    by_hand = {name: value for name, value in parent.items() if name != "CUDA_BUILD_ACTIVATE_SITE"}
    assert venv.environ(env=by_hand) == by_hand


def test_a_child_in_another_place(venv: VEnv, clean: dict[str, str], tmp_path: Path) -> None:
    """A copy of the environment has a root of its own; an environment that was moved keeps what its parent set."""
    make_toolkit(venv.site)
    parent = venv.environ(env=clean)
    copy = venv.copy(tmp_path / "copy")
    assert activated(copy, copy.environ(env=parent), venv.environ("-S", env=clean))
    moved = venv.at(venv.path.rename(tmp_path / "moved"))
    code = "import os, sys; print(os.environ['CUDA_HOME'], 'cuda_build_activate._activate' in sys.modules)"
    assert moved.start(code, env=parent).stdout == f"{moved.root} True\n"
    changed_by_the_build = {**moved.environ(env=clean), "CUDA_HOME": "/opt/cuda"}
    assert moved.start(code, env=changed_by_the_build).stdout == "/opt/cuda False\n"


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_an_empty_variable_is_none(name: str, env: VEnv, clean: dict[str, str]) -> None:
    assert env.environ(env={**clean, name: ""})["CUDA_HOME"] == str(env.root)


def test_lib64_is_a_link_to_lib(venv: VEnv, clean: dict[str, str]) -> None:
    """Fedora's Python has both on sys.path, and processes the startup file in each."""
    make_toolkit(venv.site)
    (venv.path / "lib64").unlink(missing_ok=True)
    (venv.path / "lib64").symlink_to("lib")
    lib64 = str(venv.site).replace("/lib/", "/lib64/")
    code = f"import os, site; site.addsitedir({lib64!r}); site.addsitedir({str(venv.site)!r}); import sys, json; "
    code += "print(json.dumps([dict(os.environ), 'cuda_build_activate._activate' in sys.modules]))"
    first, _ = json.loads(venv.start(code, "-S", env=clean).stdout)
    assert first["CUDA_HOME"] == f"{lib64}/cuda-build-activate/cu13"
    changed_by_the_build = {**first, "CUDA_HOME": "/opt/cuda"}
    assert json.loads(venv.start(code, "-S", env=changed_by_the_build).stdout) == [changed_by_the_build, False]


def test_without_a_toolkit_nothing_is_touched(venv: VEnv, clean: dict[str, str]) -> None:
    before = sorted(path for path in venv.path.rglob("*") if "__pycache__" not in path.parts)
    assert venv.environ(env=clean) == venv.environ("-S", env=clean)
    assert sorted(path for path in venv.path.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.parametrize("setting", [{"CUDA_BUILD_ACTIVATE": "0"}, {"CUDACXX": "/opt/cuda/bin/nvcc"}])
def test_switched_off_nothing_is_touched(venv: VEnv, clean: dict[str, str], setting: dict[str, str]) -> None:
    make_toolkit(venv.site)
    environ = {**clean, **setting}
    assert venv.environ(env=environ) == venv.environ("-S", env=environ)
    assert not venv.root.parent.exists()


def test_uninstalled(venv: VEnv, clean: dict[str, str]) -> None:
    make_toolkit(venv.site)
    assert activated(venv, venv.environ(env=clean), venv.environ("-S", env=clean))
    venv.uninstall("cuda-build-activate")
    assert not [path for path in venv.site.iterdir() if path.suffix in (".pth", ".start") and "cuda" in path.name]
    assert venv.environ(env=clean) == venv.environ("-S", env=clean)


def test_verbose_says_what_was_done_once(venv: VEnv, clean: dict[str, str]) -> None:
    clean["CUDA_BUILD_ACTIVATE_VERBOSE"] = "1"
    said = venv.start(env=clean).stderr
    assert said == "cuda-build-activate: nothing activated: no CUDA toolkit in this environment\n"
    make_toolkit(venv.site)
    said = venv.start(env=clean).stderr
    assert said == f"cuda-build-activate: activated CUDA 13.4.0 with nvcc: {venv.root}\n"
    for stream in ("None", "open('/dev/full', 'w')"):  # nothing to write to is no reason to fail
        hook = "from cuda_build_activate import startup; startup()"
        code = f"import sys; sys.stderr = {stream}; {hook}; sys.stderr = None"
        assert venv.start(code, "-S", env={**clean, "PYTHONPATH": str(venv.site)}).returncode == 0


def test_an_error_of_ours_is_told_only_if_asked_for(venv: VEnv, clean: dict[str, str]) -> None:
    make_toolkit(venv.site)
    (venv.site / "cuda_build_activate" / "_assemble.py").write_text("raise RuntimeError('broken')")
    assert venv.environ(env=clean) == venv.environ("-S", env=clean)
    said = venv.start(env={**clean, "CUDA_BUILD_ACTIVATE_VERBOSE": "1"}).stderr
    assert said == "cuda-build-activate: nothing activated: RuntimeError('broken')\n"


def test_the_entry_point_of_the_start_file(venv: VEnv, clean: dict[str, str]) -> None:
    """What Python 3.15 does with a .start file: it imports the module and calls the function without arguments."""
    make_toolkit(venv.site)
    (start_file,) = venv.site.glob("*.start")
    (pth_file,) = venv.site.glob("hatch_autorun_*.pth")
    assert start_file.stem == pth_file.stem
    module, _, function = start_file.read_text().strip().partition(":")
    call = f"getattr(importlib.import_module({module!r}), {function!r})()"
    code = f"import importlib, os; {call}; print(os.environ['CUDA_HOME'])"
    assert venv.start(code, "-S", env={**clean, "PYTHONPATH": str(venv.site)}).stdout == f"{venv.root}\n"


def test_activate_from_a_zip_file(tmp_path: Path, wheel: Path, clean: dict[str, str]) -> None:
    """Startup files are not processed there; a wheel is a zip file that can be imported from."""
    venv = VEnv(tmp_path / "venv")
    make_toolkit(venv.site)
    call = f"cuda_build_activate.activate([{str(venv.site)!r}])"
    code = f"import cuda_build_activate, os; {call}; print(os.environ['CUDACXX'])"
    done = venv.start(code, "-S", env={**clean, "PYTHONPATH": str(wheel)})
    assert (done.stdout, done.stderr) == (f"{venv.root}/bin/nvcc\n", "")


@fault("several copies", "an environment within an activated one", ACTIVATED)
def test_the_innermost_environment_wins(venv: VEnv, tmp_path: Path, wheel: Path, clean: dict[str, str]) -> None:
    make_toolkit(venv.site)
    inner = VEnv(tmp_path / "inner")
    inner.install(wheel)
    make_toolkit(inner.site)
    outer = venv.environ(env=clean)
    environ = inner.environ(env=outer)
    assert environ["CUDA_HOME"] == str(inner.root)
    assert not [name for name, value in environ.items() if str(venv.root) in value]
    assert inner.environ(env=environ) == environ


@fault("several copies", "the outer environment's copy runs for the inner one, as with pip", ACTIVATED)
def test_the_way_pip_isolates(venv: VEnv, tmp_path: Path, wheel: Path, clean: dict[str, str]) -> None:
    """pip's build environment is a directory, not a virtual environment; the outer environment's module runs for it.

    Its sitecustomize module runs the outer environment's startup files with an empty sys.path first.
    """
    overlay = tmp_path / "overlay"
    make_toolkit(venv.site)
    make_toolkit(overlay)
    inner = VEnv(tmp_path / "inner")
    inner.install(wheel)
    for path in inner.site.glob("*cuda_build_activate*"):
        shutil.move(path, overlay)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import site, sys\n"
        "paths, sys.path = sys.path, []\n"
        f"site.addsitedir({str(venv.site)!r}, known_paths=set())\n"
        f"sys.path = [path for path in paths if path != {str(venv.site)!r}]\n"
        f"site.addsitedir({str(overlay)!r})\n"
    )
    environ = venv.environ(env={**clean, "PYTHONPATH": str(tmp_path / "site")})
    assert environ["CUDA_HOME"] == f"{overlay}/cuda-build-activate/cu13"
    assert not [name for name, value in environ.items() if str(venv.root) in value]
    assert venv.environ(env=environ) == environ


@fault("environment variables", "every variable points at the machine's toolkit, which is first on `PATH`", ACTIVATED)
def test_this_machine_cannot_answer(venv: VEnv, hostile: dict[str, str]) -> None:
    make_toolkit(venv.site)
    environ = venv.environ(env=hostile)
    assert shutil.which("nvcc", path=environ["PATH"]) == f"{venv.root}/bin/nvcc"
    assert {environ[name] for name in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDAToolkit_ROOT")} == {str(venv.root)}
