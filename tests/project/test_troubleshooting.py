"""The error messages of docs/troubleshooting.md: each is provoked, and what the page says to do cures it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import PROJECT, VEnv, without_cuda
from toolkits import INCOMPLETE, MINIMAL, MIXED, NEWEST, TOOLKITS

PAGE = PROJECT / "docs" / "troubleshooting.md"
FILES = {
    "kernel.cu": """
#include <cuda_fp16.h>
#include <cstdio>
__global__ void kernel(int *p) { *p = 1; }
int main() { int *p; std::printf("%s\\n", cudaGetErrorString(cudaMalloc(&p, sizeof *p))); kernel<<<1, 1>>>(p); }
""",
    "random.h": "#include <curand_kernel.h>\n",
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

WITH_CUBLAS = (f"cuda-toolkit[nvcc,cudart,cccl,cublas]=={NEWEST}",)
WITHOUT_CCCL = (f"cuda-toolkit[nvcc,cudart]=={NEWEST}",)
OLDEST = (f"cuda-toolkit[nvcc,cudart,cccl]=={TOOLKITS[0]}",)
WITHOUT_CRT = (f"cuda-toolkit[nvcc,cudart,cccl]=={INCOMPLETE}",)
WITHOUT_NVVM = (*WITHOUT_CRT, "nvidia-cuda-crt==13.0.*")
FLOATING = (f"cuda-toolkit[nvcc,cudart,cccl]=={MIXED}",)


class Case(NamedTuple):
    """A command that fails, and the same one, or *cure*, in the environment in which it does not."""

    command: str
    package: str = ACTIVE
    requirements: tuple[str, ...] = (MINIMAL,)
    cured_package: str = ACTIVE
    cured_requirements: tuple[str, ...] = (MINIMAL,)
    cure: str = ""


CASES = {
    "No CMAKE_CUDA_COMPILER could be found": Case(f"CUDAToolkit_ROOT=$WHEELS {CMAKE} -DLANGUAGE=CUDA", ABSENT),
    "Failed to find nvcc": Case(f"{CMAKE} -DLANGUAGE=CUDA", ABSENT),
    "Could not find `nvcc` executable in any searched paths": Case(f"{CMAKE} -DPACKAGE=CUDAToolkit", ABSENT),
    "Could NOT find CUDAToolkit (missing: CUDA_CUDART)": Case(f"{CMAKE} -DPACKAGE=CUDAToolkit", BY_HAND),
    "Specify CUDA_TOOLKIT_ROOT_DIR": Case(f"{CMAKE} -DPACKAGE=CUDA", ABSENT),
    "Could not find _THRUST_VERSION_INCLUDE_DIR": Case(f"{CMAKE} -DPACKAGE=CCCL", BY_HAND),
    'Could not find a package configuration file provided by "CCCL"': Case(
        f"{CMAKE} -DPACKAGE=CCCL", requirements=WITHOUT_CCCL
    ),
    "CUDA::cublas but the target was not found": Case(
        f"{CMAKE} -DPACKAGE=CUDAToolkit -DTARGET_OF=CUDA::cublas", cured_requirements=WITH_CUBLAS
    ),
    "cuda-build-activate/cu13/bin/nvcc: not found": Case(
        f"{CMAKE} -DLANGUAGE=CUDA && mv $BASE/venv $BASE/another && cmake --build build",
        cure=f"rm -r build && {CMAKE} -DLANGUAGE=CUDA && cmake --build build",
    ),
    "Unknown compiler(s): [['nvcc']]": Case("meson setup compiler build", ABSENT),
    "Please specify the desired CUDA Toolkit version": Case("meson setup dependency build", ABSENT),
    'CUDA target "targets/x86_64-linux" does not exist': Case("meson setup dependency build", BY_HAND),
    "nvcc: not found": Case("nvcc -c kernel.cu", ABSENT),
    "nv/target: No such file or directory": Case("nvcc -c kernel.cu", requirements=WITHOUT_CCCL),
    "curand_kernel.h: No such file or directory": Case(
        "nvcc -x cu -c random.h", cured_requirements=(f"cuda-toolkit[nvcc,cudart,cccl,curand]=={NEWEST}",)
    ),
    "crt/host_config.h: No such file or directory": Case("nvcc -c kernel.cu", requirements=WITHOUT_CRT),
    "cicc: not found": Case("nvcc -c kernel.cu", requirements=WITHOUT_NVVM),
    "Unsupported .version": Case("nvcc -c kernel.cu", requirements=FLOATING),
    "unsupported GNU version!": Case("nvcc -c kernel.cu -U__GNUC__ -D__GNUC__=99", cure="nvcc -c kernel.cu"),
    "Unsupported gpu architecture": Case("nvcc -c kernel.cu -arch=sm_52", cure="nvcc -c kernel.cu -arch=sm_75"),
    "elfLink linker library load error": Case("nvcc kernel.cu -dlto -rdc=true -arch=sm_90", BY_HAND),
    "cannot find -lcudart": Case("nvcc kernel.cu -cudart shared", BY_HAND),
    "cannot find -lcudadevrt": Case("nvcc kernel.cu", BY_HAND, OLDEST, cured_requirements=OLDEST),
    "cannot find -lcublas": Case("nvcc kernel.cu -lcublas", cured_requirements=WITH_CUBLAS),
    "cannot find -lcuda": Case("nvcc -x cu driver.cpp -lcuda", BY_HAND),
    "libcudart.so.13: cannot open shared object file": Case(
        f"{EXTENSION} -L$CUDA_HOME/lib64 -lcudart && ./program",
        cure=f"{EXTENSION} -L$CUDA_HOME/lib64 -lcudart -Wl,-rpath,$WHEELS/lib; ./program; ldd program | grep $WHEELS",
    ),
    "Error processing line 1 of": Case(
        "rm -r $SITE/cuda_build_activate; env -u CUDA_BUILD_ACTIVATE_SITE python -c pass 2>&1 | grep Error && exit 1",
        cure="python -c pass",
    ),
}
WITHOUT_A_DRIVER = {
    "libcuda.so.1: cannot open shared object file": "nvcc -x cu driver.cpp -lcuda -o program && ./program",
    "CUDA driver version is insufficient for CUDA runtime version": "nvcc kernel.cu -o program && ./program",
}

Made = Callable[[tuple[str, ...]], VEnv]


@pytest.fixture(scope="module")
def made(offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """An environment with the package and the requirements that it is called with."""
    environments: dict[tuple[str, ...], VEnv] = {}

    def make(requirements: tuple[str, ...]) -> VEnv:
        if requirements not in environments:
            environments[requirements] = VEnv(tmp_path_factory.mktemp("made") / "venv")
            environments[requirements].install("cuda-build-activate", *requirements, index=offline)
        return environments[requirements]

    yield make
    for environment in environments.values():
        shutil.rmtree(environment.path)


@pytest.fixture(scope="module")
def tools(offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> VEnv:
    """The build tools, in an environment that has neither a toolkit nor the package."""
    tools = VEnv(tmp_path_factory.mktemp("tools") / "venv")
    tools.install("cmake", "ninja", "meson", index=offline)
    return tools


@pytest.fixture
def attempt(made: Made, tools: VEnv, clean: dict[str, str], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run a command in a build environment on a machine without CUDA; return its exit status and all that it prints."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    def run(command: str, package: str, requirements: tuple[str, ...]) -> tuple[int, str]:
        env = made(requirements).copy(tmp_path / "venv", "-al")
        wheels = env.site / "nvidia" / "cu13"
        path = [str(env.path / "bin"), str(tools.path / "bin"), clean["PATH"]]
        environ = {**clean, "BASE": str(tmp_path), "SITE": str(env.site), "WHEELS": str(wheels)}
        if package == BY_HAND:
            path.insert(0, str(wheels / "bin"))
            environ |= {"CUDA_HOME": str(wheels), "CUDA_PATH": str(wheels)}
        environ["PATH"] = os.pathsep.join(path)
        start = [str(env.python), "-c", "import os, sys; os.execvp('sh', ['sh', '-c', sys.argv[1]])", command]
        if package != ACTIVE:
            environ["CUDA_BUILD_ACTIVATE"] = "0"
        done = subprocess.run([*without_cuda(), *start], env=environ, cwd=tmp_path, capture_output=True, check=False)
        printed = (done.stdout + done.stderr).decode(errors="replace")
        if package == ACTIVE:
            assert "/usr/local" not in re.sub(r"-- Unable to find.*", "", printed)
        for directory in ("venv", "another"):
            shutil.rmtree(tmp_path / directory, ignore_errors=True)
        return done.returncode, printed

    return run


def said(message: str, printed: str) -> bool:
    """Whether *message* is in *printed*, however its lines were broken."""
    return message in " ".join(printed.split())


@pytest.mark.parametrize("message", CASES)
def test_a_message_and_its_cure(message: str, attempt: Callable[..., tuple[int, str]]) -> None:
    case = CASES[message]
    status, printed = attempt(case.command, case.package, case.requirements)
    assert said(message, printed), printed
    assert status != 0, printed
    status, printed = attempt(case.cure or f"rm -rf build; {case.command}", case.cured_package, case.cured_requirements)
    assert not said(message, printed)
    assert status == 0, printed


@pytest.mark.parametrize("message", WITHOUT_A_DRIVER)
def test_a_message_for_want_of_a_driver(message: str, attempt: Callable[..., tuple[int, str]]) -> None:
    if "libcuda.so.1" in subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("this machine has a driver")
    assert said(message, attempt(WITHOUT_A_DRIVER[message], ACTIVE, (MINIMAL,))[1])


def test_the_page_has_the_messages_that_are_provoked() -> None:
    page, _, others = PAGE.read_text().partition("## Not provoked by the tests")
    assert others
    assert re.findall(r"^### `+ ?(.*?) ?`+$", page, re.MULTILINE) == [*CASES, *WITHOUT_A_DRIVER]


def test_each_message_has_a_cause_and_a_solution() -> None:
    _, *entries = re.split(r"^(?:### .*\n\n)+", PAGE.read_text(), flags=re.MULTILINE)  # messages may share them
    assert len(entries) > len(CASES)
    for entry in entries:
        assert re.search(r"^\*\*Cause:\*\* .*^\*\*Solution:\*\* ", entry, re.DOTALL | re.MULTILINE), entry
