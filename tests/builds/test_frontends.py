"""The example, built in isolation by each front end, in an environment that wants to mislead it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import OTHER_USERS, SETPRIV, STABLE, VEnv, copy_example, run
from faults import ACTIVATED, fault
from toolkits import NEWEST, minor_version

Command = Callable[[Path, Path], list[str]]
UV = [sys.executable, "-m", "uv", "build", "--wheel", "--verbose"]
PIP = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--verbose", "--no-cache-dir"]
BUILD = [sys.executable, "-m", "build", "--wheel", "-v"]

FRONT_ENDS: dict[str, Command] = {
    "pip": lambda project, out: [*PIP, "--wheel-dir", f"{out}", f"{project}"],
    "pip, virtual environment": lambda project, out: [
        *PIP,
        "--use-feature=venv-isolation",
        "--wheel-dir",
        f"{out}",
        f"{project}",
    ],
    "build": lambda project, out: [*BUILD, "--outdir", f"{out}", f"{project}"],
    "build, uv installer": lambda project, out: [*BUILD, "--installer", "uv", "--outdir", f"{out}", f"{project}"],
    "uv": lambda project, out: [*UV, "--link-mode", "hardlink", "--out-dir", f"{out}", f"{project}"],
    "uv, symlinks": lambda project, out: [*UV, "--link-mode", "symlink", "--out-dir", f"{out}", f"{project}"],
}


@pytest.fixture
def index(for_the_example: dict[str, str], temporary: dict[str, str]) -> dict[str, str]:
    """A hostile environment in which front ends install what the tests have fetched, and nothing else."""
    return {**temporary, **for_the_example, "CUDAARCHS": "86"}


@pytest.mark.parametrize(
    "front_end",
    [pytest.param(name, marks=[pytest.mark.everything] * (name not in ("pip", "uv"))) for name in FRONT_ENDS],
)
def test_the_example_is_built_by_the_toolkit_of_its_build_environment(
    front_end: str, index: dict[str, str], cuobjdump: Path, tmp_path: Path
) -> None:
    project = copy_example(tmp_path / "project", whole=front_end in ("pip", "uv"))
    check(run(FRONT_ENDS[front_end](project, tmp_path / "out"), env=index, cwd=tmp_path), tmp_path / "out", cuobjdump)


def check(log: str, out: Path, cuobjdump: Path) -> str:
    """Check what a front end built into *out*, saying *log*; return the toolkit root that was used."""
    found = dict(re.findall(r"skbuild-demo: (\w+) = (.*)", log))
    root: str = found["toolkit"]
    assert re.fullmatch(STABLE, root)
    assert not root.startswith(sys.prefix)
    assert not Path(root).exists(), "the root outlived its build environment"
    assert found["nvcc"] == f"{root}/bin/nvcc"
    assert found["cudart"] in (f"{root}/lib64/libcudart.so", f"{root}/lib/libcudart.so")
    assert found["cublas"] in (f"{root}/lib64/libcublas.so", f"{root}/lib/libcublas.so")
    assert found["CCCL"] == f"{root}/lib/cmake/cccl"
    assert "the decoy was called" not in log

    (wheel,) = out.glob("skbuild_demo-*.whl")
    library = zipfile.ZipFile(wheel).extract("skbuild_demo/libskbuild_demo.so", out)
    dynamic = run(["readelf", "-d", library])
    assert {"libcudart.so.13", "libcublas.so.13"} <= set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    assert re.findall(r"(?:RUNPATH|RPATH).*\[(.*)\]", dynamic) == ["$ORIGIN/../nvidia/cu13/lib"]
    assert set(re.findall(r"\.(sm_\d+)\.cubin", run([cuobjdump, "--list-elf", library]))) == {"sm_86"}
    assert f"Cuda compilation tools, release {minor_version(NEWEST)}" in run([cuobjdump, "--dump-elf", library])
    return root


# No build goes on before all have found their toolkits; one that was done would leave its path to another.
TOGETHER = """
file(TOUCH "{place}/configured")
foreach(second RANGE 600)
  file(GLOB configured "{place}/../*/configured")
  list(LENGTH configured together)
  if(together EQUAL 4)
    break()
  endif()
  execute_process(COMMAND "${{CMAKE_COMMAND}}" -E sleep 1)
endforeach()
"""


@fault("front ends", "four builds at once, with one empty cache", ACTIVATED)
@pytest.mark.everything
def test_four_builds_at_once(index: dict[str, str], cuobjdump: Path, tmp_path: Path) -> None:
    environ = {
        **index,
        "UV_CACHE_DIR": str(tmp_path / "cache" / "uv"),
        "PIP_CACHE_DIR": str(tmp_path / "cache" / "pip"),
    }
    roots, builds = set(), []
    for front_end in ("pip", "build", "uv", "uv, symlinks"):
        place = tmp_path / front_end
        project = copy_example(place / "project")
        with open(project / "CMakeLists.txt", "a") as file:
            file.write(TOGETHER.format(place=place))
        command = [part for part in FRONT_ENDS[front_end](project, place / "out") if part != "--no-cache-dir"]
        with open(place / "log", "w") as log:
            builds.append((place, subprocess.Popen(command, env=environ, cwd=place, stdout=log, stderr=log)))
    for place, build in builds:
        assert build.wait() == 0, (place / "log").read_text()
        roots.add(check((place / "log").read_text(), place / "out", cuobjdump))
    assert len(roots) == 4


@pytest.mark.parametrize("front_end", ["pip", "uv"])
@fault("front ends", "a user without a home directory, by pip and by uv", ACTIVATED)
@pytest.mark.everything
def test_no_home_directory(front_end: str, index: dict[str, str], wheel: Path, cuobjdump: Path) -> None:
    if not OTHER_USERS:
        pytest.skip("taking another user's place needs root")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as directory:
        place = Path(directory)
        project = copy_example(place / "project")
        shutil.copy(wheel, project)  # where it is built is closed to others
        for path in [place, project, *project.rglob("*")]:
            os.chown(path, 12345, 12345)
        environ = {name: value.replace(str(wheel.parent), str(project)) for name, value in index.items()}
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            environ.pop(name, None)
        environ |= {"HOME": "/nonexistent", "TMPDIR": directory, "UV_CACHE_DIR": f"{directory}/uv"}
        environ["CUDA_BUILD_ACTIVATE_STABLE_PATH"] = f"{directory}/c"
        stranger = [SETPRIV, "--reuid", "12345", "--regid", "12345", "--clear-groups"]
        command = FRONT_ENDS[front_end](project, place / "out")
        python = shutil.which("python3", path=os.defpath)  # uv looks for the one that this environment was made of
        readable = [*stranger, "test", "-r", os.path.join(sys.prefix, "pyvenv.cfg")]
        if python is None or subprocess.run(readable, check=False).returncode:
            pytest.skip("there is no Python that other users can start")
        log = run([*stranger, *command, *["--python", python] * (front_end == "uv")], env=environ, cwd=place)
        check(log, place / "out", cuobjdump)


@pytest.mark.everything
def test_the_example_passes_its_own_tests(
    index: dict[str, str], for_the_example: dict[str, str], tmp_path: Path
) -> None:
    project = copy_example(tmp_path / "project", whole=True)
    run(FRONT_ENDS["uv"](project, tmp_path / "out"), env=index, cwd=tmp_path)
    (wheel,) = (tmp_path / "out").glob("skbuild_demo-*.whl")
    installed = VEnv(tmp_path / "installed")
    installed.install(wheel, "nvidia-cuda-cuobjdump", "pytest", index=for_the_example)
    # No LD_LIBRARY_PATH: the library finds the toolkit's by its own relative path.
    environ = {name: value for name, value in index.items() if name != "LD_LIBRARY_PATH"}
    printed = run([installed.python, "-m", "pytest", "-q", "-rs", project / "tests"], env=environ, cwd=tmp_path)
    assert re.search(r"\d+ passed", printed)
