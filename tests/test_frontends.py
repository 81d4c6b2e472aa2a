"""The example, built in isolation by each front end, in an environment that wants to mislead it."""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import NEWEST, PROJECT, VEnv, minor_version, run

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
def index(offline: dict[str, str], hostile: dict[str, str]) -> dict[str, str]:
    """A hostile environment in which front ends install what the tests have fetched, and nothing else."""
    return {**hostile, **offline, "CUDAARCHS": "86"}


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_example_is_built_by_the_toolkit_of_its_build_environment(
    front_end: str, index: dict[str, str], full: VEnv, tmp_path: Path
) -> None:
    project = shutil.copytree(PROJECT / "examples" / "skbuild", tmp_path / "project")
    log = run(FRONT_ENDS[front_end](project, tmp_path / "out"), env=index, cwd=tmp_path)
    found = dict(re.findall(r"skbuild-demo: (\w+) = (.*)", log))
    root = found["toolkit"]
    assert re.fullmatch(r".*/site-packages/cuda-build-activate/cu13", root)
    assert not root.startswith((str(full.path), sys.prefix))
    assert not Path(root).exists(), "the root outlived its build environment"
    assert found["nvcc"] == f"{root}/bin/nvcc"
    assert found["cudart"] in (f"{root}/lib64/libcudart.so", f"{root}/lib/libcudart.so")
    assert found["cublas"] in (f"{root}/lib64/libcublas.so", f"{root}/lib/libcublas.so")
    assert found["CCCL"] == f"{root}/lib/cmake/cccl"
    assert "the decoy was called" not in log

    (wheel,) = (tmp_path / "out").glob("skbuild_demo-*.whl")
    library = tmp_path / zipfile.ZipFile(wheel).extract("skbuild_demo/libskbuild_demo.so", tmp_path)
    dynamic = run(["readelf", "-d", library])
    assert {"libcudart.so.13", "libcublas.so.13"} <= set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    assert re.findall(r"(?:RUNPATH|RPATH).*\[(.*)\]", dynamic) == ["$ORIGIN/../nvidia/cu13/lib"]
    cuobjdump = full.site / "nvidia" / "cu13" / "bin" / "cuobjdump"
    assert set(re.findall(r"\.(sm_\d+)\.cubin", run([cuobjdump, "--list-elf", library]))) == {"sm_86"}
    assert f"Cuda compilation tools, release {minor_version(NEWEST)}" in run([cuobjdump, "--dump-elf", library])


def test_the_example_passes_its_own_tests(index: dict[str, str], offline: dict[str, str], tmp_path: Path) -> None:
    project = shutil.copytree(PROJECT / "examples" / "skbuild", tmp_path / "project")
    run(FRONT_ENDS["uv"](project, tmp_path / "out"), env=index, cwd=tmp_path)
    (wheel,) = (tmp_path / "out").glob("skbuild_demo-*.whl")
    installed = VEnv(tmp_path / "installed")
    installed.install(wheel, "nvidia-cuda-cuobjdump", "pytest", index=offline)
    # No LD_LIBRARY_PATH: the library finds the toolkit's by its own relative path.
    environ = {name: value for name, value in index.items() if name != "LD_LIBRARY_PATH"}
    printed = run([installed.python, "-m", "pytest", "-q", "-rs", project / "tests"], env=environ, cwd=tmp_path)
    assert re.search(r"\d+ passed", printed)
