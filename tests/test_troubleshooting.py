"""The error messages of docs/troubleshooting.md: each is provoked, and what the page says to do cures it."""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

import pytest
from attempts import ABSENT, ACTIVE, BY_HAND, CMAKE, EXTENSION, Attempt, said
from conftest import INCOMPLETE, MINIMAL, MIXED, NEWEST, PROJECT, TOOLKITS

PAGE = PROJECT / "docs" / "troubleshooting.md"
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
    'CUDA target "targets/x86_64-linux" does not exist': Case("meson setup dependency build", BY_HAND),
    "nvcc: not found": Case("nvcc -c kernel.cu", ABSENT),
    "nv/target: No such file or directory": Case("nvcc -c kernel.cu", requirements=WITHOUT_CCCL),
    "crt/host_config.h: No such file or directory": Case("nvcc -c kernel.cu", requirements=WITHOUT_CRT),
    "cicc: not found": Case("nvcc -c kernel.cu", requirements=WITHOUT_NVVM),
    "Unsupported .version": Case("nvcc -c kernel.cu", requirements=FLOATING),
    "unsupported GNU version!": Case("nvcc -c kernel.cu -U__GNUC__ -D__GNUC__=99", cure="nvcc -c kernel.cu"),
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


@pytest.mark.parametrize("message", CASES)
def test_a_message_and_its_cure(message: str, attempt: Attempt) -> None:
    case = CASES[message]
    status, printed = attempt(case.command, case.package, case.requirements)
    assert said(message, printed), printed
    assert status != 0, printed
    status, printed = attempt(case.cure or f"rm -rf build; {case.command}", case.cured_package, case.cured_requirements)
    assert not said(message, printed)
    assert status == 0, printed


@pytest.mark.parametrize("message", WITHOUT_A_DRIVER)
def test_a_message_for_want_of_a_driver(message: str, attempt: Attempt) -> None:
    if "libcuda.so.1" in subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("this machine has a driver")
    assert said(message, attempt(WITHOUT_A_DRIVER[message], ACTIVE, (MINIMAL,))[1])


def test_the_page_has_the_messages_that_are_provoked() -> None:
    page, _, others = PAGE.read_text().partition("## Not provoked by the tests")
    assert others
    assert re.findall(r"^### `+ ?(.*?) ?`+$", page, re.MULTILINE) == [*CASES, *WITHOUT_A_DRIVER]
