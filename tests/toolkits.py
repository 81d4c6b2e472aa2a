"""Which releases of the toolkit the tests know, and what they install of them. All versions are in ``locks``."""

from __future__ import annotations

from pathlib import Path

LOCKS = Path(__file__).parent / "locks"

# Every release of `cuda-toolkit`, oldest first: the survey reads the file lists of their wheels. `python3 tests --news`
# says what is missing here.
RELEASES = (
    "11.8.0",
    "12.0.0",
    "12.0.1",
    "12.1.0",
    "12.1.1",
    "12.2.0",
    "12.2.1",
    "12.2.2",
    "12.3.0",
    "12.3.1",
    "12.3.2",
    "12.4.0",
    "12.4.1",
    "12.5.0",
    "12.5.1",
    "12.6.0",
    "12.6.1",
    "12.6.2",
    "12.6.3",
    "12.8.0",
    "12.8.1",
    "12.8.2.0",
    "12.9.0",
    "12.9.1",
    "12.9.2.0",
    "13.0.0",
    "13.0.1",
    "13.0.2",
    "13.0.3.0",
    "13.1.0",
    "13.1.1",
    "13.1.2.0",
    "13.2.0",
    "13.2.1",
    "13.2.2",
    "13.3.0",
    "13.3.1",
    "13.4.1.0",
    "13.4.2",
    "13.4.3",
    "13.5.0",
)
NEWEST = RELEASES[-1]


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def minor_version(version: str) -> str:
    return ".".join(version.split(".")[:2])


# The last of each minor version with nvcc: components have moved between them.
TOOLKITS = tuple({minor_version(release): release for release in RELEASES if number(release) >= (13,)}.values())
MINIMAL = f"cuda-toolkit[nvcc,cudart,cccl]=={NEWEST}"
OLDEST_OF_THE_EXTRA = "13.2.1"
MIXED = "13.0.2"  # its extra nvcc leaves crt and nvvm unpinned
INCOMPLETE = "13.0.0"  # its extra nvcc lacks crt and nvvm
# The releases of PyTorch that require a toolkit, and which one.
TORCH = {
    "2.11.0": "13.0.2",
    "2.12.0": "13.0.2",
    "2.12.1": "13.0.2",
    "2.13.0": "13.0.3.0",
    "2.14.0": "13.0.3.0",
    "2.14.1": "13.0.3.0",
    "2.15.0": "13.2.2",
}
# The headers include some of CCCL, and of crt, which CUDA 12 has in the wheel of nvcc, without an nvcc.
WITHOUT_NVCC = (
    "cuda-toolkit[cccl,cublas,cudart,nvcc]==11.8.0",
    "cuda-toolkit[cccl,cublas,cudart,nvcc]==12.9.1",
    f"cuda-toolkit[cccl,cublas,cudart,crt]=={NEWEST}",
)

# What a build on Windows needs, and the smaller ones of the libraries that come as a DLL alone.
WINDOWS_COMPONENTS = (
    *("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime", "nvidia-cuda-cccl"),
    *("nvidia-cuda-nvrtc", "nvidia-cuda-cupti", "nvidia-nvfatbin", "nvidia-nvjpeg", "nvidia-nvml-dev"),
)
WINDOWS_TOOLS = ("pip", "cmake", "ninja", "scikit-build-core", "packaging", "pathspec")

# These lie beside the toolkit's directory, and the last two in it.
PRODUCTS = ("nvidia-cudnn-cu13", "nvidia-nccl-cu13", "nvidia-nvshmem-cu13", "cutensor-cu13")
MORE_PRODUCTS = ("nvidia-cudss-cu13", "nvidia-cusparselt-cu13")


def lock(name: str) -> Path:
    """The file with the versions of what is installed together, in the format of pip's constraints."""
    return LOCKS / f"{name}.txt"


def release_lock(release: str) -> Path:
    return lock(f"cuda-toolkit-{release}")
