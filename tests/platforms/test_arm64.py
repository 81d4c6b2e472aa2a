"""arm64 Linux, in emulation: the wheels' own nvcc, for that machine, compiles and links with what is in the root.

A Debian for arm64 is unpacked, and runs in a user namespace that has an emulator of its own for such programs, so that
nothing of the machine is changed. What fetches for it does so natively.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import layout
import pytest
from conftest import MACHINE, run
from toolkits import NEWEST, lock, minor_version, release_lock

from cuda_build_activate import _elf

pytestmark = pytest.mark.everything

PACKAGES = "python3,g++,dash,coreutils"
SITE = "/venv/lib/python3.11/site-packages"  # Debian 12's Python
ROOT = f"{SITE}/cuda-build-activate/cu13"
# nvJPEG stands for the libraries: it is the smallest, and has a function that needs no GPU.
CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(demo LANGUAGES CUDA)
find_package(CUDAToolkit REQUIRED)
find_package(CCCL REQUIRED CONFIG)
add_executable(demo demo.cu)
target_link_libraries(demo PRIVATE CUDA::nvjpeg CUDA::cuda_driver CCCL::CUB)
"""
PROGRAM = """
#include <cstdio>
#include <cub/version.cuh>
#include <cuda.h>
#include <nvjpeg.h>
__global__ void kernel(int *number) { *number = CUB_MAJOR_VERSION; }
int main() {
    int version = 0;
    nvjpegStatus_t status = nvjpegGetProperty(MAJOR_VERSION, &version);
    std::printf("cuInit: %d, nvjpegGetProperty: %d, %d\\n", cuInit(0), status, version);
}
"""
# The kernel opens the emulator at once, by flag F: it need not be in the other root.
ENTER = """
root=$1 emulator=$2
shift 2
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf %s "$emulator" > /proc/sys/fs/binfmt_misc/register
for place in dev proc; do mount --rbind "/$place" "$root/$place"; done
exec chroot "$root" /usr/bin/env -i LANG=C.UTF-8 "$@"
"""


def emulator(qemu: str) -> str:
    """What binfmt_misc is told: which files *qemu* runs. Those are ELF files for arm64, that start or are loaded."""
    start = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HH", 2, 183)
    mask = b"\xff" * 7 + b"\0" + b"\xff" * 8 + b"\xfe\xff\xff\xff"  # whichever ABI; 2 and 3 are programs
    magic, mask_text = ("".join(f"\\x{byte:02x}" for byte in part) for part in (start, mask))
    return f":arm64:M::{magic}:{mask_text}:{qemu}:F"


@pytest.fixture
def enter(tmp_path: Path) -> list[str]:
    """The start of a command line for a process that runs in an arm64 Debian in *tmp_path*, or will."""
    for program in ("mmdebstrap", "qemu-aarch64-static", "unshare", "mount", "chroot"):
        if not shutil.which(program):
            pytest.skip(f"there is no {program} here (Debian: mmdebstrap, qemu-user-static)")
    if os.geteuid() != 0:
        pytest.skip("unpacking a Debian needs root")
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    probe = [*namespace, "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc"]
    done = subprocess.run(probe, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no emulators in a user namespace (since Linux 6.7): {done.stderr.strip()}")
    qemu = os.path.realpath(shutil.which("qemu-aarch64-static") or "")
    path = f"PATH=/venv/bin:{SITE}/cmake/data/bin:{SITE}/bin:/usr/bin:/bin"
    return [*namespace, ENTER, "sh", str(tmp_path / "debian"), emulator(qemu), path]


@pytest.fixture
def debian(enter: list[str], wheel: Path, pytestconfig: pytest.Config, tmp_path: Path) -> Path:
    """A Debian with a C++ compiler, and in /venv this package, CMake, and the newest toolkit."""
    debian = tmp_path / "debian"
    # By dpkg-deb alone: no script of a package runs.
    options = ["--quiet", "--architectures=arm64", "--variant=extract", "--mode=root", f"--include={PACKAGES}"]
    run(["mmdebstrap", *options, "bookworm", debian], env=MACHINE)
    (debian / "proc").mkdir()
    (debian / "venv" / "bin").mkdir(parents=True)
    (debian / "venv" / "bin" / "python").symlink_to("/usr/bin/python3")
    (debian / "venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")

    cache = Path(pytestconfig.cache.mkdir("wheel-layouts"))
    toolkit = f"cuda-toolkit[nvcc,cudart,cccl,nvjpeg]=={NEWEST}"
    urls = layout.resolve([toolkit], "linux_aarch64", release_lock(NEWEST))
    urls += layout.resolve(["cmake", "ninja"], "linux_aarch64", lock("tools"))
    wheels = [wheel, *(layout.fetch(url, cache) for url in urls)]
    options = ["--offline", "--no-deps", "--python-platform", layout.PLATFORMS["linux_aarch64"]]
    options += ["--python-version", "3.11", "--target", f"{debian}{SITE}"]
    run([sys.executable, "-m", "uv", "pip", "install", "--quiet", *options, *wheels])

    (debian / "demo").mkdir()
    (debian / "demo" / "CMakeLists.txt").write_text(CMAKE)
    (debian / "demo" / "demo.cu").write_text(PROGRAM)
    return debian


def test_arm64(enter: list[str], debian: Path) -> None:
    """One test, as what it needs takes long to make, and no other needs it."""
    assert run([*enter, "uname", "-m"]) == "aarch64\n"
    printed = run(
        [*enter, "CUDA_BUILD_ACTIVATE_VERBOSE=1", "python", "-c", "import os; print(os.environ['CUDA_HOME'])"]
    )
    version = rf"{re.escape(minor_version(NEWEST))}\.\d+"
    assert re.fullmatch(rf"cuda-build-activate: activated CUDA {version} with nvcc: {ROOT}\n{ROOT}\n", printed)
    assert os.listdir(f"{debian}{ROOT}/targets") == ["sbsa-linux"]

    package = [*enter, "python", "-m", "cuda_build_activate"]
    assert run([*package, "doctor", "--compile"]).splitlines()[1:] == [
        "passed: compiled and linked a kernel; its device code is in the program",
        "passed: linked the shared runtime",
    ]

    configure = ["cmake", "-G", "Ninja", "-DCMAKE_CUDA_ARCHITECTURES=90", "-S", "/demo", "-B", "/demo/build"]
    printed = run([*package, "run", "--", *configure])
    assert f"Found CUDAToolkit: {ROOT}/include;" in printed
    assert f"Found CCCL: {ROOT}/lib64/cmake/cccl/cccl-config.cmake" in printed
    run([*package, "run", "--", "cmake", "--build", "/demo/build"])
    stub = f"{debian}{ROOT}/lib64/stubs/libcuda.so"
    for path, soname in ((str(debian / "demo" / "build" / "demo"), ""), (stub, "libcuda.so.1")):
        with open(path, "rb") as file:
            elf = _elf.read(file)
        assert (elf.machine, elf.soname) == ("AARCH64", soname)
        if path != stub:
            assert {"libnvjpeg.so.13", "libcuda.so.1"} <= {*elf.needed}
            assert elf.device_code == ("compute_90", "sm_90")

    # The driver's own library is missing: the stub is no part of what the linker tells the loader.
    demo = [*enter, f"LD_LIBRARY_PATH={ROOT}/lib64:/driver", "/demo/build/demo"]
    done = subprocess.run(demo, stderr=subprocess.PIPE, text=True, check=False)
    assert "libcuda.so.1: cannot open shared object file" in done.stderr
    (debian / "driver").mkdir()
    shutil.copy(stub, debian / "driver" / "libcuda.so.1")
    major = NEWEST.partition(".")[0]
    assert run(demo) == f"cuInit: 34, nvjpegGetProperty: 0, {major}\n"  # 34 is CUDA_ERROR_STUB_LIBRARY
    shutil.rmtree(debian)
