"""What is measured: interpreters, virtual environments, and toolkits from made-up wheels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Union

Argument = Union[str, "os.PathLike[str]"]

OLDEST = (3, 9)  # that the project supports
PREFERRED = (3, 11)  # that the targets are for

# What each component's wheel has in nvidia/cu13, with as many names per directory as in CUDA 13.4.
COMPONENTS = {
    "nvidia_cuda_nvcc": ["bin/nvcc", "bin/nvcc.profile", "bin/crt/link.stub", *(f"bin/tool{n}" for n in range(6))],
    "nvidia_cuda_runtime": [
        "include/cuda_runtime_api.h",
        *(f"include/cuda_{n}.h" for n in range(77)),
        "lib/libcudart.so.13",
        "lib/libcudart_static.a",
        "lib/libcudadevrt.a",
    ],
    "nvidia_cuda_crt": ["include/crt/host_config.h", "include/crt/host_defines.h"],
    "nvidia_cuda_cccl": [
        "include/cccl/thrust/version.h",
        "include/nv/target",
        "cccl/lib/cmake/cccl/cccl-config.cmake",
        "cccl/lib/cmake/thrust/thrust-config.cmake",
    ],
    "nvidia_nvvm": ["include/nvvm.h", "lib/libnvvm.so.4", "nvvm/bin/cicc", "nvvm/libdevice/libdevice.10.bc"],
}
# All of CUDA 12 in nvidia/: a directory per component or product. (ruff would give each item of a list a line.)
CUDA_12 = """
cuda_runtime cuda_nvcc cuda_cccl cublas cuda_cupti cuda_cuxxfilt cuda_nvrtc cuda_opencl cuda_profiler_api
cuda_sanitizer_api cudnn cufft cufile curand cusolver cusparse nccl npp nvfatbin nvjitlink nvjpeg nvml_dev nvshmem nvtx
""".split()  # noqa: SIM905


def run(*command: Argument) -> str:
    """Run *command* and return its output; exit with that if the command fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed with status {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def running() -> tuple[tuple[int, int], Path]:
    """This interpreter's version and path, outside any virtual environment."""
    return sys.version_info[:2], Path(os.path.realpath(sys.executable))


def interpreters() -> dict[tuple[int, int], Path]:
    """An interpreter for each supported version on this machine: this one, pyenv's, or one on PATH."""
    version, this = running()
    found = {version: this}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = [Path(entry) for entry in os.environ["PATH"].split(os.pathsep) if Path(entry).parent != pyenv]
    for directory in [*sorted(pyenv.glob("versions/*/bin"), reverse=True), *on_path]:
        for path in directory.glob("python3.*"):
            match = re.fullmatch(r"python3\.(\d+)", path.name)
            if match and (3, int(match[1])) >= OLDEST:
                found.setdefault((3, int(match[1])), path)
    return dict(sorted(found.items()))


class Environment:
    """An empty virtual environment."""

    def __init__(self, directory: Path, interpreter: Path) -> None:
        # Longer paths cost more instructions: give all the same length.
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{len(list(directory.iterdir())):03}"
        run(interpreter, "-m", "venv", "--without-pip", self.path)
        self.python = self.path / "bin" / "python"
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.site = Path(run(self.python, "-I", "-c", code).strip())

    def install(self, *requirements: Argument) -> None:
        """Install *requirements*, without byte code."""
        uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--link-mode", "copy", "--no-compile-bytecode")
        run(*uv, "--python", self.python, *requirements)

    def compile(self) -> None:
        """Make byte code for everything installed: starts do not (see `measure.VARIABLES`)."""
        run(self.python, "-I", "-m", "compileall", "-q", self.site)

    def version(self, distribution: str) -> str:
        """The installed version of *distribution*."""
        (found,) = self.site.glob(f"{distribution.replace('-', '_')}-*.dist-info")
        return found.stem.split("-")[1]


def put_root_away(entry: Path) -> None:
    """Make the next start the very first one with the toolkit in *entry*.

    The root is moved, not removed: for some time after a removal, ext4 makes files several times slower.
    """
    root = entry / "cuda-build-activate"
    if root.exists():
        root.rename(entry.parent / f"away-{time.time_ns()}")


def add_toolkit(entries: Sequence[Path], wheels: int = len(COMPONENTS)) -> None:
    """Make what this number of CUDA 13 *wheels* installs, in *entries* in turn: first nvcc, invented from the sixth."""
    for number in range(wheels):
        name = list(COMPONENTS)[number] if number < len(COMPONENTS) else f"nvidia_component{number}"
        files = COMPONENTS.get(name, _component(number))
        _add_wheel(entries[number % len(entries)], f"{name}-13.4.92", [f"nvidia/cu13/{file}" for file in files])


def add_cuda_12(entry: Path, wheels: int) -> None:
    """Make what this number of CUDA 12 *wheels* installs."""
    for number, name in enumerate(CUDA_12[:wheels]):
        files = _component(number) if number else ["lib/libcudart.so.12", "include/cuda_runtime_api.h"]
        _add_wheel(entry, f"nvidia_{name}_cu12-12.9.86", [f"nvidia/{name}/{file}" for file in files])


def add_distributions(site: Path, count: int) -> None:
    """Make *count* installed distributions that have nothing to do with CUDA."""
    for number in range(count):
        _add_wheel(site, f"package{number:04}-1.0", [f"package{number:04}/__init__.py"])


def _component(number: int) -> list[str]:
    """The files of an invented component: the mean of CUDA 13.4's 24 wheels."""
    headers = [f"include/component{number}_{n}.h" for n in range(8)]
    return [f"bin/component{number}", *headers, f"lib/libcomponent{number}.so.13", f"lib/libcomponent{number}.a"]


def _add_wheel(entry: Path, name: str, files: list[str]) -> None:
    for file in [f"{name}.dist-info/METADATA", f"{name}.dist-info/RECORD", *files]:
        path = entry / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)
        # Old, as when a build starts: what has just changed may change again unnoticed.
        for changed in (path, *path.parents[: file.count("/")]):
            os.utime(changed, (10**9, 10**9))
