"""What is wrong with the toolkit of an environment, as data. Runs on request only."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Union

import cuda_build_activate
from cuda_build_activate import MARKER, ROOT_VARIABLES, UNUSABLE, _toolkit
from cuda_build_activate._activate import Activation, decide, requested_major
from cuda_build_activate._assemble import plan
from cuda_build_activate._toolkit import Toolkit, components, find, minor_version, nvcc_name, versions

# What nvcc opens in the middle of a compilation, and the wheel that has it.
REQUIRED = (
    ("nvvm/bin/cicc", "nvidia-nvvm"),
    ("nvvm/libdevice/libdevice.10.bc", "nvidia-nvvm"),
    ("include/crt/host_config.h", "nvidia-cuda-crt"),
    ("include/cuda_runtime.h", "nvidia-cuda-runtime"),
    ("lib/libcudart_static.a", "nvidia-cuda-runtime"),
    ("lib/libcudadevrt.a", "nvidia-cuda-runtime"),
)
# Lists of directories in which compilers and CMake look before or behind the toolkit's.
SEARCHED = ("CMAKE_PREFIX_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH")
# What nvcc adds to each of its commands.
ADDED_BY_NVCC = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "INCLUDES", "LIBRARIES", "SYSTEM_INCLUDES")
NOT_WRITABLE = "make the environment or the user's cache writable, or set XDG_CACHE_HOME"
SWITCHED = "nothing is activated, whatever toolkit is installed"
UNUSABLE_CHARACTERS = ", ".join(repr(character) for character in sorted(UNUSABLE))
# By the decision's code for why nothing is activated: how severe that is, what comes of it, and what to do.
NOT_ACTIVATED = {
    "switched-off": ("warning", SWITCHED, "unset CUDA_BUILD_ACTIVATE"),
    "bad-switch": ("warning", SWITCHED, "unset CUDA_BUILD_ACTIVATE"),
    "compiler-chosen": (
        "warning",
        "a compiler that you chose wins over the environment's toolkit",
        "unset CUDACXX to use the environment's",
    ),
    "not-displaced": (
        "warning",
        "a toolkit without a compiler does not displace one that is there",
        "list nvcc, or unset what is named",
    ),
    "root-not-writable": ("error", "without nvcc only a toolkit root makes the wheels usable", NOT_WRITABLE),
    "unusable-path": (
        "error",
        f"nvcc, CMake or what reads PATH takes it for something else, as any of {UNUSABLE_CHARACTERS}",
        "put the environment into another directory",
    ),
    "open-to-others": (
        "error",
        "any user of this machine could put programs into the build's PATH",
        "chmod o-w what is named, or make the environment or the user's cache writable for yourself",
    ),
    "too-long": ("error", "processes with such an environment cannot be started", "shorten that variable"),
}
PTH = "hatch_autorun_cuda_build_activate.pth"
KERNEL = """#include <cstdio>
__global__ void kernel(int *result) { *result = 1; }
int main() { int *result; std::printf("%d\\n", cudaMalloc(&result, sizeof *result)); kernel<<<1, 1>>>(result); }
"""
CUBLAS = """#include <cublas_v2.h>
int main() { cublasHandle_t handle; return cublasCreate(&handle); }
"""


class Finding(NamedTuple):
    """One thing that is wrong.

    code: its name, which stays the same. severity: "error" where a build fails or uses another toolkit, "warning" where
    it may. seen: what was found. why: what comes of it. remedy: what to do.
    """

    code: str
    severity: str
    seen: str
    why: str
    remedy: str


def findings(environ: Union[Mapping[str, str], None] = None, paths: Union[Iterable[str], None] = None) -> list[Finding]:
    """What is wrong with the toolkit on *paths*, by default `sys.path`, for *environ*, by default `os.environ`.

    Decides as the startup hook does, and makes the toolkit root if the hook would. An empty list: nothing is wrong.
    """
    this_process = environ is None and paths is None
    environ = os.environ if environ is None else environ
    paths = list(sys.path if paths is None else paths)
    activation = decide(environ, paths)
    toolkit = find(paths, requested_major(environ)[0])
    found = [*_choices(activation), *_components(activation, toolkit)]
    if toolkit and activation.root:
        found += [*_root(activation, toolkit), *_ambient(environ, activation)]
        if toolkit.nvcc:
            found += _host_compiler(environ, activation.root)
    if this_process:
        found += _hook(activation)
    return found


def _choices(activation: Activation) -> Iterator[Finding]:
    if activation.code in NOT_ACTIVATED:
        severity, why, remedy = NOT_ACTIVATED[activation.code]
        yield Finding(activation.code, severity, activation.reason, why, remedy)


def _components(activation: Activation, toolkit: Union[Toolkit, None]) -> Iterator[Finding]:
    if toolkit is None:
        seen = "there is no CUDA toolkit in this environment"
        remedy = 'add "cuda-toolkit[nvcc,cudart,cccl]==13.*" to build-system.requires'
        yield Finding("no-toolkit", "error", seen, "there is nothing to activate", remedy)
    elif toolkit.nvcc:
        yield from _missing(activation, toolkit)
        yield from _mixed(toolkit)
    else:
        yield from _no_compiler(activation, toolkit)


def _has(activation: Activation, toolkit: Toolkit, path: str) -> bool:
    """Whether the root has *path*, or, where none is activated, one of the components."""
    wheels = [os.path.join(entry, directory) for entry in toolkit.entries for directory in components(toolkit)]
    return any(os.path.exists(os.path.join(root, path)) for root in ([activation.root] if activation.root else wheels))


def _no_compiler(activation: Activation, toolkit: Toolkit) -> Iterator[Finding]:
    old = toolkit.major < 13
    if not _has(activation, toolkit, "include/crt/host_defines.h"):
        # nvidia-cuda-nvcc-cu12 has it, without an nvcc.
        remedy = f'add "cuda-toolkit[{"nvcc" if old else "crt"}]=={toolkit.major}.*"'
        seen = "include/crt/host_defines.h is missing"
        yield Finding("missing-components", "error", seen, "cuda_runtime_api.h includes it", remedy)
    if old:
        seen = f"the wheels of CUDA {toolkit.major} contain headers and libraries, and no compiler"
        remedy = "list a CUDA 13 toolkit, or install CUDA and let CUDACXX name its nvcc"
    else:
        seen = f"the CUDA {toolkit.major} toolkit in this environment has no nvcc"
        remedy = f'add "cuda-toolkit[nvcc]=={toolkit.major}.*"'
    yield Finding("no-compiler", "warning", seen, "host code can be compiled, and CUDA code cannot", remedy)


def _missing(activation: Activation, toolkit: Toolkit) -> Iterator[Finding]:
    minor = minor_version(versions(toolkit.entries).get("nvidia_cuda_nvcc", f"{toolkit.major}"))
    wheels = dict.fromkeys(wheel for path, wheel in REQUIRED if not _has(activation, toolkit, path))
    if wheels:
        seen = f"nvcc is there, and what it needs of {', '.join(wheels)} is not"
        remedy = "add " + ", ".join(f'"{wheel}=={minor}.*"' for wheel in wheels)
        yield Finding("missing-components", "error", seen, "nvcc fails in the middle of a compilation", remedy)
    if not _has(activation, toolkit, "bin/crt/link.stub"):  # nvidia-cuda-nvcc 13.0.48
        seen = "bin/crt/link.stub is missing, as in every wheel of CUDA 13.0.0"
        remedy = 'list "cuda-toolkit[nvcc]" from 13.0.3 on'
        yield Finding("missing-link-stub", "error", seen, "nvcc compiles and cannot link", remedy)
    if not _has(activation, toolkit, "include/cccl"):
        remedy = f'add "cuda-toolkit[cccl]=={minor}.*"'
        why = "cuda_fp16.h, cublas_v2.h and others include them"
        yield Finding("missing-cccl", "warning", "CCCL's headers are missing", why, remedy)


def _mixed(toolkit: Toolkit) -> Iterator[Finding]:
    found = versions(toolkit.entries)
    names = ("nvidia_cuda_nvcc", "nvidia_nvvm", "nvidia_cuda_crt", "nvidia_cuda_runtime")
    installed = {name.replace("_", "-"): found[name] for name in names if name in found}
    minors = {minor_version(version) for version in installed.values()}
    if len(minors) > 1 and "nvidia-cuda-nvcc" in installed:
        minor = minor_version(installed["nvidia-cuda-nvcc"])
        seen = "components of different CUDA versions: " + ", ".join(f"{name} {installed[name]}" for name in installed)
        others = [f'"{name}=={minor}.*"' for name, version in installed.items() if minor_version(version) != minor]
        remedy = f'add {", ".join(others)}, or list "cuda-toolkit[nvcc]" from 13.2.1 on, which keeps them together'
        why = "ptxas refuses what a newer nvvm makes (Unsupported .version)"
        yield Finding("mixed-versions", "error", seen, why, remedy)


def _root(activation: Activation, toolkit: Toolkit) -> Iterator[Finding]:
    root = activation.root or ""
    if root == toolkit.wheels and not _toolkit.WINDOWS:
        why = "the wheels' own directory is used: nvcc works, find_package(CUDAToolkit) does not"
        yield Finding("root-not-writable", "error", activation.reason, why, NOT_WRITABLE)
    elif not _toolkit.WINDOWS:
        try:
            places = [place for place in plan(toolkit) if not os.path.exists(os.path.join(root, place))]
        except OSError as error:
            places = [f"what can no longer be read ({error})"]
        if places:
            seen = f"{root} lacks {', '.join(places[:3])}{' and more' if len(places) > 3 else ''}"
            why = "builds miss what is missing there, or what it links to"
            remedy = f"remove {os.path.dirname(root)}, and reinstall what is missing in the wheels"
            yield Finding("root-damaged", "error", seen, why, remedy)


def _ambient(environ: Mapping[str, str], activation: Activation) -> Iterator[Finding]:
    """What in *environ*, once activated, still leads to another toolkit."""
    root = activation.root or ""
    # What the hook has not set in this environment: in a child of an activated build, the build's own changes.
    child = environ.get(MARKER) == root
    seen = shutil.which(nvcc_name(), path=environ.get("PATH") if child else activation.variables["PATH"])
    if activation.rule == 3 and seen != os.path.join(root, "bin", nvcc_name()):
        why = "what looks for nvcc on PATH uses that one, and the rest of the toolkit from here"
        yield Finding("other-nvcc", "error", f"{seen} comes first on PATH", why, f"put {root}/bin before it")
    if child:
        others = {name: environ.get(name) for name in ROOT_VARIABLES if environ.get(name) != root}
        if others:
            seen = ", ".join(f"{name}={value}" if value else f"{name} is unset" for name, value in others.items())
            why = "some tools take one toolkit, some the other"
            yield Finding("other-root", "error", seen, why, f"leave them all at {root}")
    for name in SEARCHED:
        for directory in environ.get(name, "").split(os.pathsep):
            if directory and not directory.startswith(root) and _holds_a_toolkit(directory):
                why = "what this environment lacks is taken from there"
                remedy = f"remove {directory} from {name}, and list what is missing here"
                yield Finding("other-toolkit", "warning", f"{name} has {directory}, another toolkit", why, remedy)
    for name in ADDED_BY_NVCC:
        if environ.get(name):
            why = "nvcc adds it to each of its commands"
            remedy = f"unset {name}, unless it has to be there"
            yield Finding("nvcc-flags", "warning", f"{name}={environ[name]}", why, remedy)


def _holds_a_toolkit(directory: str) -> bool:
    names = ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so", "lib/libcudart.so")
    return any(os.path.exists(os.path.join(directory, name)) for name in (*names, "cuda_runtime.h", "libcudart.so"))


def _host_compiler(environ: Mapping[str, str], root: str) -> Iterator[Finding]:
    if _toolkit.WINDOWS:
        return
    compiler = environ.get("NVCC_CCBIN") or "gcc"
    if os.path.isdir(compiler):
        compiler = os.path.join(compiler, "gcc")
    path = shutil.which(compiler, path=environ.get("PATH"))
    if path is None:
        why = "nvcc compiles host code with it"
        yield Finding("no-host-compiler", "error", f"there is no {compiler} on PATH", why, "install a C++ compiler")
        return
    try:
        with open(os.path.join(root, "include", "crt", "host_config.h"), encoding="utf-8", errors="replace") as header:
            limit = re.search(r"__GNUC__ > (\d+)", header.read())
    except OSError:
        return
    printed = subprocess.run([path, "-dumpfullversion"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"\d+", printed)
    if limit and version and int(version[0]) > int(limit[1]):
        seen = f"{path} is gcc {printed.strip()}, and this nvcc supports up to {limit[1]}"
        remedy = f"install gcc {limit[1]} and let NVCC_CCBIN name it"
        yield Finding("host-compiler-too-new", "error", seen, "nvcc refuses it (unsupported GNU version)", remedy)


def _hook(activation: Activation) -> Iterator[Finding]:
    """Whether this interpreter's startup file did its work; where not, why."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(cuda_build_activate.__file__)))
    copies = [entry for entry in sys.path if os.path.isdir(os.path.join(entry, "cuda_build_activate"))]
    if len({os.path.realpath(entry) for entry in copies}) > 1:
        seen = f"cuda_build_activate is in {' and in '.join(copies)}"
        why = "one copy runs for all of these, which may be of another version"
        yield Finding("shadowed", "warning", seen, why, "remove it from the environment that does not need it")
    if sys.flags.ignore_environment and os.environ.get("PYTHONPATH"):
        seen = "PYTHONPATH is set, and -I or -E makes this interpreter ignore it"
        why = "the build environment that pip makes by default depends on it"
        yield Finding("pythonpath-ignored", "warning", seen, why, "do not start Python with -I or -E in a build")
    if activation.root is None or cuda_build_activate.searched or os.environ.get(MARKER) == activation.root:
        return
    pth = os.path.join(here, PTH)
    if sys.flags.no_site:
        seen, remedy = "this interpreter was started with -S", "start it without -S"
    elif not os.path.exists(pth):
        seen, remedy = f"{pth} is missing", "reinstall cuda-build-activate"
    elif _is_hidden(pth):
        seen, remedy = f"{pth} is hidden", "clear its hidden flag (chflags nohidden, attrib -h)"
    else:
        seen, remedy = f"{here} is on sys.path and is no site directory", "install it with pip or uv"
    remedy += ", or call cuda_build_activate.activate()"
    yield Finding("hook-not-processed", "error", seen, "startup files are not processed: nothing is activated", remedy)


def _is_hidden(path: str) -> bool:
    """Whether the site module skips *path* (CPython's gh-113659)."""
    found = os.lstat(path)
    flags = getattr(found, "st_flags", 0) & stat.UF_HIDDEN
    return bool(flags or getattr(found, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_HIDDEN)


def prove(activation: Activation, environ: Mapping[str, str]) -> Iterator[Union[str, Finding]]:
    """Compile, link and inspect small programs in a temporary directory: a line for what passed, or a finding."""
    if activation.rule != 3 or activation.root is None:
        yield Finding("not-compiled", "error", "there is no nvcc to try", activation.reason, "see the other findings")
        return
    nvcc = os.path.join(activation.root, "bin", nvcc_name())
    # What was done, the program, options, and what the file that comes of it holds then.
    steps = [
        (
            "compiled and linked a kernel; its device code is in the program",
            KERNEL,
            ["-cudart", "static"],
            b".nv_fatbin",
        ),
        ("linked the shared runtime", KERNEL, ["-cudart", "shared"], b"libcudart.so."),
    ]
    if os.path.exists(os.path.join(activation.root, "lib64", "libcublas.so")):
        steps.append(("linked cuBLAS", CUBLAS, ["-lcublas"], b"libcublas.so."))
    with tempfile.TemporaryDirectory() as directory:
        for done, source, options, mark in steps:
            with open(os.path.join(directory, "program.cu"), "w", encoding="utf-8") as file:
                file.write(source)
            command = [nvcc, "-o", "program", "program.cu", *options]
            ran = subprocess.run(
                command,
                cwd=directory,
                env={**environ, **activation.variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
            said = f"{' '.join(command)} exited with {ran.returncode}:\n{ran.stdout.rstrip()}"
            if ran.returncode == 0:
                with open(os.path.join(directory, "program"), "rb") as program:
                    if mark in program.read():
                        yield done
                        continue
                said = f"what {' '.join(command)} made has no {mark.decode()}"
            yield Finding(
                "compile-failed", "error", said, "builds in this environment fail so, too", "see what it says"
            )
            return
