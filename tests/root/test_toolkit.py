"""Real compilers, libraries and CMake from the wheels, in environments that want to mislead them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import VEnv, run
from toolkits import NEWEST, OLDEST_OF_THE_EXTRA, TOOLKITS, minor_version

KERNEL = """
#include <cuda/std/array>
#include <cuda_fp16.h>
__global__ void kernel(int *p) { *p = 1; }
int main() { int *p; return cudaMalloc(&p, sizeof *p) == cudaSuccess ? 0 : 1; }
"""
CUBLAS = """
#include <cublas_v2.h>
int main() { cublasHandle_t handle; return cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS ? 0 : 1; }
"""

# The imported target that each component gives: CMake's FindCUDAToolkit, and nvidia-* of CUDA 13.5.
TARGETS = {
    "cudart": ["cudart", "cudart_static"],
    "cublas": ["cublas", "cublasLt"],
    "nvrtc": ["nvrtc"],
    "nvjitlink": ["nvJitLink"],
    "nvtx": ["nvtx3"],
    "cufft": ["cufft", "cufftw"],
    "curand": ["curand"],
    "cusolver": ["cusolver"],
    "cusparse": ["cusparse"],
    "npp": [f"npp{name}" for name in ("c", "ial", "icc", "idei", "if", "ig", "im", "ist", "isu", "itc", "s")],
    "nvjpeg": ["nvjpeg"],
    "cupti": ["cupti"],
    "cufile": ["cuFile"],
    "nvfatbin": ["nvfatbin"],
    "nvptxcompiler": ["nvptxcompiler_static"],
    "culibos": ["culibos"],
    "opencl": ["OpenCL"],
}
# CMake 3.25 knows no nvJitLink and no nvfatbin, and looks for libcuFile.so where every toolkit has libcufile.so.
UNKNOWN_TO_3_25 = {"nvJitLink", "nvfatbin", "cuFile"}

PROJECT = """
cmake_minimum_required(VERSION 3.25)
project(probe LANGUAGES CXX ${LANGUAGE})
find_package(CUDAToolkit REQUIRED)
foreach(variable LIBRARY_ROOT BIN_DIR NVCC_EXECUTABLE LIBRARY_DIR INCLUDE_DIRS VERSION)
  message(STATUS "CUDAToolkit_${variable}=${CUDAToolkit_${variable}}")
endforeach()
get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target IN LISTS targets)
  get_target_property(location ${target} IMPORTED_LOCATION)
  message(STATUS "target ${target}=${location}")
endforeach()
find_package(CCCL REQUIRED)
message(STATUS "CCCL=${CCCL_DIR}")
message(STATUS "CCCL_INCLUDE=${_THRUST_INCLUDE_DIR}")
foreach(library nccl cudnn cutensor nvshmem_host)
  find_library(${library} ${library} NO_CMAKE_SYSTEM_PATH)
  message(STATUS "library ${library}=${${library}}")
endforeach()
find_path(nccl_include nccl.h NO_CMAKE_SYSTEM_PATH)
message(STATUS "nccl.h=${nccl_include}")
if(POLICY CMP0146)
  cmake_policy(SET CMP0146 OLD)
endif()
find_package(CUDA REQUIRED)
message(STATUS "FindCUDA=${CUDA_TOOLKIT_ROOT_DIR}")
message(STATUS "FindCUDA_nvcc=${CUDA_NVCC_EXECUTABLE}")
message(STATUS "CMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER}")
"""


@pytest.fixture(scope="session", params=TOOLKITS)
def minimal(
    request: pytest.FixtureRequest, offline: dict[str, str], full: VEnv, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, VEnv]]:
    """An environment with what a CUDA build lists, in each supported minor version; the newest is complete."""
    if request.param == NEWEST:
        yield NEWEST, full
        return
    made = VEnv(tmp_path_factory.mktemp("minimal") / "venv")
    requirement = f"cuda-toolkit[cccl,cudart,nvcc]=={request.param}"
    made.install("cuda-build-activate", requirement, index=offline)
    yield request.param, made
    shutil.rmtree(made.path)


@pytest.fixture(scope="session", params=["3.25", "newest"])
def cmake(request: pytest.FixtureRequest, offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment's cmake, which knows nothing of the toolkit's environment."""
    made = VEnv(tmp_path_factory.mktemp("cmake") / "venv")
    made.install("cmake==3.25.*" if request.param == "3.25" else "cmake", "ninja", index=offline)
    return made.path / "bin" / "cmake"


def in_environment(venv: VEnv, hostile: dict[str, str], command: list[str], directory: Path) -> str:
    """Run a child of the environment's Python, as a backend runs its build tool."""
    code = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    return run([venv.python, "-c", code, *command], env=hostile, cwd=directory)


@pytest.mark.parametrize("release", [TOOLKITS[0], NEWEST])
def test_cmake_links_without_cccl(
    release: str, cmake: Path, offline: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> None:
    """nvcc and the runtime are enough for a kernel."""
    venv = VEnv(tmp_path / "venv")
    venv.install("cuda-build-activate", f"cuda-toolkit[cudart,nvcc]=={release}", index=offline)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\n"
        "project(kernel LANGUAGES CXX CUDA)\n"
        "find_package(CUDAToolkit REQUIRED)\n"
        "add_executable(kernel kernel.cu)\n"
        "target_link_libraries(kernel PRIVATE CUDA::cudart)\n"
    )
    (tmp_path / "kernel.cu").write_text("__global__ void kernel() {}\nint main() { kernel<<<1, 1>>>(); }\n")
    command = [str(cmake), "-GNinja", f"-DCMAKE_MAKE_PROGRAM={cmake.with_name('ninja')}", "-S.", "-Bbuild"]
    log = in_environment(venv, hostile, [*command, "-DCMAKE_CUDA_ARCHITECTURES=90"], tmp_path)
    assert f"Found CUDAToolkit: {venv.root}/" in log
    run([cmake, "--build", "build"], env=hostile, cwd=tmp_path)
    shutil.rmtree(venv.path)


def needed(binary: Path) -> set[str]:
    return set(re.findall(r"NEEDED.*\[(.*)\]", run(["readelf", "-d", binary])))


def test_nvcc_compiles_and_links(minimal: tuple[str, VEnv], hostile: dict[str, str], tmp_path: Path) -> None:
    version, venv = minimal
    (tmp_path / "kernel.cu").write_text(KERNEL)

    def nvcc(*options: str) -> str:
        return in_environment(venv, hostile, ["nvcc", "-o", "kernel", "kernel.cu", *options], tmp_path)

    release = in_environment(venv, hostile, ["nvcc", "--version"], tmp_path)
    assert f"release {minor_version(version)}," in release
    nvcc()
    assert not {name for name in needed(tmp_path / "kernel") if name.startswith("libcuda")}
    nvcc("-cudart", "shared")
    assert "libcudart.so.13" in needed(tmp_path / "kernel")
    nvcc("-rdc=true", "-dlto", "-arch=sm_90")
    commands = nvcc("--dryrun")
    searched = re.findall(r"(?:-I|-L|-isystem )\"?(/[^\s\"]+)", commands)
    assert not [path for path in searched if not path.startswith(f"{venv.root}/")]
    assert searched


def test_nvcc_links_a_library_of_the_toolkit(full: VEnv, hostile: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cublas.cu").write_text(CUBLAS)
    in_environment(full, hostile, ["nvcc", "-o", "cublas", "cublas.cu", "-lcublas"], tmp_path)
    assert "libcublas.so.13" in needed(tmp_path / "cublas")


def test_the_device_code_is_of_this_compiler(full: VEnv, hostile: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "kernel.cu").write_text(KERNEL)
    in_environment(full, hostile, ["nvcc", "-cubin", "-arch=sm_90", "kernel.cu"], tmp_path)
    listing = in_environment(full, hostile, ["cuobjdump", "-elf", "kernel.cubin"], tmp_path)
    assert f"Cuda compilation tools, release {minor_version(NEWEST)}" in listing


def configure(venv: VEnv, cmake: Path, environ: dict[str, str], tmp_path: Path, language: str) -> dict[str, str]:
    """What CMake found, by the name under which the project printed it."""
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    command = [str(cmake), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={cmake.parent}/ninja", f"-DLANGUAGE={language}"]
    printed = in_environment(venv, environ, [*command, "-S", ".", "-B", f"build{language}"], tmp_path)
    return dict(re.findall(r"^-- ([\w .:]+)=(.*)$", printed, re.MULTILINE))


@pytest.mark.parametrize("language", ["", "CUDA"])
def test_cmake_finds_one_root(
    minimal: tuple[str, VEnv], cmake: Path, language: str, hostile: dict[str, str], tmp_path: Path
) -> None:
    version, venv = minimal
    found = configure(venv, cmake, hostile, tmp_path, language)
    root = str(venv.root)
    assert found["FindCUDA"] == root == venv.environ(env=hostile)["CUDA_HOME"]
    assert found["CUDAToolkit_BIN_DIR"] == f"{root}/bin"
    assert found["CUDAToolkit_NVCC_EXECUTABLE"] == found["FindCUDA_nvcc"] == f"{root}/bin/nvcc"
    assert found["CMAKE_CUDA_COMPILER"] == (f"{root}/bin/nvcc" if language else "")
    assert re.fullmatch(rf"{root}(/targets/[\w-]+)?/lib(64)?", found["CUDAToolkit_LIBRARY_DIR"])
    include = found["CUDAToolkit_INCLUDE_DIRS"].split(";")[0]
    assert re.fullmatch(rf"{root}(/targets/[\w-]+)?/include", include)
    assert found["CUDAToolkit_VERSION"].startswith(minor_version(version) + ".")
    assert found["CCCL"] == f"{root}/lib/cmake/cccl"
    assert found["CCCL_INCLUDE"] == f"{root}/include/cccl"
    for target in ("cudart", "cudart_static", *(("cublas", "nppc") if version == NEWEST else ())):
        assert found[f"target CUDA::{target}"].startswith(f"{root}/")


def test_cmake_finds_what_is_installed_and_nothing_else(
    minimal: tuple[str, VEnv], cmake: Path, hostile: dict[str, str], tmp_path: Path
) -> None:
    version, venv = minimal
    if version != NEWEST:  # a prefix of the user's own that holds a toolkit gives what the environment does not have
        del hostile["CMAKE_PREFIX_PATH"]
    found = configure(venv, cmake, hostile, tmp_path, "")
    defined = {name.removeprefix("target CUDA::") for name in found if name.startswith("target CUDA::")}
    unknown = UNKNOWN_TO_3_25 if "version 3.25" in run([cmake, "--version"]) else set()
    # nvtx: CMake defines the target of this header-only library in any case.
    installed = TARGETS.keys() if version == NEWEST else {"cudart", "nvtx"}
    for component, targets in TARGETS.items():
        assert defined.intersection(targets) == (set(targets) - unknown if component in installed else set()), component
    for library in ("nccl", "cudnn", "cutensor", "nvshmem_host"):
        expected = f"{venv.root}/lib/lib{library}.so" if version == NEWEST else f"{library}-NOTFOUND"
        assert found[f"library {library}"] == expected
    assert found["nccl.h"] == (f"{venv.root}/include" if version == NEWEST else "nccl_include-NOTFOUND")


@pytest.mark.parametrize("resolution", ["highest", "lowest"])
def test_the_extra_resolves_to_components_of_one_version(
    wheel: Path, offline: dict[str, str], resolution: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    (tmp_path / "requirements.in").write_text(f"cuda-build-activate[cu13] @ {wheel.as_uri()}\n")
    command += ["--resolution", resolution]
    printed = run([*command, tmp_path / "requirements.in"], env={**os.environ, **offline})
    resolved = dict(re.findall(r"^([\w-]+)==(\S+)", printed, re.MULTILINE))
    expected = {"highest": NEWEST, "lowest": OLDEST_OF_THE_EXTRA}[resolution]
    assert resolved["cuda-toolkit"] == expected
    minor = minor_version(expected)
    for component in ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime"):
        assert resolved[component].startswith(f"{minor}."), component


def test_every_target_whose_library_is_in_a_wheel_is_defined(
    full: VEnv, cmake: Path, hostile: dict[str, str], tmp_path: Path
) -> None:
    """What CMake's module looks for, from its own trace, against the files of the wheels."""
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    trace = ["--trace-expand", "--trace-format=json-v1", "--trace-redirect=trace.json"]
    tools = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={cmake.parent}/ninja", "-DLANGUAGE="]
    printed = in_environment(full, hostile, [str(cmake), *trace, *tools, "-S", ".", "-B", "build"], tmp_path)
    defined = set(re.findall(r"^-- target CUDA::(\w+)=", printed, re.MULTILINE))
    calls = [json.loads(line) for line in (tmp_path / "trace.json").read_text().splitlines()]
    sought = {}
    for call in calls:
        if call.get("cmd", "").lower() == "_cudatoolkit_find_and_add_import_lib":
            target, *options = call["args"]
            sought[target] = {target, *(options[1:2] if options[:1] in (["ALT"], ["ONLY_SEARCH_FOR"]) else ())}
    libraries = {
        match[1]
        for path in full.site.glob("nvidia/cu13/**/lib*")
        if (match := re.fullmatch(r"lib(.+?)\.(?:so(?:\..*)?|a)", path.name))
    }
    libraries |= {"cuda", "nvidia-ml"}  # the driver's, for whose headers there are stubs
    assert len(sought) > 40
    assert defined.intersection(sought) == {target for target, names in sought.items() if names & libraries}
