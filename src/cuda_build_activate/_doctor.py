"""What is wrong with an environment's toolkit, as data. Runs only on request."""

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
from cuda_build_activate import MARKER, ROOT_VARIABLES, STABLE, UNUSABLE, _toolkit
from cuda_build_activate._activate import Activation, decide, requested_major, requested_run_paths
from cuda_build_activate._assemble import plan
from cuda_build_activate._toolkit import (
    COMPONENTS,
    PRODUCTS,
    Toolkit,
    components,
    find,
    minor_version,
    nvcc_name,
    toolkit_version,
    versions,
)

# What nvcc opens during a compilation, and the wheel that has it.
REQUIRED = (
    ("nvvm/bin/cicc", "nvidia-nvvm"),
    ("nvvm/libdevice/libdevice.10.bc", "nvidia-nvvm"),
    ("include/crt/host_config.h", "nvidia-cuda-crt"),
    ("include/cuda_runtime.h", "nvidia-cuda-runtime"),
    ("lib/libcudart_static.a", "nvidia-cuda-runtime"),
    ("lib/libcudadevrt.a", "nvidia-cuda-runtime"),
)
WINDOWS_REQUIRED = (
    ("nvvm/bin/cicc.exe", "nvidia-nvvm"),
    ("nvvm/libdevice/libdevice.10.bc", "nvidia-nvvm"),
    ("include/crt/host_config.h", "nvidia-cuda-crt"),
    ("include/cuda_runtime.h", "nvidia-cuda-runtime"),
    ("lib/{machine}/cudart_static.lib", "nvidia-cuda-runtime"),
    ("lib/{machine}/cudadevrt.lib", "nvidia-cuda-runtime"),
)
COMPILER = "nvidia_cuda_nvcc"
# What must have the compiler's minor version, and what happens if it does not.
PTXAS = "ptxas refuses the output of a newer nvvm (Unsupported .version)"
MIXED = {
    "nvidia_nvvm": PTXAS,
    "nvidia_cuda_crt": PTXAS,
    "nvidia_cuda_runtime": "CCCL refuses its headers (CUDA compiler and CUDA toolkit headers are incompatible)",
}
_MAJOR = re.compile(r"-cu(\d+)$")
FIRST_TORCH = "2.13"  # from here on, PyTorch requires a toolkit release whose components match
# Lists of directories that compilers and CMake search besides the toolkit's.
SEARCHED = ("CMAKE_PREFIX_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH")
WINDOWS_SEARCHED = ("CMAKE_PREFIX_PATH", "INCLUDE", "LIB")
# What nvcc adds to each command that it runs.
ADDED_BY_NVCC = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "INCLUDES", "LIBRARIES", "SYSTEM_INCLUDES")
NOT_WRITABLE = "make the environment or the user's cache writable, or set XDG_CACHE_HOME to a writable directory"
NO_HARD_LINKS = "put the environment in a directory that you can write to, on a volume with hard links (NTFS)"
SWITCHED = "nothing is activated, whatever toolkit is installed"
UNUSABLE_TEXT = "';', '%NAME%'" if _toolkit.WINDOWS else ", ".join(repr(character) for character in sorted(UNUSABLE))
# For each code of the decision for why nothing is activated: its severity, why it matters, and what to do.
NOT_ACTIVATED = {
    "switched-off": ("warning", SWITCHED, "unset CUDA_BUILD_ACTIVATE"),
    "bad-switch": ("warning", SWITCHED, "unset CUDA_BUILD_ACTIVATE, or set it to 0, 1 or a CUDA major version"),
    "compiler-chosen": (
        "warning",
        "a compiler that you chose wins over the environment's toolkit",
        "to use the environment's, unset CUDACXX",
    ),
    "not-displaced": (
        "warning",
        "a toolkit without a compiler does not displace another one",
        'list "cuda-toolkit[nvcc]==13.*", or unset the variable named above, or take that nvcc off PATH',
    ),
    "root-not-writable": ("error", "without nvcc, the wheels are usable only through a toolkit root", NOT_WRITABLE),
    "unusable-path": (
        "error",
        f"nvcc, CMake or programs that read PATH misread each of these: {UNUSABLE_TEXT}",
        "put the environment in a directory whose path has none of these",
    ),
    "open-to-others": (
        "error",
        "any user of this machine could put programs into the build's PATH",
        "run chmod o-w on that directory, or make the environment or the user's cache writable for yourself",
    ),
    "too-long": ("error", "no process can start with such a long variable", "shorten that variable"),
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

    code: its name, which never changes. severity: "error" if a build fails or uses another toolkit, "warning" if it
    may. seen: what was found. why: why it matters. remedy: what to do.
    """

    code: str
    severity: str
    seen: str
    why: str
    remedy: str


def findings(environ: Union[Mapping[str, str], None] = None, paths: Union[Iterable[str], None] = None) -> list[Finding]:
    """What is wrong with the toolkit on *paths* (default: `sys.path`) for *environ* (default: `os.environ`).

    Decides as the startup hook does, and makes the toolkit root if the hook would. Returns [] if nothing is wrong.
    """
    this_process = environ is None and paths is None
    environ = os.environ if environ is None else environ
    paths = list(sys.path if paths is None else paths)
    activation = decide(environ, paths)
    toolkit = find(paths, requested_major(environ)[0])
    found = [*_choices(activation), *_components(activation, toolkit)]
    if toolkit:
        found += _built_with_another(toolkit, torch_in(paths))
    if toolkit and activation.root:
        found += [*_root(activation, toolkit), *_ambient(environ, activation)]
        if activation.no_stable_path:
            why = "compile caches do not find what was compiled in another environment"
            remedy = f"fix that, or set {STABLE} to a directory that only you can use, or to off"
            found.append(Finding("no-stable-path", "warning", activation.no_stable_path, why, remedy))
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
    """Whether the activated root has *path*, for any machine; without a root, whether a component has it."""
    wheels = [os.path.join(entry, directory) for entry in toolkit.entries for directory in components(toolkit)]
    return any(
        os.path.exists(os.path.join(root, path.format(machine=machine)))
        for root in ([activation.root] if activation.root else wheels)
        for machine in ("x64", "arm64")
    )


def _no_compiler(activation: Activation, toolkit: Toolkit) -> Iterator[Finding]:
    old = toolkit.major < 13
    if not _has(activation, toolkit, "include/crt/host_defines.h"):
        # In CUDA 12, nvidia-cuda-nvcc-cu12 has it, though no nvcc.
        remedy = f'add "cuda-toolkit[{"nvcc" if old else "crt"}]=={toolkit.major}.*"'
        seen = "include/crt/host_defines.h is missing"
        yield Finding("missing-components", "error", seen, "cuda_runtime_api.h includes it", remedy)
    if old:
        seen = f"the wheels of CUDA {toolkit.major} contain headers and libraries, but no compiler"
        remedy = "list a CUDA 13 toolkit, or install CUDA and set CUDACXX to its nvcc"
    else:
        seen = f"the CUDA {toolkit.major} toolkit in this environment has no nvcc"
        remedy = f'add "cuda-toolkit[nvcc]=={toolkit.major}.*"'
    yield Finding("no-compiler", "warning", seen, "host code can be compiled, but not CUDA code", remedy)


def _missing(activation: Activation, toolkit: Toolkit) -> Iterator[Finding]:
    minor = minor_version(versions(toolkit.entries).get("nvidia_cuda_nvcc", f"{toolkit.major}"))
    required = WINDOWS_REQUIRED if _toolkit.WINDOWS else REQUIRED
    wheels = dict.fromkeys(wheel for path, wheel in required if not _has(activation, toolkit, path))
    if wheels:
        seen = f"nvcc is installed, but not what it needs from {', '.join(wheels)}"
        remedy = "add " + ", ".join(f'"{wheel}=={minor}.*"' for wheel in wheels)
        yield Finding("missing-components", "error", seen, "nvcc fails during compilation", remedy)
    if not _has(activation, toolkit, "bin/crt/link.stub"):  # nvidia-cuda-nvcc 13.0.48
        seen = "bin/crt/link.stub is missing, as in every wheel of CUDA 13.0.0"
        remedy = 'list "cuda-toolkit[nvcc]>=13.0.3,==13.*"'
        yield Finding("missing-link-stub", "error", seen, "nvcc can compile, but not link", remedy)
    if not _has(activation, toolkit, "include/cccl/thrust"):
        remedy = f'add "cuda-toolkit[cccl]=={minor}.*"'
        why = "cuda_fp16.h, cublas_v2.h and others include them"
        yield Finding("missing-cccl", "warning", "CCCL's headers are missing", why, remedy)


def _mixed(toolkit: Toolkit) -> Iterator[Finding]:
    found = versions(toolkit.entries)
    installed = {name.replace("_", "-"): found[name] for name in (COMPILER, *MIXED) if name in found}
    if COMPILER not in found:
        return
    minor = minor_version(found[COMPILER])
    others = [name for name in MIXED if name in found and minor_version(found[name]) != minor]
    if others:
        seen = "components of different CUDA versions: " + ", ".join(f"{name} {installed[name]}" for name in installed)
        why = "; ".join(dict.fromkeys(MIXED[name] for name in others))
        remedy = f'list "{_extra(minor)}", whose components match, or add ' + ", ".join(
            f'"{name.replace("_", "-")}=={minor}.*"' for name in others
        )
        yield Finding("mixed-versions", "error", seen, why, remedy)


def _extra(minor: str) -> str:
    """The requirement for the compiler, the runtime and CCCL of one minor version."""
    if int(minor.partition(".")[0]) < 13:
        return f"cuda-toolkit[nvcc,cudart,cccl]=={minor}.*"
    return f"cuda-build-activate[cu{minor.replace('.', '')}]"


class Torch(NamedTuple):
    """An installed PyTorch: its version, and that of the CUDA that it was built with; empty if without CUDA."""

    version: str
    cuda: str


def torch_in(paths: Iterable[str]) -> Union[Torch, None]:
    """The PyTorch on *paths*, from its version.py; None if there is none. Imports nothing."""
    for entry in paths:
        try:
            with open(os.path.join(entry, "torch", "version.py"), encoding="utf-8", errors="replace") as file:
                described = file.read()
        except (OSError, ValueError):
            continue
        assigned = dict(re.findall(r"""^(__version__|cuda)\b[^=\n]*=\s*['"]([^'"]*)""", described, re.MULTILINE))
        return Torch(assigned.get("__version__", ""), assigned.get("cuda", ""))
    return None


def _built_with_another(toolkit: Toolkit, torch: Union[Torch, None]) -> Iterator[Finding]:
    """What in this environment was built with another CUDA than *toolkit*, or with none."""
    installed = versions(toolkit.entries)
    version = toolkit_version(toolkit, installed) or f"{toolkit.major}"
    if torch and not torch.cuda:
        seen = f"PyTorch {torch.version} was built without CUDA"
        why = "CUDA extensions for it cannot be linked: it has no libc10_cuda.so and no libtorch_cuda.so"
        yield Finding("torch-without-cuda", "warning", seen, why, f"install a PyTorch for CUDA {toolkit.major}")
    elif torch and minor_version(torch.cuda) != minor_version(version):
        seen = f"PyTorch {torch.version} was built with CUDA {torch.cuda}, but this toolkit is CUDA {version}"
        if torch.cuda.startswith(f"{toolkit.major}."):
            why = "torch.utils.cpp_extension warns about it, and what it builds uses both versions"
            yield Finding("torch-of-another-cuda", "warning", seen, why, f'list "{_extra(minor_version(torch.cuda))}"')
        else:
            why = "torch.utils.cpp_extension refuses to build with it (The detected CUDA version mismatches)"
            remedy = f'list "torch>={FIRST_TORCH}", and "cuda-toolkit[cccl,nvcc]" without a version: torch requires one'
            yield Finding("torch-of-another-cuda", "error", seen, why, remedy)
        return
    # Other wheels are for both: nvidia-cutlass-dsl-libs-cu12 comes with nvidia-cutlass-dsl-libs-cu13.
    libraries = {_MAJOR.sub("", row.seen.partition(" ")[0]) for row in (*COMPONENTS, *PRODUCTS)}
    names = [name.replace("_", "-") for name in installed]
    others = [
        name
        for name in names
        if (major := _MAJOR.search(name)) and int(major[1]) != toolkit.major and _MAJOR.sub("", name) in libraries
    ]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        seen = f"{', '.join(others[:3])}{more} installed beside a CUDA {toolkit.major} toolkit"
        why = "something here was built with another CUDA; a process that loads it and what you build mixes the two"
        remedy = f"see what requires it (python -m pip show {others[0]}), and install that for CUDA {toolkit.major}"
        yield Finding("other-wheels", "warning", seen, why, remedy)


def _root(activation: Activation, toolkit: Toolkit) -> Iterator[Finding]:
    root = activation.root or ""
    if root == toolkit.wheels and _toolkit.WINDOWS:
        why = "the wheels' own directory is used: DLLs without an import library cannot be linked, nor CCCL be found"
        yield Finding("root-not-writable", "warning", activation.reason, why, NO_HARD_LINKS)
    elif root == toolkit.wheels:
        why = "the wheels' own directory is used: nvcc works, but find_package(CUDAToolkit) and run paths do not"
        yield Finding("root-not-writable", "error", activation.reason, why, NOT_WRITABLE)
    else:
        try:
            places = [place for place in plan(toolkit) if not os.path.exists(os.path.join(root, place))]
        except OSError as error:
            places = [f"files that can no longer be read ({error})"]
        if places:
            seen = f"{root} lacks {', '.join(places[:3])}{' and more' if len(places) > 3 else ''}"
            why = "builds do not find these, or what they link to"
            remedy = f"remove {os.path.dirname(activation.own_root or root)}, and reinstall wheels that lack files"
            yield Finding("root-damaged", "error", seen, why, remedy)


def _ambient(environ: Mapping[str, str], activation: Activation) -> Iterator[Finding]:
    """What in *environ*, once activated, still leads to another toolkit."""
    root = activation.root or ""
    # In a child of an activated build the hook sets nothing: look at what the build has changed.
    child = environ.get(MARKER) == root
    seen = shutil.which(nvcc_name(), path=environ.get("PATH") if child else activation.variables["PATH"])
    if activation.rule == 3 and seen != os.path.join(root, "bin", nvcc_name()):
        why = "tools that look for nvcc on PATH do not use this toolkit's"
        seen = f"{seen} comes first on PATH" if seen else "PATH has no nvcc"
        yield Finding("other-nvcc", "error", seen, why, f"put {root}/bin first on PATH")
    if child:
        others = {name: environ.get(name) for name in ROOT_VARIABLES if environ.get(name) != root}
        if others:
            seen = ", ".join(f"{name}={value}" if value else f"{name} is unset" for name, value in others.items())
            why = "some tools use one toolkit, some the other"
            yield Finding("other-root", "error", seen, why, f"set them all to {root}")
    for name in WINDOWS_SEARCHED if _toolkit.WINDOWS else SEARCHED:
        for directory in environ.get(name, "").split(os.pathsep):
            inside = os.path.join(directory, "").startswith(os.path.join(root, ""))
            if directory and not inside and _holds_a_toolkit(directory):
                why = "builds take from there what this environment lacks"
                remedy = f"remove {directory} from {name}, and list what this environment lacks"
                yield Finding("other-toolkit", "warning", f"{name} has another toolkit, {directory}", why, remedy)
    complaint = requested_run_paths(environ)[1]
    if complaint:
        why = "what you build is not told where to find the toolkit's libraries"
        yield Finding("no-run-paths", "warning", complaint, why, "set it to relative or absolute, or unset it")
    for name in ADDED_BY_NVCC:
        if environ.get(name):
            why = "nvcc adds it to each command that it runs"
            remedy = f"unset {name}, unless you need it"
            yield Finding("nvcc-flags", "warning", f"{name}={environ[name]}", why, remedy)


def _holds_a_toolkit(directory: str) -> bool:
    if _toolkit.WINDOWS:
        libraries = ("lib/x64/cudart.lib", "lib/arm64/cudart.lib", "cudart.lib")
    else:
        libraries = ("lib64/libcudart.so", "lib/libcudart.so", "libcudart.so")
    names = (f"bin/{nvcc_name()}", "include/cuda_runtime.h", "cuda_runtime.h", *libraries)
    return any(os.path.exists(os.path.join(directory, name)) for name in names)


def _host_compiler(environ: Mapping[str, str], root: str) -> Iterator[Finding]:
    name = "cl.exe" if _toolkit.WINDOWS else "gcc"
    compiler = environ.get("NVCC_CCBIN") or name
    if os.path.isdir(compiler):
        compiler = os.path.join(compiler, name)
    path = shutil.which(compiler, path=environ.get("PATH"))
    if path is None:
        why = "nvcc compiles host code with it"
        remedy = "build in a Visual Studio developer prompt" if _toolkit.WINDOWS else "install a C++ compiler"
        yield Finding("no-host-compiler", "error", f"there is no {compiler} on PATH", why, remedy)
    if path is None or _toolkit.WINDOWS:
        return
    try:
        with open(os.path.join(root, "include", "crt", "host_config.h"), encoding="utf-8", errors="replace") as header:
            limit = re.search(r"__GNUC__ > (\d+)", header.read())
    except OSError:
        return
    printed = subprocess.run([path, "-dumpfullversion"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"\d+", printed)
    if limit and version and int(version[0]) > int(limit[1]):
        seen = f"{path} is gcc {printed.strip()}, but this nvcc supports gcc {limit[1]} at most"
        remedy = f"install gcc {limit[1]}, and set NVCC_CCBIN=g++-{limit[1]}"
        yield Finding("host-compiler-too-new", "error", seen, "nvcc refuses it (unsupported GNU version)", remedy)


def _hook(activation: Activation) -> Iterator[Finding]:
    """What is wrong with this package's copies in this interpreter, and why its startup file did not run."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(cuda_build_activate.__file__)))
    copies = [entry for entry in sys.path if os.path.isdir(os.path.join(entry, "cuda_build_activate"))]
    if len({os.path.realpath(entry) for entry in copies}) > 1:
        seen = f"cuda_build_activate is installed in {' and in '.join(copies)}"
        why = "one copy runs for all of them, and it may be of another version"
        yield Finding("shadowed", "warning", seen, why, "remove it from the environment that does not need it")
    if sys.flags.ignore_environment and os.environ.get("PYTHONPATH"):
        seen = "PYTHONPATH is set, but this interpreter ignores it because of -I or -E"
        why = "pip's default build environment depends on it"
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
        seen, remedy = f"{here} is on sys.path, but is not a site directory", "install it with pip or uv"
    remedy += ", or call cuda_build_activate.activate()"
    yield Finding("hook-not-processed", "error", seen, "startup files are not processed: nothing is activated", remedy)


def _is_hidden(path: str) -> bool:
    """Whether the site module skips *path* (CPython's gh-113659)."""
    found = os.lstat(path)
    flags = getattr(found, "st_flags", 0) & stat.UF_HIDDEN
    return bool(flags or getattr(found, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_HIDDEN)


def prove(activation: Activation, environ: Mapping[str, str]) -> Iterator[Union[str, Finding]]:
    """Compile, link and inspect small programs in a temporary directory: a line for each that passes, or a finding."""
    if activation.rule != 3 or activation.root is None:
        yield Finding("not-compiled", "error", "there is no nvcc to try", activation.reason, "see the other findings")
        return
    nvcc = os.path.join(activation.root, "bin", nvcc_name())
    if _toolkit.WINDOWS:  # names of sections have eight bytes there, and CUDA 13's shared runtime is the driver's
        program, fatbin, cublas = "program.exe", b".nv_fatb", b"cublas64_"
        runtime, cudart = "hybrid", b"nvcudart_hybrid64.dll"
    else:
        program, fatbin, cublas = "program", b".nv_fatbin", b"libcublas.so."
        runtime, cudart = "shared", b"libcudart.so."
    # What passed, the source, nvcc's options, and what the program then contains.
    steps = [
        ("compiled and linked a kernel; its device code is in the program", KERNEL, ["-cudart", "static"], fatbin),
        (f"linked the {runtime} runtime", KERNEL, ["-cudart", runtime], cudart),
    ]
    libraries = ("lib64/libcublas.so", "lib/x64/cublas.lib", "lib/arm64/cublas.lib")
    if any(os.path.exists(os.path.join(activation.root, library)) for library in libraries):
        steps.append(("linked cuBLAS", CUBLAS, ["-lcublas"], cublas))
    with tempfile.TemporaryDirectory() as directory:
        for done, source, options, mark in steps:
            with open(os.path.join(directory, "program.cu"), "w", encoding="utf-8") as file:
                file.write(source)
            command = [nvcc, "-o", program, "program.cu", *options]
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
                with open(os.path.join(directory, program), "rb") as made:
                    if mark in made.read():
                        yield done
                        continue
                said = f"the program that {' '.join(command)} made has no {mark.decode()}"
            why = "builds in this environment fail in the same way"
            yield Finding("compile-failed", "error", said, why, "see the message above")
            return
