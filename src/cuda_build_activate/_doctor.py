"""What is wrong with the toolkit of an environment, as data. Runs on request only."""

import os
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Union

from cuda_build_activate._activate import Toolkit, decide, find
from cuda_build_activate._assemble import minor_version, versions

# What nvcc opens in the middle of a compilation, and the wheel that has it.
REQUIRED = (
    ("nvvm/bin/cicc", "nvidia-nvvm"),
    ("nvvm/libdevice/libdevice.10.bc", "nvidia-nvvm"),
    ("include/crt/host_config.h", "nvidia-cuda-crt"),
    ("include/cuda_runtime.h", "nvidia-cuda-runtime"),
    ("lib64/libcudart_static.a", "nvidia-cuda-runtime"),
    ("lib64/libcudadevrt.a", "nvidia-cuda-runtime"),
)


class Finding(NamedTuple):
    """One thing that is wrong: how bad it is ("error" or "warning"), what was seen, and what to do."""

    severity: str
    seen: str
    remedy: str


def findings(environ: Union[Mapping[str, str], None] = None, paths: Union[Iterable[str], None] = None) -> list[Finding]:
    """What is wrong with the toolkit on *paths*, by default `sys.path`, for *environ*, by default `os.environ`.

    Decides as the startup hook does, and makes the toolkit root if the hook would. An empty list: nothing is wrong.
    """
    environ = os.environ if environ is None else environ
    paths = list(sys.path if paths is None else paths)
    toolkit = find(paths)
    if toolkit is None:
        seen = "there is no CUDA toolkit in this environment"
        return [Finding("error", seen, 'add "cuda-toolkit[nvcc,cudart,cccl]==13.*" to build-system.requires')]
    activation = decide(environ, paths)
    if activation.root is None:
        return [Finding("warning", activation.reason, "nothing, if that is what you want")]
    if not toolkit.nvcc:
        return [*_no_compiler(activation.root, toolkit)]
    return [*_missing(activation.root, toolkit), *_mixed(toolkit)]


def _no_compiler(root: str, toolkit: Toolkit) -> Iterable[Finding]:
    old = toolkit.major < 13
    if not os.path.exists(os.path.join(root, "include", "crt", "host_defines.h")):
        # nvidia-cuda-nvcc-cu12 has it, without an nvcc.
        remedy = f'add "cuda-toolkit[{"nvcc" if old else "crt"}]=={toolkit.major}.*"'
        yield Finding("error", "cuda_runtime_api.h includes crt/host_defines.h, which is missing", remedy)
    if old:
        seen = f"the wheels of CUDA {toolkit.major} contain headers and libraries, and no compiler"
        remedy = "compile host code only, or list a CUDA 13 toolkit, or install CUDA and let CUDACXX name its nvcc"
    else:
        seen = f"the CUDA {toolkit.major} toolkit in this environment has no nvcc"
        remedy = f'to compile CUDA code, add "cuda-toolkit[nvcc]=={toolkit.major}.*"'
    yield Finding("warning", seen, remedy)


def _missing(root: str, toolkit: Toolkit) -> Iterable[Finding]:
    minor = minor_version(versions(toolkit.entries).get("nvidia_cuda_nvcc", f"{toolkit.major}"))
    wheels = dict.fromkeys(wheel for path, wheel in REQUIRED if not os.path.exists(os.path.join(root, path)))
    if wheels:
        add = ", ".join(f'"{wheel}=={minor}.*"' for wheel in wheels)
        yield Finding("error", f"nvcc is there, and what it needs of {', '.join(wheels)} is not", f"add {add}")
    if not os.path.exists(os.path.join(root, "bin", "crt", "link.stub")):  # nvidia-cuda-nvcc 13.0.48
        yield Finding(
            "error",
            "bin/crt/link.stub is missing, without which nvcc cannot link: so it is in CUDA 13.0.0",
            'list "cuda-toolkit[nvcc]" from 13.0.3 on',
        )
    if not os.path.isdir(os.path.join(root, "include", "cccl")):
        remedy = f'add "cuda-toolkit[cccl]=={minor}.*"'
        yield Finding("warning", "cuda_fp16.h and others include CCCL's headers, which are missing", remedy)


def _mixed(toolkit: Toolkit) -> Iterable[Finding]:
    found = versions(toolkit.entries)
    names = ("nvidia_cuda_nvcc", "nvidia_nvvm", "nvidia_cuda_crt", "nvidia_cuda_runtime")
    installed = {name.replace("_", "-"): found[name] for name in names if name in found}
    minors = {minor_version(version) for version in installed.values()}
    if len(minors) > 1 and "nvidia-cuda-nvcc" in installed:
        minor = minor_version(installed["nvidia-cuda-nvcc"])
        seen = ", ".join(f"{name} {version}" for name, version in installed.items())
        others = [f'"{name}=={minor}.*"' for name, version in installed.items() if minor_version(version) != minor]
        remedy = f'add {", ".join(others)}, or list "cuda-toolkit[nvcc]" from 13.2.1 on, which keeps them together'
        yield Finding("error", f"components of different CUDA versions: {seen}", remedy)
