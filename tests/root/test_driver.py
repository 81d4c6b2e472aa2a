"""Linking with the driver's libraries, for which the root has stubs, through each tool that people link with."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import VEnv, needs_headers, run
from toolkits import NEWEST, minor_version

CUDA = """
#include <cuda.h>
int main(void) { return cuInit(0); }
"""
NVML = """
#include <nvml.h>
int main(void) { return nvmlInit(); }
"""
SETUP = """
from setuptools import Extension, setup
import os
include = os.path.join(os.environ["CUDA_HOME"], "include")
setup(name="demo", version="1", ext_modules=[Extension("demo", ["demo.c"], include_dirs=[include], libraries=["cuda"])])
"""
MODULE = """
#include <Python.h>
#include <cuda.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "demo"};
PyMODINIT_FUNC PyInit_demo(void) { cuInit(0); return PyModule_Create(&module); }
"""
CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(probe LANGUAGES C CXX)
find_package(CUDAToolkit REQUIRED)
add_executable(cuda cuda.c)
target_link_libraries(cuda CUDA::cuda_driver)
add_executable(nvml nvml.c)
target_link_libraries(nvml CUDA::nvml)
"""
MESON = """
project('probe', 'cpp')
cuda = dependency('cuda', modules: ['cuda', 'cublas', 'nvidia-ml'])
message('found ' + cuda.version())
executable('cuda', 'cuda.cpp', dependencies: cuda)
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for name, content in {
        "cuda.c": CUDA,
        "cuda.cpp": CUDA,
        "nvml.c": NVML,
        "setup.py": SETUP,
        "demo.c": MODULE,
        "CMakeLists.txt": CMAKE,
        "meson.build": MESON,
    }.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def child(venv: VEnv, hostile: dict[str, str], directory: Path, *command: str) -> str:
    """Run a command as a build backend in *venv* does."""
    code = "import os, subprocess, sys; sys.exit(subprocess.call([os.path.expandvars(part) for part in sys.argv[1:]]))"
    return run([venv.python, "-c", code, *command], env=hostile, cwd=directory)


def check(binary: Path, soname: str) -> None:
    """It takes the name of the driver's library from the stub, and does not start where there is no driver."""
    assert soname in re.findall(r"NEEDED.*\[(.*)\]", run(["readelf", "-d", binary]))
    try:
        ctypes.CDLL(soname)
    except OSError:
        done = subprocess.run([binary], capture_output=True, text=True, check=False)
        assert done.returncode == 127
        assert f"{soname}: cannot open shared object file" in done.stderr


def test_compilers(full: VEnv, hostile: dict[str, str], sources: Path) -> None:
    for compiler in (["nvcc"], ["gcc", "-I$CUDA_HOME/include"]):
        for name, library, soname in (("cuda", "cuda", "libcuda.so.1"), ("nvml", "nvidia-ml", "libnvidia-ml.so.1")):
            child(
                full, hostile, sources, *compiler, f"{name}.c", "-o", name, f"-l{library}", "-Xlinker", "--no-undefined"
            )
            check(sources / name, soname)


@needs_headers
def test_setuptools(offline: dict[str, str], hostile: dict[str, str], sources: Path, tmp_path: Path) -> None:
    venv = VEnv(tmp_path / "venv")
    venv.install("cuda-build-activate", "setuptools", "cuda-toolkit[cudart,crt,cccl,nvcc]==13.*", index=offline)
    child(venv, hostile, sources, str(venv.python), "setup.py", "build_ext", "--inplace")
    (extension,) = sources.glob("demo.*.so")
    assert "libcuda.so.1" in run(["readelf", "-d", extension])


def test_cmake(full: VEnv, hostile: dict[str, str], sources: Path) -> None:
    tools = Path(sys.executable).parent
    cmake, ninja = str(tools / "cmake"), f"-DCMAKE_MAKE_PROGRAM={tools}/ninja"
    child(full, hostile, sources, cmake, "-G", "Ninja", ninja, "-S", ".", "-B", "build")
    child(full, hostile, sources, cmake, "--build", "build")
    check(sources / "build" / "cuda", "libcuda.so.1")
    check(sources / "build" / "nvml", "libnvidia-ml.so.1")
    # A directory of stubs in RUNPATH would keep a driver from being found.
    assert "stubs" not in run(["readelf", "-d", sources / "build" / "cuda"])


def test_meson(full: VEnv, hostile: dict[str, str], offline: dict[str, str], sources: Path, tmp_path: Path) -> None:
    tools = VEnv(tmp_path / "tools")
    tools.install("meson", "ninja", index=offline)
    hostile["PATH"] = f"{tools.path}/bin:{hostile['PATH']}"
    printed = child(full, hostile, sources, "meson", "setup", "build")
    assert f"Message: found {minor_version(NEWEST)}" in printed
    child(full, hostile, sources, "meson", "compile", "-C", "build")
    check(sources / "build" / "cuda", "libcuda.so.1")
    commands = (sources / "build" / "build.ninja").read_text()
    assert f"{full.root}/targets" in commands
    assert "decoy" not in commands
