"""Commands in a build environment with real wheels, on a machine that shows no other CUDA."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

# Runs a command in an environment with these requirements, where the package takes part so; its status, and all that it
# printed.
Attempt = Callable[[str, str, tuple[str, ...]], tuple[int, str]]

FILES = {
    "kernel.cu": """
#include <cuda_fp16.h>
#include <cstdio>
__global__ void kernel(int *p) { *p = 1; }
int main() { int *p; std::printf("%s\\n", cudaGetErrorString(cudaMalloc(&p, sizeof *p))); kernel<<<1, 1>>>(p); }
""",
    "driver.cpp": """
#include <cuda.h>
int main() { return cuInit(0); }
""",
    "runtime.cpp": """
#include <cuda_runtime_api.h>
int main() { return cudaDeviceReset(); }
""",
    "CMakeLists.txt": """
cmake_minimum_required(VERSION 3.25)
if(POLICY CMP0146)
  cmake_policy(SET CMP0146 OLD)
endif()
project(probe LANGUAGES CXX ${LANGUAGE})
if(PACKAGE)
  find_package(${PACKAGE} REQUIRED)
endif()
if(TARGET_OF)
  add_executable(program runtime.cpp)
  target_link_libraries(program CUDA::cudart ${TARGET_OF})
endif()
if(LANGUAGE)
  add_executable(kernel kernel.cu)
endif()
""",
    "compiler/meson.build": "project('probe')\nadd_languages('cuda', native: false)\n",
    "dependency/meson.build": "project('probe', 'cpp')\ndependency('cuda', modules: ['cudart'])\n",
}
CMAKE = "cmake -G Ninja -S . -B build"
EXTENSION = "g++ runtime.cpp -o program -I$CUDA_HOME/include"

# How the package takes part: it is not there, it is not there and the variables point at the wheels' own directory, or
# it is there.
ABSENT, BY_HAND, ACTIVE = "absent", "by hand", "active"


def hide(paths: list[str]) -> list[str]:
    """The start of a command line for a process that sees an empty file or directory instead of each of *paths*."""
    there = [path for path in paths if os.path.exists(path)]
    if not there:
        return []
    if os.geteuid() != 0:
        pytest.skip(f"hiding {there[0]} needs root")
    mounts = [
        f"mount -t tmpfs none {os.path.realpath(path)}" if os.path.isdir(path) else f"mount --bind /dev/null {path}"
        for path in there
    ]
    return ["unshare", "-m", "sh", "-ec", f'{"; ".join(mounts)}; exec "$@"', "sh"]


def said(message: str, printed: str) -> bool:
    """Whether *message* is in *printed*, however its lines were broken."""
    return message in " ".join(printed.split())
