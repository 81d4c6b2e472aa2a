"""What is installed: an environment's toolkit, where its components and products lie, and their versions."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WINDOWS = os.name == "nt"  # all modules read it here, at the time of use: tests change it
OFF = ("0", "off", "false", "no")  # values that switch something off
HEADER = "cuda_runtime_api.h"  # without it nothing can be built


class Directory:
    """A row of COMPONENTS or PRODUCTS: where the files of some wheels lie.

    path: relative to a `sys.path` entry. seen: a wheel that has it, and its version.
    """

    __slots__ = ("path", "seen")

    def __init__(self, path: str, *, seen: str) -> None:
        self.path = path
        self.seen = seen


# CUDA 11 and 12 have a directory per component. Later versions have one for all, such as nvidia/cu13.
COMPONENTS = (
    Directory("nvidia/cuda_runtime", seen="nvidia-cuda-runtime-cu12 12.9.79"),
    Directory("nvidia/cuda_nvcc", seen="nvidia-cuda-nvcc-cu12 12.9.86"),
    Directory("nvidia/cuda_cccl", seen="nvidia-cuda-cccl-cu12 12.9.27"),
    Directory("nvidia/cuda_cupti", seen="nvidia-cuda-cupti-cu12 12.9.79"),
    Directory("nvidia/cuda_cuxxfilt", seen="nvidia-cuda-cuxxfilt-cu12 12.9.82"),
    Directory("nvidia/cuda_nvrtc", seen="nvidia-cuda-nvrtc-cu12 12.9.86"),
    Directory("nvidia/cuda_opencl", seen="nvidia-cuda-opencl-cu12 12.9.19"),
    Directory("nvidia/cuda_profiler_api", seen="nvidia-cuda-profiler-api-cu12 12.9.79"),
    Directory("nvidia/cuda_sanitizer_api", seen="nvidia-cuda-sanitizer-api-cu12 12.9.79"),
    Directory("nvidia/cublas", seen="nvidia-cublas-cu12 12.9.2.10"),
    Directory("nvidia/cufft", seen="nvidia-cufft-cu12 11.4.1.4"),
    Directory("nvidia/cufile", seen="nvidia-cufile-cu12 1.14.1.1"),
    Directory("nvidia/curand", seen="nvidia-curand-cu12 10.3.10.19"),
    Directory("nvidia/cusolver", seen="nvidia-cusolver-cu12 11.7.5.82"),
    Directory("nvidia/cusparse", seen="nvidia-cusparse-cu12 12.5.10.65"),
    Directory("nvidia/npp", seen="nvidia-npp-cu12 12.4.1.87"),
    Directory("nvidia/nvfatbin", seen="nvidia-nvfatbin-cu12 12.9.82"),
    Directory("nvidia/nvjitlink", seen="nvidia-nvjitlink-cu12 12.9.86"),
    Directory("nvidia/nvjpeg", seen="nvidia-nvjpeg-cu12 12.4.0.76"),
    Directory("nvidia/nvml_dev", seen="nvidia-nvml-dev-cu12 12.9.79"),
    Directory("nvidia/nvtx", seen="nvidia-nvtx-cu12 12.9.79"),
)

# Products whose files lie beside the toolkit's directory.
PRODUCTS = (
    Directory("nvidia/cudnn", seen="nvidia-cudnn-cu13 9.28.0.42"),
    Directory("nvidia/nccl", seen="nvidia-nccl-cu13 2.32.3"),
    Directory("nvidia/nvshmem", seen="nvidia-nvshmem-cu13 3.8.0"),
    Directory("cutensor", seen="cutensor-cu13 2.8.1"),
)


class Toolkit:
    """A CUDA toolkit installed as wheels.

    major: CUDA's major version. entries: the `sys.path` entries that hold its components and products, in order.
    wheels: its components' directory, in the first entry that has the compiler, or else in the first.
    nvcc: whether it has the compiler.
    """

    __slots__ = ("entries", "major", "nvcc", "wheels")

    def __init__(self, major: int, entries: "list[str]", wheels: str, nvcc: bool) -> None:
        self.major = major
        self.entries = entries
        self.wheels = wheels
        self.nvcc = nvcc


def nvcc_name() -> str:
    """The file name of the compiler."""
    return "nvcc.exe" if WINDOWS else "nvcc"


def find(paths: "Iterable[object]", major: "int | None" = None) -> "Toolkit | None":
    """Find the toolkit on *paths*; None if there is none. Of several major versions, the newest with nvcc wins, or else
    the newest. With *major*, consider only that one.

    Looks at the file system and never at `nvidia.__path__`: some CUDA 12 wheels ship an `nvidia/__init__.py`, which
    hides the namespace package's other parts.
    """
    entries: dict[tuple[int, int], str] = {}
    found: dict[int, tuple[bool, str]] = {}
    for entry in dict.fromkeys(path for path in paths if isinstance(path, str) and os.path.isabs(path)):
        nvidia = os.path.join(entry, "nvidia")
        try:
            names = os.listdir(nvidia)
        except (OSError, ValueError):  # ValueError: the path has a null character
            names = []
        # The one product whose wheel lies outside nvidia/ (cutensor-cu13 2.8.1).
        if names or os.path.isdir(os.path.join(entry, "cutensor")):
            # Fedora's venvs have both lib and lib64, a link to lib, on sys.path.
            identity = os.stat(entry)
            if entries.setdefault((identity.st_dev, identity.st_ino), entry) != entry:
                continue
        for number, wheels in _toolkits(nvidia, names):
            if major in (None, number) and not found.get(number, (False,))[0]:
                nvcc = os.path.isfile(os.path.join(wheels, "bin", nvcc_name()))
                # pip leaves empty directories behind.
                if nvcc or (number not in found and os.path.isfile(os.path.join(wheels, "include", HEADER))):
                    found[number] = nvcc, wheels
    if not found:
        return None
    newest = max(found, key=lambda number: (found[number][0], number))
    nvcc, wheels = found[newest]
    return Toolkit(newest, list(entries.values()), wheels, nvcc)


def _toolkits(nvidia: str, names: "list[str]") -> "Iterator[tuple[int, str]]":
    """Each toolkit's major version and components' directory; *names* is what the directory *nvidia* holds."""
    for name in names:
        directory = os.path.join(nvidia, name)
        if name.startswith("cu") and name[2:].isdecimal():  # cu13, not cublas
            yield int(name[2:]), directory
        elif name == "cuda_runtime" and not WINDOWS:  # CUDA 11 and 12: a directory per component, and no nvcc
            try:
                libraries = os.listdir(os.path.join(directory, "lib"))
            except OSError:
                continue
            for library in libraries:
                number = library.partition("libcudart.so.")[2].partition(".")[0]
                if number.isdecimal():
                    yield int(number), directory


def components(toolkit: Toolkit) -> "tuple[str, ...]":
    """The directories that may hold *toolkit*'s components, relative to a `sys.path` entry."""
    if toolkit.major < 13:
        return tuple(component.path for component in COMPONENTS)
    return (f"nvidia/cu{toolkit.major}",)


def versions(entries: "list[str]") -> "dict[str, str]":
    """The version of each NVIDIA distribution installed in *entries*, by its normalized name."""
    found: dict[str, str] = {}
    for entry in entries:
        try:
            names = sorted(os.listdir(entry))
        except OSError:
            continue
        for name in names:
            distribution, _, version = name.removesuffix(".dist-info").partition("-")
            ours = name.endswith(".dist-info") and distribution.startswith(("nvidia_", "cutensor"))
            if ours and distribution.isidentifier() and version.replace(".", "").replace("+", "").isalnum():
                found.setdefault(distribution, version)
    return found


def minor_version(version: str) -> str:
    """13.4 for 13.4.92."""
    return ".".join(version.split(".")[:2])


def toolkit_version(toolkit: Toolkit, installed: "Mapping[str, str]") -> "str | None":
    """nvcc's version, or else the runtime's, or else what its header says; None if that is unknown."""
    suffix = f"_cu{toolkit.major}" if toolkit.major < 13 else ""
    for distribution in ("nvidia_cuda_nvcc", "nvidia_cuda_runtime"):
        if installed.get(distribution + suffix, "").startswith(f"{toolkit.major}."):
            return installed[distribution + suffix]
    try:
        with open(os.path.join(toolkit.wheels, "include", HEADER), "rb") as header:
            number = int(header.read().split(b"#define CUDART_VERSION", 1)[1].split(None, 1)[0])
    except (OSError, ValueError, IndexError):
        return None
    return f"{number // 1000}.{number % 1000 // 10}.0"


def fingerprint(words: "list[str]") -> str:
    """A short name for *words*, the same in every process and on every machine."""
    # hash() differs from run to run, and hashlib would be another import.
    return format(int.from_bytes(os.fsencode("\0".join(words)), "big") % (2**61 - 1), "x")
