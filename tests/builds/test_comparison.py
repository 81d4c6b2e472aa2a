"""The alternatives of docs/understand/comparison.md: each builds the same projects, with the outcome shown there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import MACHINE, PROJECT, STABLE, VEnv, by_default, run, without_cuda
from filelock import FileLock
from test_readme import in_order
from toolkits import MINIMAL, NEWEST, TOOLKITS, minor_version

PAGE = (PROJECT / "docs" / "understand" / "comparison.md").read_text()
TILELANG = "tilelang==0.1.14"
OPT = "/opt/cuda-13.0"  # where the page has the toolkit that is installed on the machine

# By the page's headings. What a project lists besides the toolkit: two packages are made here.
INSTALLED, MODULE = "Installed on the machine", "tilelang's module"
ALTERNATIVES = {
    INSTALLED: "",
    "Only the wheels": "",
    "cuda-pathfinder": "cuda-pathfinder",
    "cmake.prefix": "comparison-prefix",
    MODULE: "",
    "A plain activator": "comparison-plain",
    "This package": "cuda-build-activate",
}
MADE = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "comparison-{}"
version = "1"

{}
"""
PLAIN = """
[tool.hatch.build.targets.wheel.force-include]
"plain_activator.pth" = "plain_activator.pth"
"plain_activator.py" = "plain_activator.py"
"""
PREFIX = """
{}
[tool.hatch.build.targets.wheel]
bypass-selection = true
"""

KERNEL = """
#include <cuda_fp16.h>
__global__ void kernel(int *p) { *p = 1; }
extern "C" int probe() { int *p; return cudaMalloc(&p, sizeof *p); }
"""
HOST = """
#include <cuda_runtime_api.h>
extern "C" int PyInit_probe() { int version; return cudaRuntimeGetVersion(&version); }
"""
CMAKE = """
cmake_minimum_required(VERSION 3.26)
if(DEFINED ENV{{MODULE}})
  include("$ENV{{MODULE}}")
endif()
project(probe LANGUAGES CXX CUDA)
message(STATUS "toolkit = ${{CMAKE_CUDA_COMPILER}}")
{}
install(TARGETS probe LIBRARY DESTINATION .)
"""
FIND_CUDATOOLKIT = """
find_package(CUDAToolkit REQUIRED)
message(STATUS "toolkit = ${CUDAToolkit_LIBRARY_DIR}")
add_library(probe MODULE probe.cpp)
target_link_libraries(probe PRIVATE CUDA::cudart)
"""
FIND_CCCL = """
find_package(CCCL REQUIRED)
message(STATUS "toolkit = ${CCCL_DIR}")
add_library(probe MODULE probe.cu)
target_link_libraries(probe PRIVATE CCCL::CCCL)
"""
SETUP = """
import os
from setuptools import Extension, setup

root = os.environ["CUDA_HOME"]
print("toolkit =", root)
options = {"include_dirs": [f"{root}/include"], "library_dirs": [f"{root}/lib64"], "libraries": ["cudart"]}
setup(name="probe", version="1", ext_modules=[Extension("probe", ["probe.cpp"], **options)])
"""
ASK = """
from cuda import pathfinder
from setuptools import setup

print("nvcc:", pathfinder.find_nvidia_binary_utility("nvcc"))
print("headers:", pathfinder.find_nvidia_header_directory("cudart"))
try:
    cudart = pathfinder.load_nvidia_dynamic_lib("cudart").abs_path
except pathfinder.DynamicLibNotFoundError:
    cudart = None
print("cudart:", cudart)
setup(name="probe", version="1", py_modules=[])
"""
MESON = """
project('probe', 'cpp', version: '1')
cuda = dependency('cuda', modules: ['cudart'])
python = import('python').find_installation()
shared_module(
  'probe', 'probe.cpp', name_prefix: '', dependencies: cuda,
  install: true, install_dir: python.get_install_dir(pure: false),
)
"""
# By the page's names: the backend, and the file that the build is written in.
PROJECTS = {
    "compile": ("scikit_build_core.build", "CMakeLists.txt", CMAKE.format("add_library(probe MODULE probe.cu)")),
    "cudatoolkit": ("scikit_build_core.build", "CMakeLists.txt", CMAKE.format(FIND_CUDATOOLKIT)),
    "cccl": ("scikit_build_core.build", "CMakeLists.txt", CMAKE.format(FIND_CCCL)),
    "setuptools": ("setuptools.build_meta", "setup.py", SETUP),
    "meson": ("mesonpy", "meson.build", MESON),
}
QUESTION = {"ask": ("setuptools.build_meta", "setup.py", ASK)}
BACKENDS = {
    "scikit_build_core.build": ["scikit-build-core", "cmake", "ninja"],
    "setuptools.build_meta": ["setuptools"],
    "mesonpy": ["meson-python", "ninja"],
}
# Why a build may fail: for want of a toolkit, and of nothing else.
FAILURES = (
    "Failed to find nvcc.",
    "Could NOT find CUDAToolkit (missing: CUDA_CUDART)",
    "Could not find _THRUST_VERSION_INCLUDE_DIR",
    'a package configuration file provided by "CCCL"',
    "KeyError: 'CUDA_HOME'",
    "cannot find -lcudart",
    "Couldn't find requested CUDA module 'cudart'",
    "Please specify the desired CUDA Toolkit version",
)
SHARED = {"cudatoolkit", "setuptools", "meson"}  # those that link the shared runtime


class Command(NamedTuple):
    """A build, as the page writes it."""

    project: str
    front_end: str = "uv"
    options: str = ""
    machine: bool = False  # whether a toolkit is installed there
    by_default: bool = False  # with stable paths, which the tests switch off; and with run paths


class Outcome(NamedTuple):
    """Which version of the toolkit built it, or no, and all that was printed; where the toolkit was, and the wheel."""

    version: str
    log: str
    root: str = ""
    wheel: Path | None = None


def section(heading: str) -> str:
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def commands(heading: str) -> list[tuple[str, str]]:
    """The commands in the console blocks of a section, each with what it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)
    return [
        (command, printed)
        for block in blocks
        for command, printed in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block, re.M)
    ]


def parse(command: str) -> Command:
    """What a command of the page's builds."""
    found = re.fullmatch(rf"(PATH={OPT}/bin:\$PATH CUDA_HOME={OPT} )?(?:(uv) build|(pip) wheel) (.*-v )?(\w+)", command)
    assert found, command
    machine, uv, pip, options, project = found.groups()
    return Command(project, uv or pip, (options or "").replace("-v ", "").strip(), bool(machine))


@pytest.fixture(scope="module")
def made_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheels of the two alternatives that are no published packages."""
    directory = tmp_path_factory.mktemp("made")
    (entry_points,) = re.findall(r"^```toml\n(.*?)^```", section("cmake.prefix"), re.MULTILINE | re.DOTALL)
    for name, tables in {"prefix": PREFIX.format(entry_points), "plain": PLAIN}.items():
        project = shutil.copytree(PROJECT / "bench" / "plain", directory / name)
        (project / "pyproject.toml").write_text(MADE.format(name, tables))
        run([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", directory, project])
    return directory


@pytest.fixture(scope="module")
def module(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tilelang's module, out of its source distribution."""
    with FileLock(wheelhouse / ".lock"):
        sdist = wheelhouse / f"{TILELANG.replace('==', '-')}.tar.gz"
        if not sdist.exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "tilelang"]
            run([*command, "--dest", wheelhouse, TILELANG], env=MACHINE)
    directory = tmp_path_factory.mktemp("tilelang")
    with tarfile.open(sdist) as archive:
        for member in archive:
            if re.fullmatch(r"[^/]*/cmake/\w*pip_?cuda\w*\.\w+", member.name, re.IGNORECASE):
                content = archive.extractfile(member)
                assert content
                (directory / Path(member.name).name).write_bytes(content.read())
    return directory / "FindPipCUDAToolkit.cmake"


@pytest.fixture(scope="module")
def installed(offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A toolkit as an installer makes it, of another version than the projects list."""
    directory = tmp_path_factory.mktemp("installed")
    made = VEnv(directory / "venv")
    made.install("cuda-build-activate", f"cuda-toolkit[nvcc,cudart,cccl]=={TOOLKITS[0]}", index=offline)
    made.start()
    run(["cp", "-rlL", made.root, directory / "cuda"])  # no links to the wheels: cuda-pathfinder resolves them
    shutil.rmtree(made.path)
    yield directory / "cuda"
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def pip(offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> VEnv:
    """An environment of nothing but pip."""
    made = VEnv(tmp_path_factory.mktemp("pip") / "venv")
    made.install("pip", index=offline)
    return made


@pytest.fixture(scope="module")
def build(
    offline: dict[str, str],
    made_here: Path,
    module: Path,
    installed: Path,
    pip: VEnv,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Command], Outcome]:
    """Build a project with an alternative, in isolation, on a machine without CUDA; each only once."""
    front_ends = {
        "uv": [sys.executable, "-m", "uv", "build", "--wheel", "--verbose", "--out-dir"],
        "pip": [f"{pip.python}", "-m", "pip", "wheel", "--no-cache-dir", "--no-deps", "--verbose", "--wheel-dir"],
    }
    outcomes: dict[tuple[str, Command], Outcome] = {}

    def outcome(alternative: str, command: Command) -> Outcome:
        directory = tmp_path_factory.mktemp("project")
        backend, file, text = {**PROJECTS, **QUESTION}[command.project]
        for name, content in {file: text, "probe.cu": KERNEL, "probe.cpp": HOST}.items():
            (directory / name).write_text(content)
        requires = [*BACKENDS[backend], MINIMAL, *filter(None, [ALTERNATIVES[alternative]])]
        (directory / "pyproject.toml").write_text(
            f"[build-system]\nrequires = {requires}\nbuild-backend = '{backend}'\n"
            "[project]\nname = 'probe'\nversion = '1'\n"
        )
        environ = {**os.environ, **offline}
        environ["PIP_FIND_LINKS"] += f" {made_here}"
        environ["UV_FIND_LINKS"] += f",{made_here}"
        if command.machine:
            environ |= {"CUDA_HOME": str(installed), "PATH": f"{installed}/bin{os.pathsep}{environ['PATH']}"}
        if alternative == MODULE:
            environ["MODULE"] = str(module)
        if command.by_default:
            environ = {**by_default(environ), "CUDA_BUILD_ACTIVATE_RPATH": "relative"}
        done = subprocess.run(
            [
                *without_cuda(),
                *front_ends[command.front_end],
                directory / "out",
                *command.options.split(),
                directory,
            ],
            env=environ,
            capture_output=True,
            check=False,
        )
        log = (done.stdout + done.stderr).decode(errors="replace").replace(str(installed), OPT)
        if done.returncode:
            assert any(failure in log for failure in FAILURES), log
        if done.returncode or command.project in QUESTION:
            return Outcome("no", log)
        (root,) = {
            re.sub(r"(/targets/[\w-]+)?/(bin/nvcc|lib(64)?(/cmake/cccl)?)$", "", found)
            for found in re.findall(r"(?:toolkit = |dependency CUDA .*found: YES \S+ \()([^\s)]+)", log)
        }
        (wheel,) = (directory / "out").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (binary,) = (archive.extract(name, directory) for name in archive.namelist() if name.endswith(".so"))
        assert ("libcudart.so.13" in run(["readelf", "-d", binary])) == (command.project in SHARED)
        if root == OPT:
            return Outcome(minor_version(TOOLKITS[0]), log, root, wheel)
        places = STABLE if command.by_default else r".*/site-packages/(nvidia|cuda-build-activate)/cu13"
        assert re.fullmatch(places, root)
        assert not Path(root).exists(), "the root outlived its build environment"
        return Outcome(minor_version(NEWEST), log, root, wheel)

    def once(alternative: str, command: Command) -> Outcome:
        if (alternative, command) not in outcomes:
            outcomes[alternative, command] = outcome(alternative, command)
        return outcomes[alternative, command]

    return once


Build = Callable[[str, Command], Outcome]


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_what_works(alternative: str, build: Build) -> None:
    """The row of the page's table."""
    row, *_ = re.findall(rf"^\| \[{re.escape(alternative)}\]\(.*?\) \| (.*) \|$", PAGE, re.MULTILINE)
    builds = [Command(name, machine=alternative == INSTALLED) for name in PROJECTS]
    builds.append(Command("compile", machine=True))
    assert row.split(" | ") == [build(alternative, command).version for command in builds]


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_the_commands(alternative: str, build: Build) -> None:
    """Each build of the section prints what the page shows."""
    shown = [
        (command, printed) for command, printed in commands(alternative) if re.search("uv build|pip wheel", command)
    ]
    assert shown
    for command, printed in shown:
        in_order(printed, build(alternative, parse(command)).log)


def loads_elsewhere(wheel: Path, offline: dict[str, str], directory: Path) -> str:
    """Whether the library loads where the runtime's wheel is installed beside it, and no other CUDA is."""
    venv = VEnv(directory / "venv")
    venv.prefix = without_cuda()
    venv.install(wheel, f"nvidia-cuda-runtime=={minor_version(NEWEST)}.*", index=offline)
    (library,) = venv.site.glob("*.so")
    done = venv.start(f"import ctypes; ctypes.CDLL({str(library)!r})")
    assert done.returncode == 0 or "libcudart.so.13: cannot open shared object file" in done.stderr
    return "no" if done.returncode else "yes"


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_what_comes_after_the_compiler(alternative: str, build: Build, offline: dict[str, str], tmp_path: Path) -> None:
    """The first two columns of the page's second table; test_torch.py has the third."""
    ours = alternative == "This package"
    first = build(alternative, Command("compile", machine=alternative == INSTALLED))
    second = build(alternative, Command("cudatoolkit", machine=alternative == INSTALLED, by_default=ours))
    # Of two builds, each in an environment of its own; ours has the stable path only by default.
    roots = {
        re.sub("/bin/nvcc$", "", found) for found in re.findall(r"toolkit = (\S+nvcc)$", first.log + second.log, re.M)
    }
    path = "none" if not roots else "same" if len(roots) == 1 or ours else "random"
    loads = "not built"
    if second.wheel:
        loads = loads_elsewhere(second.wheel, offline, tmp_path)
    (row,) = re.findall(rf"^\| {re.escape(alternative)} \| (same|random|none) \| ([\w ]+) \|", PAGE, re.MULTILINE)
    assert row == (path, loads)


@pytest.mark.parametrize("alternative", ["cmake.prefix", MODULE, "A plain activator", "This package"])
def test_pip_as_uv(alternative: str, build: Build) -> None:
    by_uv, by_pip = (build(alternative, Command("cudatoolkit", front_end)).version for front_end in ("uv", "pip"))
    assert by_pip == by_uv


def test_no_wheel_has_the_debugger_or_a_profiler(wheelhouse: Path) -> None:
    programs = set()
    for wheel in wheelhouse.glob("nvidia_*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            programs |= {Path(name).name for name in archive.namelist() if "/bin/" in name}
    assert {"nvcc", "compute-sanitizer"} <= programs
    assert not programs & {"cuda-gdb", "ncu", "nsys", "nsight-compute", "nsight-systems"}


def test_what_the_module_writes(module: Path, offline: dict[str, str], tmp_path: Path) -> None:
    made = VEnv(tmp_path / "venv")
    made.install(MINIMAL, index=offline)
    wheels = made.site / "nvidia" / "cu13"
    before = set(wheels.rglob("*"))
    run([made.python, module.with_name("find_pip_cuda.py")])
    written = {str(path.relative_to(wheels)) for path in set(wheels.rglob("*")) - before if not path.is_dir()}
    written |= {path.name for path in wheels.iterdir() if path.is_symlink()}
    assert written == {"lib64", "lib/libcudart.so", "lib/libnvvm.so", "lib/stubs/libcuda.so"}
    ((command, printed),) = [(command, printed) for command, printed in commands(MODULE) if command.startswith("nm ")]
    in_order(printed, run([*command.split()[:-1], made.site / command.split()[-1]]))
    assert all(f"`{path}`" in section(MODULE) for path in written)


def test_every_command_is_run_but_for_debians() -> None:
    for heading in re.findall(r"^## (.*)", PAGE, re.MULTILINE):
        for command, _ in commands(heading):
            assert heading in ALTERNATIVES
            assert re.search("uv build|pip wheel", command) or command.startswith(("nm ", "apt-cache "))
