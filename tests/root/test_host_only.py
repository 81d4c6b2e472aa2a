"""Toolkits without nvcc, CUDA 12's and one of CUDA 13's: host code is built against their headers and libraries."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from conftest import Argument, VEnv, block, needs_headers, run
from toolkits import WITHOUT_NVCC, minor_version

BACKEND = '\n[build-system]\nbuild-backend = "setuptools.build_meta"\n'
SETUP = """
import os
import pybind11
from setuptools import Extension, setup

cuda = os.environ["CUDA_HOME"]
print("CUDA_HOME =", cuda)
setup(name="demo", version="1", ext_modules=[Extension(
    "demo", ["demo.cpp"], include_dirs=[pybind11.get_include(), f"{cuda}/include"], library_dirs=[f"{cuda}/lib64"],
    libraries=["cudart", "cublas"], extra_compile_args=["-std=c++17"],
)])
"""
MODULE = """
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

PYBIND11_MODULE(demo, module) {
    module.attr("cudart") = CUDART_VERSION;
    module.attr("compiled") = CUBLAS_VER_MAJOR * 10000 + CUBLAS_VER_MINOR * 100 + CUBLAS_VER_PATCH;
    module.def("loaded", [] {
        int major, minor, patch;
        cublasGetProperty(MAJOR_VERSION, &major);
        cublasGetProperty(MINOR_VERSION, &minor);
        cublasGetProperty(PATCH_LEVEL, &patch);
        cudaGetLastError();
        return major * 10000 + minor * 100 + patch;
    });
}
"""
CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(probe LANGUAGES CXX)
find_package(CUDAToolkit REQUIRED)
get_target_property(cublas CUDA::cublas IMPORTED_LOCATION)
message(STATUS "found ${CUDAToolkit_VERSION} ${cublas}")
"""


@needs_headers
@pytest.mark.parametrize("requirement", WITHOUT_NVCC)
def test_an_extension_module(requirement: str, offline: dict[str, str], clean: dict[str, str], tmp_path: Path) -> None:
    version = requirement.partition("==")[2]
    major = version.partition(".")[0]
    project = tmp_path / "project"
    project.mkdir()
    # The components that docs/how-to/choose-a-toolkit.md lists for CUDA 12, in the version under test.
    requires, count = re.subn(r'"cuda-toolkit[^"]*"', f'"{requirement}"', block('requires = ["setuptools"'))
    assert count == 1
    (project / "pyproject.toml").write_text(BACKEND + requires)
    (project / "setup.py").write_text(SETUP)
    (project / "demo.cpp").write_text(MODULE)
    environ = {**clean, **offline}
    log = run([sys.executable, "-m", "pip", "wheel", "--verbose", "--wheel-dir", tmp_path, project], env=environ)
    (root,) = set(re.findall(r"CUDA_HOME = (.*)", log))
    assert re.fullmatch(rf".*/pip-build-env-\w+/.*/cuda-build-activate/cu{major}", root)
    (wheel,) = tmp_path.glob("demo-*.whl")
    installed = VEnv(tmp_path / "installed")
    installed.install(wheel, requirement, index=offline)
    components = ("cu13", "cu13") if major == "13" else ("cuda_runtime", "cublas")
    cudart, cublas = (installed.site / "nvidia" / component / "lib" for component in components)
    names = [(cudart, "libcudart"), (cublas, "libcublasLt"), (cublas, "libcublas")]
    libraries = [str(path) for directory, name in names for path in directory.glob(f"{name}.so.*")]
    load = "; ".join(f"ctypes.CDLL({path!r}, ctypes.RTLD_GLOBAL)" for path in libraries)
    code = f"import ctypes; {load}; import demo; print(demo.cudart, demo.compiled, demo.loaded())"
    cudart_version, compiled, loaded = run([installed.python, "-c", code]).split()
    assert cudart_version == "{}0{}0".format(*minor_version(version).split("."))
    assert compiled == loaded


@pytest.mark.parametrize("requirement", WITHOUT_NVCC)
def test_cmake(requirement: str, offline: dict[str, str], clean: dict[str, str], tmp_path: Path) -> None:
    """From CMake 4.2 on; earlier ones want nvcc in the directory that the environment's CUDAToolkit_ROOT names."""
    version = requirement.partition("==")[2]
    made = VEnv(tmp_path / "venv")
    made.install("cuda-build-activate", "cmake", "ninja", requirement, index=offline)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    code = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    command: list[Argument] = [
        made.python,
        "-c",
        code,
        made.path / "bin" / "cmake",
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={made.path}/bin/ninja",
        "-S",
        tmp_path,
        "-B",
        tmp_path / "build",
    ]
    found = re.search(r"-- found (.*) (.*)", run(command, env=clean))
    assert found
    assert found[1].startswith(f"{minor_version(version)}.")
    assert re.fullmatch(rf"{made.site}/cuda-build-activate/cu{version[:2]}/.*/libcublas.so", found[2])


def test_another_toolkit_is_not_displaced(offline: dict[str, str], hostile: dict[str, str], tmp_path: Path) -> None:
    made = VEnv(tmp_path / "venv")
    made.install("cuda-build-activate", WITHOUT_NVCC[0], index=offline)
    assert made.environ(env=hostile) == made.environ("-S", env=hostile)
