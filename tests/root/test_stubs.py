"""The driver's stubs: what they export, and that linkers and loaders take them.

What is for another machine than this one needs its compiler and an emulator. On Debian and Ubuntu, nothing is skipped
after ``apt install binutils binutils-aarch64-linux-gnu gcc-aarch64-linux-gnu qemu-user lld mold`` on x86_64.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import VEnv, run
from filelock import FileLock
from toolkits import NEWEST, TOOLKITS

from cuda_build_activate._stubs import LIBRARIES, TEXT, driver_stubs

CUDA_H = """
#define CUDAAPI
#define __CUDA_API_PTDS(api) api
#define __CUDA_API_PTSZ(api) api
typedef enum { CUDA_SUCCESS = 0, cuNoFunction = 1 } CUresult;
typedef int cuNoFunction_v2_t;
#define cuNoFunction_t cuNoFunction_v2_t
#define cuNoCall(x) cuInit(x)
#define cuAlloc cuAlloc_v2
#define cuCopy __CUDA_API_PTDS(cuCopy_v2)
#define cuCopyAsync __CUDA_API_PTSZ(cuCopyAsync)
/** cuComment() is gone, use ::cuInit(); CUDA_ERROR cuComment(int) */
typedef CUresult (CUDAAPI *cuCallback)(int);
typedef CUresult CUDAAPI PFN_cuInit(unsigned int flags);
__attribute__((deprecated)) CUresult CUDAAPI cuInit(unsigned int flags);
CUresult CUDAAPI cuAlloc(void), cuUnrelated;
CUresult CUDAAPI
    cuCopy (void);
CUresult CUDAAPI cuCopyAsync(void);
#if defined(__CUDA_API_VERSION_INTERNAL)
    CUresult CUDAAPI cuCopy_ptds(void);
#endif
static inline CUresult cuInline_v2_ptsz(void) { return CUDA_SUCCESS; }
#define cuInline_v2 cuInline_v2_ptsz
"""
CUDA = "cuAlloc cuAlloc_v2 cuCopy cuCopy_ptds cuCopy_v2 cuCopy_v2_ptds cuCopyAsync cuCopyAsync_ptsz cuInit"
GL_H = "#define CUDAAPI\nint CUDAAPI cuGLInit(void);\n"
NVML_H = """
#define DECLDIR
typedef int nvmlReturn_t;
#define nvmlInit nvmlInit_v2
#define nvmlReasonNone nvmlReasonsNone
static const int nvmlReasonsNone = 0;
#define nvmlMemory_v2 (unsigned int)(sizeof(nvmlReturn_t))
nvmlReturn_t DECLDIR nvmlInit_v2(void);
const DECLDIR char* nvmlErrorString(nvmlReturn_t result);
"""
NVML = "nvmlErrorString nvmlInit nvmlInit_v2"
PROGRAM = """
#include <cuda.h>
#include <nvml.h>
#include <stdio.h>
CUresult (*pointer)(void) = cuCopy;
int main(void) { printf("%d %d %d %s", cuInit(0), pointer(), nvmlInit(), nvmlErrorString(0)); return 0; }
"""

HERE = os.uname().machine
MACHINES = ("x86_64", "aarch64")


def linkers() -> list[object]:
    """Every linker for every machine; those that are missing here are skipped."""
    found: list[object] = []
    for machine in MACHINES:
        prefix = "" if machine == HERE else f"{machine}-linux-gnu-"
        for name in (f"{prefix}ld.bfd", f"{prefix}ld.gold", "ld.lld", "mold"):
            needed = [name, *([] if machine == HERE else [f"{prefix}gcc", f"qemu-{machine}"])]
            missing = [tool for tool in needed if not shutil.which(tool)]
            required = machine == HERE and name == "ld.bfd"
            skip = pytest.mark.skipif(bool(missing) and not required, reason=f"not installed: {', '.join(missing)}")
            found.append(pytest.param(machine, name, id=f"{machine}-{name.rpartition('-')[2]}", marks=skip))
    return found


@pytest.fixture
def headers(tmp_path: Path) -> dict[str, str]:
    """Small made-up headers with everything in them that NVIDIA's have."""
    (tmp_path / "include").mkdir()
    for name, content in {"cuda.h": CUDA_H, "cudaGL.h": GL_H, "nvml.h": NVML_H}.items():
        (tmp_path / "include" / name).write_text(content)
    return {path.name: str(path) for path in (tmp_path / "include").iterdir()}


def write(directory: Path, headers: dict[str, str], machine: str = HERE) -> Path:
    """Write the stubs for *headers* below *directory* and return where."""
    stubs = directory / "stubs"
    stubs.mkdir()
    for name, content in driver_stubs(headers, machine).items():
        (stubs / name).write_bytes(content)
    return stubs


def exported(library: Path) -> list[str]:
    """The names that *library* exports, in C's order; all must be functions."""
    *_, table = run(["readelf", "--dyn-syms", "--wide", library]).partition(" UND \n")  # the first is no symbol
    symbols = [line.split() for line in table.splitlines()]
    assert {tuple(symbol[3:7]) for symbol in symbols} == {("FUNC", "GLOBAL", "DEFAULT", "1")}
    return sorted(symbol[7] for symbol in symbols)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_stubs_export_every_spelling_of_every_function_and_nothing_else(
    tmp_path: Path, headers: dict[str, str], machine: str
) -> None:
    stubs = write(tmp_path, headers, machine)
    assert exported(stubs / "libcuda.so") == sorted(["cuGLInit", *CUDA.split()])
    assert exported(stubs / "libnvidia-ml.so") == NVML.split()
    for name in LIBRARIES:
        description = run(["readelf", "--all", "--wide", stubs / name])  # with its complaints
        assert f"Library soname: [{name}.1]" in description
        assert {"x86_64": "X86-64", "aarch64": "AArch64"}[machine] in description
        assert not re.search("warning|error:|RWE", description, re.IGNORECASE)
        sections = re.findall(r"\] (\.\S+) +\w+ +([0-9a-f]{16}) [0-9a-f]+ ([0-9a-f]+)", description)
        assert all(int(address, 16) % 16 == 0 for _, address, _ in sections)
        (strings,) = (int(size, 16) for section, _, size in sections if section == ".dynstr")
        assert re.search(rf"\(STRSZ\) +{strings} ", description)


def test_there_is_a_stub_for_what_there_is_a_header_of(tmp_path: Path, headers: dict[str, str]) -> None:
    assert driver_stubs(headers, "riscv64") == {}
    assert driver_stubs({}, HERE) == {}
    assert driver_stubs({"cudaGL.h": headers["cudaGL.h"]}, HERE) == {}
    without_gl = driver_stubs({"cuda.h": headers["cuda.h"]}, HERE)
    assert list(without_gl) == ["libcuda.so"]
    assert b"cuGLInit" not in without_gl["libcuda.so"]
    Path(headers["cudaGL.h"]).write_text("")
    assert driver_stubs({"cuda.h": headers["cudaGL.h"]}, HERE) == {}
    assert list(driver_stubs({**headers, "cuda.h": str(tmp_path / "dangling")}, HERE)) == ["libnvidia-ml.so"]


@pytest.mark.parametrize(("machine", "linker"), linkers())
def test_a_program_is_linked_with_the_stubs_and_fails_without_the_driver(
    tmp_path: Path, headers: dict[str, str], machine: str, linker: str
) -> None:
    stubs, program = write(tmp_path, headers, machine), tmp_path / "program"
    (tmp_path / "program.c").write_text(PROGRAM)
    (tmp_path / "ld").symlink_to(shutil.which(linker) or linker)  # what every gcc looks for
    gcc = "gcc" if machine == HERE else f"{machine}-linux-gnu-gcc"
    start = [] if machine == HERE else [f"qemu-{machine}", "-L", f"/usr/{machine}-linux-gnu"]
    link = [gcc, f"-B{tmp_path}", "-Wl,--no-undefined,--fatal-warnings", f"-I{tmp_path}/include", "-Wno-deprecated"]
    libraries = [f"-L{stubs}", "-lcuda", "-lnvidia-ml"]
    for options in (["-fPIE", "-pie"], ["-fno-PIE", "-no-pie"], ["-fPIE", "-pie", "-Wl,-z,now"]):
        run([*link, *options, tmp_path / "program.c", "-o", program, *libraries])
        needed = re.findall(r"NEEDED.*\[(.*)\]", run(["readelf", "-d", program]))
        assert {"libcuda.so.1", "libnvidia-ml.so.1"} < set(needed)

        # Not even with the stubs in the loader's path.
        environ = {**os.environ, "LD_LIBRARY_PATH": str(stubs)}
        done = subprocess.run([*start, program], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 127
        assert re.search(r"lib(cuda|nvidia-ml)\.so\.1: cannot open shared object file", done.stderr)

        # Only who gives them the driver's names loads them, and gets an error from each function.
        for name in LIBRARIES:
            (stubs / f"{name}.1").symlink_to(name)
        assert run([*start, program], env=environ) == f"34 34 12 {TEXT.rstrip(bytes(1)).decode()}"
        for name in LIBRARIES:
            (stubs / f"{name}.1").unlink()

    (tmp_path / "program.c").write_text("int cuMisspelt(void); int main(void) { return cuMisspelt(); }")
    with pytest.raises(AssertionError, match="cuMisspelt"):
        run([*link, tmp_path / "program.c", "-o", program, *libraries])


def test_a_stub_that_is_loaded_by_its_path_returns_an_error(tmp_path: Path, headers: dict[str, str]) -> None:
    stubs = write(tmp_path, headers)
    code = f"""
import ctypes
cuda, nvml = ctypes.CDLL("{stubs}/libcuda.so"), ctypes.CDLL("{stubs}/libnvidia-ml.so", ctypes.RTLD_GLOBAL)
nvml.nvmlErrorString.restype = ctypes.c_char_p
print([getattr(cuda, name)(0) for name in "{CUDA}".split()], nvml.nvmlInit_v2(), nvml.nvmlErrorString(0))
print(hasattr(cuda, "cuMisspelt"), hasattr(nvml, "malloc"), hasattr(ctypes.CDLL(None), "nvmlInit"))
"""
    expected = f"{[34] * len(CUDA.split())} 12 {TEXT.rstrip(bytes(1))!r}\nFalse False True\n"
    assert run([sys.executable, "-c", code]) == expected


# What cudaGL.h and others need of other projects.
FOREIGN = {
    "GL/gl.h": "typedef unsigned int GLenum, GLuint;",
    "EGL/egl.h": "typedef int EGLint;",
    "EGL/eglext.h": "typedef void *EGLImageKHR, *EGLStreamKHR, *EGLSyncKHR;",
    "vdpau/vdpau.h": "typedef unsigned int VdpDevice, VdpGetProcAddress, VdpOutputSurface, VdpVideoSurface;",
}
# What a program may define before it includes the headers.
DEFINITIONS: tuple[list[str], ...] = (
    [],
    ["-DCUDA_API_PER_THREAD_DEFAULT_STREAM"],
    ["-D__CUDA_API_VERSION_INTERNAL"],  # NVIDIA's own: the old versions
    ["-DNVML_NO_UNVERSIONED_FUNC_DEFS"],
)
# Exported, and not declared by the headers for C on Linux: Windows' own, and former names that are macros alone.
UNDECLARED = {"cuWGLGetDevice", "nvmlGetBlacklistDeviceCount", "nvmlGetBlacklistDeviceInfoByIndex"}


def installed(directory: Path, offline: dict[str, str], version: str) -> dict[str, str]:
    """The driver's headers, by name, of the components of toolkit *version* that have them."""
    made = VEnv(directory)
    extras = "cudart,nvml,profiler" if version == NEWEST else "cudart"
    made.install(f"cuda-toolkit[{extras}]=={version}", index=offline)
    sources = [source for _, _, sources, _ in LIBRARIES.values() for source in sources]
    return {path.name: str(path) for name in sources for path in made.site.glob(f"nvidia/*/include/{name}")}


@pytest.mark.parametrize("version", ("12.9.1", *TOOLKITS))
def test_whatever_the_headers_declare_can_be_linked(tmp_path: Path, offline: dict[str, str], version: str) -> None:
    headers = installed(tmp_path / "venv", offline, version)
    assert {"cuda.h", "cudaGL.h", "cudaEGL.h", "cudaVDPAU.h"} <= set(headers)
    assert version != NEWEST or {"cudaProfiler.h", "nvml.h"} <= set(headers)
    for name, content in FOREIGN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "all.c").write_text("".join(f'#include "{path}"\n' for path in (*FOREIGN, *headers.values())))
    directories = [f"-I{directory}" for directory in {tmp_path, *(Path(path).parent for path in headers.values())}]
    declared: set[str] = set()
    for definitions in DEFINITIONS:
        prototypes = tmp_path / "prototypes"  # gcc's list of all functions that it has seen a declaration of
        run(["gcc", *definitions, *directories, "-c", tmp_path / "all.c", "-o", "/dev/null", "-aux-info", prototypes])
        found = re.findall(r"^.* extern .*?\b((?:cu|nvml)[A-Z]\w*) \(", prototypes.read_text(), re.MULTILINE)
        assert len(found) > 350
        declared |= set(found)

    stubs = write(tmp_path, headers)
    uses = "".join(f"extern int {name}(void);\n" for name in declared)
    (tmp_path / "uses.c").write_text(f"{uses}int (*all[])(void) = {{{', '.join(declared)}}};\n")
    libraries = [f"-l{path.stem[3:]}" for path in stubs.iterdir()]
    link = ["gcc", "-shared", "-fPIC", "-Wl,--no-undefined", "-o", str(tmp_path / "uses.so")]
    run([*link, tmp_path / "uses.c", f"-L{stubs}", *libraries])

    names = {name for library in stubs.iterdir() for name in exported(library)}
    assert names - UNDECLARED == declared


@pytest.fixture(scope="session")
def bindings(pytestconfig: pytest.Config) -> Path:
    """NVIDIA's Python bindings of the same version, kept in pytest's cache: they load all functions by name."""
    directory = Path(pytestconfig.cache.mkdir("bindings"))
    with FileLock(directory / ".lock"):
        if not list(directory.glob(f"cuda_bindings-{NEWEST}-*.whl")):
            target = ["--platform", "manylinux_2_28_x86_64", "--python-version", "3.13"]  # there for every interpreter
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory)]
            run([*download, "--only-binary", ":all:", *target, f"cuda-bindings=={NEWEST}"])
    (wheel,) = directory.glob(f"cuda_bindings-{NEWEST}-*.whl")
    return wheel


@pytest.mark.parametrize(("module", "library"), [("driver", "libcuda.so"), ("nvml", "libnvidia-ml.so")])
def test_whatever_nvidias_bindings_load_is_there(
    tmp_path: Path, offline: dict[str, str], bindings: Path, module: str, library: str
) -> None:
    with zipfile.ZipFile(bindings) as archive:
        (extension,) = (name for name in archive.namelist() if re.search(rf"/_internal/{module}\.cpython.*\.so$", name))
        content = archive.read(extension)
    # The names to load, and those of the functions that do it: `cuMemAlloc`, `[...].driver._cuMemAlloc_v2`.
    loaded = {match.decode() for match in re.findall(rb"(?:\0|\._)((?:cu|nvml)[A-Z]\w*)(?=\0)", content)}
    assert len(loaded) > 350
    stubs = write(tmp_path, installed(tmp_path / "venv", offline, NEWEST))
    assert loaded - set(exported(stubs / library)) == set()
