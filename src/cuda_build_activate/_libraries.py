"""Which distribution has which shared library of CUDA and its products: a table, and functions that query it."""

import re
from collections.abc import Iterable
from typing import NamedTuple, Union


class Library(NamedTuple):
    """Some libraries of one distribution.

    cuda: the CUDA major version that it is for; 0 if that does not matter. distribution: its name. version: the
    distribution's major version that has them. directory: where they lie, relative to site-packages. sonames: a pattern
    for their names. seen: a release that has them. extra: the extra of cuda-toolkit that requires the distribution.
    loads: whether its Python package loads them for whatever needs them.
    """

    cuda: int
    distribution: str
    version: int
    directory: str
    sonames: str
    seen: str
    extra: str = ""
    loads: bool = False


_CUPTI = r"lib(checkpoint|nvperf_host|nvperf_target|pcsamplingutil)\.so"
_CUDNN = r"libcudnn(_\w+)?\.so\.9"
_CUDSS = r"libcudss(_(comm|mt)layer_\w+)?\.so\.1"
_NPP = r"libnpp(c|s|i(al|cc|dei|f|g|m|st|su|tc))\.so\."
_NVSHMEM = r"libnvshmem_host\.so\.3|nvshmem_bootstrap_\w+\.so\.3|nvshmem_transport_\w+\.so\.7"
_SANITIZER = r"lib(InterceptorInjectionTarget|TreeLauncher\w+|sanitizer-(collection|public))\.so"
_TOOLKIT = "nvidia/cu13/lib"

# From CUDA 13 on, the toolkit's distributions have no suffix and share a directory. A soname's version is not CUDA's:
# libcusparse.so.12 belongs to CUDA 12 and to CUDA 13.
# fmt: off
LIBRARIES = (
    Library(11, "nvidia-cublas-cu11", 11, "nvidia/cublas/lib", r"lib(cublas|cublasLt|nvblas)\.so\.11", "11.8.0", "cublas"),
    Library(12, "nvidia-cublas-cu12", 12, "nvidia/cublas/lib", r"lib(cublas|cublasLt|nvblas)\.so\.12", "12.9.2.0", "cublas"),
    Library(13, "nvidia-cublas", 13, _TOOLKIT, r"lib(cublas|cublasLt|nvblas)\.so\.13", "13.5.0", "cublas"),
    Library(11, "nvidia-cuda-cupti-cu11", 11, "nvidia/cuda_cupti/lib", rf"libcupti\.so\.11\.8|{_CUPTI}", "11.8.0", "cupti"),
    Library(12, "nvidia-cuda-cupti-cu12", 12, "nvidia/cuda_cupti/lib", rf"libcupti\.so\.12|{_CUPTI}", "12.9.2.0", "cupti"),
    Library(13, "nvidia-cuda-cupti", 13, _TOOLKIT, rf"libcupti\.so\.13|{_CUPTI}", "13.5.0", "cupti"),
    Library(11, "nvidia-cuda-nvcc-cu11", 11, "nvidia/cuda_nvcc/nvvm/lib64", r"libnvvm\.so(\.4)?", "11.8.0", "nvcc"),
    Library(12, "nvidia-cuda-nvcc-cu12", 12, "nvidia/cuda_nvcc/nvvm/lib64", r"libnvvm\.so(\.4)?", "12.9.2.0", "nvcc"),
    Library(13, "nvidia-nvvm", 13, _TOOLKIT, r"libnvvm\.so\.4", "13.5.0", "nvvm"),
    Library(11, "nvidia-cuda-nvrtc-cu11", 11, "nvidia/cuda_nvrtc/lib", r"libnvrtc(-builtins\.so\.11\.8|\.so\.11\.2)", "11.8.0", "nvrtc"),
    Library(12, "nvidia-cuda-nvrtc-cu12", 12, "nvidia/cuda_nvrtc/lib", r"libnvrtc(-builtins)?(\.alt)?\.so\.12(\.\d+)?", "12.9.2.0", "nvrtc"),
    Library(13, "nvidia-cuda-nvrtc", 13, _TOOLKIT, r"libnvrtc(-builtins)?(\.alt)?\.so\.13(\.\d+)?", "13.5.0", "nvrtc"),
    Library(11, "nvidia-cuda-runtime-cu11", 11, "nvidia/cuda_runtime/lib", r"libcudart\.so\.11\.0|libOpenCL\.so\.1", "11.8.0", "cudart"),
    Library(12, "nvidia-cuda-runtime-cu12", 12, "nvidia/cuda_runtime/lib", r"libcudart\.so\.12", "12.9.2.0", "cudart"),
    Library(13, "nvidia-cuda-runtime", 13, _TOOLKIT, r"libcudart\.so\.13", "13.5.0", "cudart"),
    Library(12, "nvidia-cuda-opencl-cu12", 12, "nvidia/cuda_opencl/lib", r"libOpenCL\.so\.1", "12.9.2.0", "opencl"),
    Library(13, "nvidia-cuda-opencl", 13, _TOOLKIT, r"libOpenCL\.so\.1", "13.5.0", "opencl"),
    Library(11, "nvidia-cuda-sanitizer-api-cu11", 11, "nvidia/cuda_sanitizer_api/lib", _SANITIZER, "11.8.0", "sanitizer"),
    Library(12, "nvidia-cuda-sanitizer-api-cu12", 12, "nvidia/cuda_sanitizer_api/lib", _SANITIZER, "12.9.2.0", "sanitizer"),
    Library(13, "nvidia-cuda-sanitizer-api", 13, _TOOLKIT, _SANITIZER, "13.4.3", "sanitizer"),
    Library(13, "nvidia-cuda-sanitizer-api", 13, "nvidia/cu13/compute-sanitizer", _SANITIZER, "13.5.0", "sanitizer"),
    Library(13, "nvidia-cudla", 13, _TOOLKIT, r"libcudla\.so\.1", "13.5.0", "cudla"),
    Library(11, "nvidia-cufft-cu11", 10, "nvidia/cufft/lib", r"libcufftw?\.so\.10", "11.8.0", "cufft"),
    Library(12, "nvidia-cufft-cu12", 11, "nvidia/cufft/lib", r"libcufftw?\.so\.11", "12.9.2.0", "cufft"),
    Library(13, "nvidia-cufft", 12, _TOOLKIT, r"libcufftw?\.so\.12", "13.5.0", "cufft"),
    Library(12, "nvidia-cufile-cu12", 1, "nvidia/cufile/lib", r"libcufile(\.so\.0|_rdma\.so\.1)", "12.9.2.0", "cufile"),
    Library(13, "nvidia-cufile", 1, _TOOLKIT, r"libcufile(\.so\.0|_rdma\.so\.1)", "13.5.0", "cufile"),
    Library(11, "nvidia-curand-cu11", 10, "nvidia/curand/lib", r"libcurand\.so\.10", "11.8.0", "curand"),
    Library(12, "nvidia-curand-cu12", 10, "nvidia/curand/lib", r"libcurand\.so\.10", "12.9.2.0", "curand"),
    Library(13, "nvidia-curand", 10, _TOOLKIT, r"libcurand\.so\.10", "13.5.0", "curand"),
    Library(11, "nvidia-cusolver-cu11", 11, "nvidia/cusolver/lib", r"libcusolver(Mg)?\.so\.11", "11.8.0", "cusolver"),
    Library(12, "nvidia-cusolver-cu12", 11, "nvidia/cusolver/lib", r"libcusolver(Mg)?\.so\.11", "12.9.2.0", "cusolver"),
    Library(13, "nvidia-cusolver", 12, _TOOLKIT, r"libcusolver(Mg)?\.so\.12", "13.5.0", "cusolver"),
    Library(11, "nvidia-cusparse-cu11", 11, "nvidia/cusparse/lib", r"libcusparse\.so\.11", "11.8.0", "cusparse"),
    Library(12, "nvidia-cusparse-cu12", 12, "nvidia/cusparse/lib", r"libcusparse\.so\.12", "12.9.2.0", "cusparse"),
    Library(13, "nvidia-cusparse", 12, _TOOLKIT, r"libcusparse\.so\.12", "13.5.0", "cusparse"),
    Library(11, "nvidia-npp-cu11", 11, "nvidia/npp/lib", rf"{_NPP}11", "11.8.0", "npp"),
    Library(12, "nvidia-npp-cu12", 12, "nvidia/npp/lib", rf"{_NPP}12", "12.9.2.0", "npp"),
    Library(13, "nvidia-npp", 13, _TOOLKIT, rf"{_NPP}13", "13.5.0", "npp"),
    Library(12, "nvidia-nvfatbin-cu12", 12, "nvidia/nvfatbin/lib", r"libnvfatbin\.so\.12", "12.9.2.0", "nvfatbin"),
    Library(13, "nvidia-nvfatbin", 13, _TOOLKIT, r"libnvfatbin\.so\.13", "13.5.0", "nvfatbin"),
    Library(12, "nvidia-nvjitlink-cu12", 12, "nvidia/nvjitlink/lib", r"libnvJitLink\.so\.12", "12.9.2.0", "nvjitlink"),
    Library(13, "nvidia-nvjitlink", 13, _TOOLKIT, r"libnvJitLink\.so\.13", "13.5.0", "nvjitlink"),
    Library(11, "nvidia-nvjpeg-cu11", 11, "nvidia/nvjpeg/lib", r"libnvjpeg\.so\.11", "11.8.0", "nvjpeg"),
    Library(12, "nvidia-nvjpeg-cu12", 12, "nvidia/nvjpeg/lib", r"libnvjpeg\.so\.12", "12.9.2.0", "nvjpeg"),
    Library(13, "nvidia-nvjpeg", 13, _TOOLKIT, r"libnvjpeg\.so\.13", "13.5.0", "nvjpeg"),
    Library(11, "nvidia-nvtx-cu11", 11, "nvidia/nvtx/lib", r"libnvToolsExt\.so\.1", "11.8.0", "nvtx"),
    Library(12, "nvidia-nvtx-cu12", 12, "nvidia/nvtx/lib", r"libnv(ToolsExt|tx3interop)\.so\.1", "12.9.2.0", "nvtx"),
    Library(13, "nvidia-nvtx", 13, _TOOLKIT, r"libnvtx3interop\.so\.1", "13.5.0", "nvtx"),
    # Products. From here on, `seen` names a wheel; above, a release of cuda-toolkit.
    Library(11, "nvidia-cudnn-cu11", 9, "nvidia/cudnn/lib", _CUDNN, "nvidia-cudnn-cu11 9.10.2.21"),
    Library(12, "nvidia-cudnn-cu12", 9, "nvidia/cudnn/lib", _CUDNN, "nvidia-cudnn-cu12 9.28.0.42"),
    Library(13, "nvidia-cudnn-cu13", 9, "nvidia/cudnn/lib", _CUDNN, "nvidia-cudnn-cu13 9.28.0.42"),
    Library(11, "nvidia-nccl-cu11", 2, "nvidia/nccl/lib", r"libnccl\.so\.2", "nvidia-nccl-cu11 2.21.5"),
    Library(12, "nvidia-nccl-cu12", 2, "nvidia/nccl/lib", r"libnccl\.so\.2", "nvidia-nccl-cu12 2.32.3"),
    Library(13, "nvidia-nccl-cu13", 2, "nvidia/nccl/lib", r"libnccl\.so\.2", "nvidia-nccl-cu13 2.32.3"),
    Library(12, "nvidia-nvshmem-cu12", 3, "nvidia/nvshmem/lib", _NVSHMEM, "nvidia-nvshmem-cu12 3.8.0"),
    Library(13, "nvidia-nvshmem-cu13", 3, "nvidia/nvshmem/lib", _NVSHMEM, "nvidia-nvshmem-cu13 3.8.0"),
    Library(11, "cutensor-cu11", 2, "cutensor/lib", r"libcutensor(Mg)?\.so\.2", "cutensor-cu11 2.2.0"),
    Library(12, "cutensor-cu12", 2, "cutensor/lib", r"libcutensor(Mg|Mp)?\.so\.2", "cutensor-cu12 2.8.1"),
    Library(13, "cutensor-cu13", 2, "cutensor/lib", r"libcutensor(Mg|Mp)?\.so\.2", "cutensor-cu13 2.8.1"),
    Library(12, "nvidia-cusparselt-cu12", 0, "nvidia/cusparselt/lib", r"libcusparseLt\.so\.0", "nvidia-cusparselt-cu12 0.8.1"),
    Library(13, "nvidia-cusparselt-cu13", 0, _TOOLKIT, r"libcusparseLt\.so\.0", "nvidia-cusparselt-cu13 0.10.0"),
    Library(12, "nvidia-cudss-cu12", 1, "nvidia/cu12/lib", _CUDSS, "nvidia-cudss-cu12 1.0.0.35"),
    Library(13, "nvidia-cudss-cu13", 1, _TOOLKIT, _CUDSS, "nvidia-cudss-cu13 1.0.0.35"),
    Library(13, "nvidia-libnvcomp-cu13", 5, "nvidia/libnvcomp/lib64", r"libnvcomp(_cpu)?\.so\.5", "nvidia-libnvcomp-cu13 5.3.0.16", loads=True),
    Library(12, "nvidia-libnvcomp-cu12", 6, "nvidia/libnvcomp/lib64", r"libnvcomp(_cpu)?\.so\.6", "nvidia-libnvcomp-cu12 6.0.0.12", loads=True),
    Library(13, "nvidia-libnvcomp-cu13", 6, "nvidia/libnvcomp/lib64", r"libnvcomp(_cpu)?\.so\.6", "nvidia-libnvcomp-cu13 6.0.0.12", loads=True),
    Library(13, "nvidia-nvimgcodec-cu13", 0, "nvidia/nvimgcodec", r"libnvimgcodec\.so\.0", "nvidia-nvimgcodec-cu13 0.9.0.20"),
    Library(13, "nvidia-nvjpeg2k-cu13", 0, "nvidia/nvjpeg2k/lib", r"libnvjpeg2k\.so\.0", "nvidia-nvjpeg2k-cu13 0.11.0.51"),
    Library(13, "nvidia-nvtiff-cu13", 0, "nvidia/nvtiff/lib", r"libnvtiff\.so\.0", "nvidia-nvtiff-cu13 0.8.0.82"),
    # Libraries that other projects link, and that their own Python packages load.
    Library(12, "libcuvs-cu12", 26, "libcuvs/lib64", r"libcuvs(_c)?\.so", "libcuvs-cu12 26.10.0", loads=True),
    Library(13, "libcuvs-cu13", 26, "libcuvs/lib64", r"libcuvs(_c)?\.so", "libcuvs-cu13 26.10.0", loads=True),
    Library(13, "libcudf-cu13", 26, "libcudf/lib64", r"libcudf\.so", "libcudf-cu13 26.10.2", loads=True),
    Library(13, "libcuml-cu13", 26, "libcuml/lib64", r"libcuml\.so", "libcuml-cu13 26.10.0", loads=True),
    Library(13, "libkvikio-cu13", 26, "libkvikio/lib64", r"libkvikio\.so", "libkvikio-cu13 26.10.0", loads=True),
    Library(13, "libraft-cu13", 26, "libraft/lib64", r"libraft\.so", "libraft-cu13 26.10.0", loads=True),
    Library(13, "librmm-cu13", 26, "librmm/lib64", r"librmm\.so", "librmm-cu13 26.10.0", loads=True),
    Library(0, "rapids-logger", 0, "rapids_logger/lib64", r"librapids_logger\.so", "rapids-logger 0.3.0", loads=True),
    Library(0, "torch", 2, "torch/lib", r"lib(c10(_cuda)?|torch(_\w+)?)\.so", "torch 2.15.0", loads=True),
)
# fmt: on

# What comes with the driver, and with no wheel, except libOpenCL: every machine with an OpenCL driver has that, too.
DRIVER = re.compile(
    r"lib(cuda|OpenCL|nvidia-ml|nvcuvid|nvidia-encode|nvidia-opticalflow|nvidia-ptxjitcompiler|nvidia-nvvm|nvoptix|cudadebugger)"
    r"\.so\.\d+"
)


class Torch(NamedTuple):
    """What torch requires. loaded: which versions of torch load its libraries on import; "" for all, None for none."""

    distribution: str  # without CUDA's suffix
    loaded: Union[str, None] = ""


# torch loads what libtorch_python.so needs, directly or not: seen in torch 2.11, 2.12, 2.14 and 2.15 for CUDA 13.
TORCH = (
    Torch("nvidia-cublas"),
    Torch("nvidia-cuda-cupti"),
    Torch("nvidia-cuda-nvrtc", ">=2.12"),
    Torch("nvidia-cuda-runtime"),
    Torch("nvidia-cudnn"),
    Torch("nvidia-cufft"),
    Torch("nvidia-cufile"),
    Torch("nvidia-curand", "<2.15"),
    Torch("nvidia-cusolver", None),  # only libtorch_cuda_linalg.so needs it, which torch opens on first use
    Torch("nvidia-cusparse"),
    Torch("nvidia-cusparselt"),
    Torch("nvidia-nccl"),
    Torch("nvidia-nvjitlink"),  # libcusparse.so needs it
    Torch("nvidia-nvshmem"),
    Torch("nvidia-nvtx", None),
)

# What CUDA's own wheels require, without CUDA's suffix: seen in the metadata of the toolkits 13.0 to 13.5.
REQUIRED = {
    "nvidia-cudnn": ("nvidia-cublas",),
    "nvidia-cufft": ("nvidia-nvjitlink",),
    "nvidia-cusolver": ("nvidia-cublas", "nvidia-cusparse", "nvidia-nvjitlink"),
    "nvidia-cusparse": ("nvidia-nvjitlink",),
}

# What requires none of these libraries without an extra: seen in cuda-bindings 13.5.0, cuda-core 1.2.2, cuda-python 13.4.4.
BRING_NONE = ("cuda-bindings", "cuda-core", "cuda-pathfinder", "cuda-python", "nvidia-ml-py")


def owners(soname: str) -> list[Library]:
    """The rows of LIBRARIES that have *soname*."""
    return [library for library in LIBRARIES if re.fullmatch(library.sonames, soname)]


def copied(name: str) -> list[Library]:
    """The rows of LIBRARIES of which the file *name*, in another wheel, is a copy.

    auditwheel names copies libcudart-3eda8113.so.13 or libcudart.3eda8113.so.13, with the full version if there was one.
    """
    soname = re.sub(r"[-.][0-9a-f]{8}(?=\.so\b)", "", name)
    return [library for library in LIBRARIES if re.fullmatch(rf"({library.sonames})(\.\d+)*", soname)]


def base(distribution: str) -> str:
    """*distribution*'s name without CUDA's suffix."""
    return re.sub(r"-cu\d+$", "", distribution)


def metapackage(extras: Iterable[str]) -> list[Library]:
    """The rows of LIBRARIES that ``cuda-toolkit[extras]`` requires."""
    wanted = set(extras)
    return [row for row in LIBRARIES if row.extra and (row.extra in wanted or "all" in wanted)]
