"""Projects as their authors write them, one for each build backend, built in isolation in a hostile environment.

All that the projects in ``packages`` do for it is to list this package and the toolkit in ``build-system.requires``.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PROJECT, STABLE, Argument, VEnv, needs_headers, run
from toolkits import NEWEST, minor_version

PACKAGES = PROJECT / "tests" / "packages"
FRONT_ENDS = {
    "pip": [sys.executable, "-m", "pip", "wheel", "--no-deps", "--verbose", "--no-cache-dir", "--wheel-dir"],
    "uv": [sys.executable, "-m", "uv", "build", "--wheel", "--verbose", "--link-mode", "hardlink", "--out-dir"],
}
CUBLAS = {"libcudart.so.13", "libcublas.so.13"}
PRINTED = r"toolkit = (.*)"


@dataclass
class Project:
    """What is expected of a project.

    modules: its extension modules, each with the libraries of CUDA's that it needs. kernels: those with device code.
    toolkit: how the build shows the toolkit.
    """

    modules: dict[str, set[str]]
    kernels: tuple[str, ...] = ()
    toolkit: str = PRINTED


PROJECTS = {
    "scikit-build": Project({"demo._demo": CUBLAS}, kernels=("demo._demo",)),
    "py-build-cmake": Project({"demo._demo": CUBLAS}, kernels=("demo._demo",)),
    "meson-python": Project(
        {"demo": CUBLAS, "demo_host": CUBLAS},
        kernels=("demo",),
        toolkit=r"Run-time dependency CUDA .* found: YES \S+ \((.*)\)",
    ),
    "setuptools-nvcc": Project({"demo": {*CUBLAS, "libcuda.so.1"}}, kernels=("demo",)),
    "cython": Project({"demo": {"libcudart.so.13"}}),
    "nanobind": Project({"demo": CUBLAS}),
    "hatchling": Project({"demo._demo": CUBLAS}, kernels=("demo._demo",)),
    "cuda-namespace": Project({"cuda.demo._demo": {"libcudart.so.13"}}),
}


@pytest.fixture
def index(offline: dict[str, str], temporary: dict[str, str]) -> dict[str, str]:
    """A hostile environment in which front ends install what the tests have fetched, and nothing else."""
    return {**temporary, **offline, "CUDAARCHS": "86"}


def build(name: str, front_end: str, environ: dict[str, str], directory: Path) -> Path:
    """Build a project's wheel, with the toolkit in its build environment, which is gone afterwards."""
    project = shutil.copytree(PACKAGES / name, directory / "project")
    command: list[Argument] = [*FRONT_ENDS[front_end], directory / "out", project]
    log = run(command, env=environ, cwd=directory)
    assert "the decoy was called" not in log
    roots = set(re.findall(PROJECTS[name].toolkit if name in PROJECTS else PRINTED, log))
    assert len(roots) == 1, log
    (root,) = roots
    assert re.fullmatch(STABLE, root)
    assert not root.startswith(sys.prefix)
    assert not Path(root).exists(), "the root outlived its build environment"
    (wheel,) = (directory / "out").glob("demo-*.whl")
    return wheel


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", [*PROJECTS, "torch"])
def test_a_project_does_no_more_than_list_the_package(name: str) -> None:
    texts = {path.name: path.read_text() for path in (PACKAGES / name).rglob("*") if path.is_file()}
    mentions = [file for file, text in texts.items() for _ in re.findall("cuda.build.activate", text, re.IGNORECASE)]
    assert mentions == ["pyproject.toml"]
    assert re.search(r"^requires = \[.*\"cuda-build-activate\"", texts["pyproject.toml"], re.MULTILINE)


@needs_headers
@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("name", PROJECTS)
def test_a_build_finds_the_toolkit_of_its_environment(
    name: str, front_end: str, index: dict[str, str], offline: dict[str, str], cuobjdump: Path, tmp_path: Path
) -> None:
    wheel = build(name, front_end, index, tmp_path)
    installed = VEnv(tmp_path / "installed")
    installed.install(wheel, index=offline)
    for module, libraries in PROJECTS[name].modules.items():
        (binary,) = installed.site.glob(f"{module.replace('.', '/')}.*.so")
        dynamic = run(["readelf", "-d", binary])
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
        assert {library for library in needed if library.startswith("libcu")} == libraries
        # A Python may have directories of its own put in front of it.
        (rpath,) = re.findall(r"(?:RUNPATH|RPATH).*\[(.*)\]", dynamic)
        assert rpath.split(":")[-1] == f"$ORIGIN/{'../' * module.count('.')}nvidia/cu13/lib"
        assert "cuda-build-activate" not in rpath
        if module in PROJECTS[name].kernels:
            assert set(re.findall(r"\.(sm_\d+)\.cubin", run([cuobjdump, "--list-elf", binary]))) == {"sm_86"}
            assert f"Cuda compilation tools, release {minor_version(NEWEST)}" in run([cuobjdump, "--dump-elf", binary])
        check_import(installed, module, libraries, index)


def check_import(installed: VEnv, module: str, libraries: set[str], environ: dict[str, str]) -> None:
    """The module loads the libraries of its own environment, and calls them."""
    environ = {name: value for name, value in environ.items() if name != "LD_LIBRARY_PATH"}
    calls = "demo.runtime(), " + ("demo.cublas()" if libraries & {"libcublas.so.13"} else "13")
    done = installed.start(f"import {module} as demo; print({calls})", env=environ)
    if "libcuda.so.1" in libraries and not has_driver():
        assert "ImportError: libcuda.so.1" in done.stderr
    else:
        major, minor = minor_version(NEWEST).split(".")
        assert (done.stdout, done.stderr) == (f"{major}0{minor}0 13\n", "")
