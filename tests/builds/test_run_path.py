"""Run paths, on small made-up toolkits: what is set, and that linkers heed it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import VEnv, make_toolkit, run
from toolkits import MINIMAL

from cuda_build_activate import activate
from cuda_build_activate._run_path import DEEPEST
from cuda_build_activate._shells import undone

RPATH = "CUDA_BUILD_ACTIVATE_RPATH"
LIBRARY = "nvidia/cu13/lib/libcublas.so.13"
PRODUCTS = ("nvidia/nccl/lib", "cutensor/lib")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A toolkit with products, each with a library that can be linked."""
    site = tmp_path / "build" / "site-packages"
    make_toolkit(site)
    for library in (LIBRARY, *(f"{product}/lib{Path(product).parent.name}.so.2" for product in PRODUCTS)):
        (site / library).parent.mkdir(parents=True, exist_ok=True)
        name = Path(library).name.partition(".")[0]
        compiled(site / library, f"int {name}(void) {{ return 7; }}", f"-Wl,-soname,{Path(library).name}")
    for path in site.rglob("*"):  # older than a tick of the file system's clock, so that the root stays
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    return site


def compiled(library: Path, source: str, *options: str, env: dict[str, str] | None = None) -> None:
    """Link *library*, with no more than what gcc is told by *options* and variables."""
    library.parent.mkdir(parents=True, exist_ok=True)
    command = [
        "sh",
        "-ec",
        'printf %s "$1" > "$2.c"; output="$2"; shift 2; gcc -shared -fPIC "$output.c" -o "$output" "$@"',
    ]
    run([*command, "sh", source, library, *options], env=env)


def relative(*directories: str) -> list[str]:
    return [f"$ORIGIN/{'../' * depth}{directory}" for depth in range(DEEPEST + 1) for directory in directories]


def test_relative(site: Path) -> None:
    environ = {"PATH": "/usr/bin", RPATH: "relative"}
    done = activate([site], environ)
    assert done.reason.endswith(f": {done.root} (run paths: relative)")
    paths = relative("nvidia/cu13/lib", *PRODUCTS)
    assert environ["LDFLAGS"] == done.variables["LDFLAGS"] == f"-Xlinker @{done.root}/rpath.rsp"
    assert environ["LD_RUN_PATH"] == done.variables["LD_RUN_PATH"] == ":".join(paths)
    assert Path(f"{done.root}/rpath.rsp").read_text() == f"-rpath={':'.join(paths)}\n"
    assert paths[0] == "$ORIGIN/nvidia/cu13/lib"


def test_absolute(site: Path) -> None:
    environ = {"PATH": "/usr/bin", RPATH: "Absolute"}
    done = activate([site], environ)
    assert done.reason.endswith(f": {done.root} (run paths: absolute)")
    assert environ["LDFLAGS"] == done.variables["LDFLAGS"] == f"-Xlinker -rpath={done.root}/lib64/."
    assert environ["LD_RUN_PATH"] == done.variables["LD_RUN_PATH"] == f"{done.root}/lib64/."


def test_libraries_are_found_without_being_told_where(site: Path) -> None:
    """Where run paths are asked for, and no longer than that; in the order that a build has given them."""
    environ = {"PATH": "/usr/bin", RPATH: "relative", "LIBRARY_PATH": "/opt/lib"}
    root = activate([site], environ).root
    stubs, libraries = f"{root}/lib64/stubs", f"{root}/lib64"
    assert environ["LIBRARY_PATH"] == f"{stubs}:{libraries}:/opt/lib"
    for moved in (f"/first:{stubs}:{libraries}", f"{libraries}:/first:{stubs}"):
        environ["LIBRARY_PATH"] = moved
        assert activate([site], environ).variables["LIBRARY_PATH"] == moved
    environ[RPATH] = ""
    assert activate([site], environ).variables["LIBRARY_PATH"] == f"{stubs}:/first"
    environ["LIBRARY_PATH"] = f"/first:{stubs}"
    assert activate([site], environ).variables["LIBRARY_PATH"] == f"/first:{stubs}"
    environ[RPATH] = "absolute"
    assert activate([site], environ).variables["LIBRARY_PATH"] == f"{stubs}:{libraries}:/first"


@pytest.mark.parametrize("value", ["", "0", "off", "No", "false"])
def test_off(site: Path, value: str) -> None:
    environ = {"PATH": "/usr/bin", "LDFLAGS": "-g", RPATH: value}
    done = activate([site], environ)
    assert done.reason.endswith(f": {done.root}")
    assert not {"LDFLAGS", "LD_RUN_PATH"} & {*done.variables}
    assert (environ["LDFLAGS"], environ.get("LD_RUN_PATH")) == ("-g", None)


@pytest.mark.parametrize("value", ["1", "on", "both"])
def test_a_switch_that_is_none(site: Path, value: str) -> None:
    environ = {"PATH": "/usr/bin", RPATH: value}
    done = activate([site], environ)
    assert done.reason.endswith(f" (no run paths: {RPATH}={value!r} is neither relative nor absolute)")
    assert environ["CUDA_HOME"] == done.root
    assert not {"LDFLAGS", "LD_RUN_PATH"} & {*environ}


@pytest.mark.parametrize("mode", ["relative", "absolute"])
def test_doing_it_again_changes_nothing(site: Path, mode: str) -> None:
    environ = {"PATH": "/usr/bin", RPATH: mode, "LDFLAGS": "-g  -O2 ", "LD_RUN_PATH": "/opt/lib::"}
    ours = activate([site], {"PATH": "/usr/bin", RPATH: mode}).variables
    activate([site], environ)
    assert environ["LDFLAGS"] == f"{ours['LDFLAGS']} -g  -O2 "
    assert environ["LD_RUN_PATH"] == f"{ours['LD_RUN_PATH']}:/opt/lib::"
    # What a build does between.
    environ |= {"LDFLAGS": f"-Wl,-z,now {environ['LDFLAGS']}", "LD_RUN_PATH": f"/first:{environ['LD_RUN_PATH']}"}
    before = dict(environ)
    assert activate([site], environ).variables["LDFLAGS"] == before["LDFLAGS"]
    assert environ == before


@pytest.mark.parametrize("inner", ["relative", "absolute", ""])
@pytest.mark.parametrize("outer", ["relative", "absolute"])
def test_the_innermost_environment_wins(site: Path, tmp_path: Path, outer: str, inner: str) -> None:
    make_toolkit(tmp_path / "inner")
    environ = {"PATH": "/usr/bin", RPATH: outer, "LDFLAGS": "-g", "LD_RUN_PATH": "/opt/lib"}
    activate([site], environ)
    environ |= {RPATH: inner, "LDFLAGS": f"-O2 {environ['LDFLAGS']}"}
    done = activate([tmp_path / "inner"], environ)
    flag, paths = {
        "relative": (f"-Xlinker @{done.root}/rpath.rsp ", relative("nvidia/cu13/lib")),
        "absolute": (f"-Xlinker -rpath={done.root}/lib64/. ", [f"{done.root}/lib64/."]),
        "": ("", []),
    }[inner]
    assert environ["LDFLAGS"] == f"{flag}-O2 -g"
    assert environ["LD_RUN_PATH"] == ":".join([*paths, "/opt/lib"])
    # Asked for something else in the same environment.
    environ[RPATH] = outer
    activate([tmp_path / "inner"], environ)
    assert environ["LDFLAGS"].count("-Xlinker") == 1


def test_a_root_without_the_file(site: Path) -> None:
    """Of a version that made none, and the wheels' own directory: what a linker would not find, it is not told."""
    environ = {"PATH": "/usr/bin", RPATH: "relative", "XDG_CACHE_HOME": "/dev/null"}
    root = activate([site], dict(environ)).root
    Path(f"{root}/rpath.rsp").unlink()
    for expected in (root, f"{site}/nvidia/cu13"):
        done = activate([site], environ)
        assert done.root == expected
        assert done.reason.endswith(f" (no run paths: {expected} has no rpath.rsp)")
        assert ("the wheels' own directory" in done.reason) == (expected != root)
        assert "LDFLAGS" not in environ
        shutil.rmtree(site / "cuda-build-activate", ignore_errors=True)
        (site / "cuda-build-activate").touch()


def test_an_outer_environment_that_is_gone(site: Path, tmp_path: Path) -> None:
    make_toolkit(tmp_path / "inner")
    environ = {"PATH": "/usr/bin", RPATH: "absolute", "LDFLAGS": "-g", "LD_RUN_PATH": "/opt/lib"}
    activate([site], environ)
    shutil.rmtree(site)
    root = activate([tmp_path / "inner"], environ).root
    assert environ["LDFLAGS"] == f"-Xlinker -rpath={root}/lib64/. -g"
    assert environ["LD_RUN_PATH"] == f"{root}/lib64/.:/opt/lib"


@pytest.mark.parametrize("mode", ["relative", "absolute"])
def test_undone(site: Path, mode: str) -> None:
    for own in ({"LDFLAGS": "-g", "LD_RUN_PATH": "/opt/lib"}, {"LDFLAGS": None, "LD_RUN_PATH": None}):
        before = {"PATH": "/usr/bin", RPATH: mode, **{name: value for name, value in own.items() if value}}
        environ = dict(before)
        done = activate([site], environ)
        assert done.root
        changes = undone(done.variables, done.root, environ)
        assert {name: changes[name] for name in own} == own
        # The switch may be gone by then.
        del environ[RPATH]
        changes = undone(activate([site], dict(environ)).variables, done.root, environ)
        assert {name: changes[name] for name in own} == own


@pytest.mark.parametrize("linker", ["LDFLAGS", "LD_RUN_PATH"])
@pytest.mark.parametrize("mode", ["relative", "absolute", "off"])
def test_what_is_linked_is_loaded(site: Path, tmp_path: Path, mode: str, linker: str) -> None:
    """By one variable or the other, from each depth; what goes with an environment goes with it to another place."""
    environ = {**os.environ, RPATH: mode}
    root = activate([site], environ).root
    flags = shlex.split(environ.get("LDFLAGS", "")) if linker == "LDFLAGS" else []
    if flags:
        del environ["LD_RUN_PATH"]
    libraries = [f"-L{root}/lib64", "-lcublas", "-lnccl", "-lcutensor"]
    names = ("libcublas", "libnccl", "libcutensor")
    source = f"int {'(), '.join(names)}(); int probe(void) {{ return {'() + '.join(names)}(); }}"
    compiled(tmp_path / "built.so", source, *libraries, *flags, env=environ)
    place = site if mode == "absolute" else Path(shutil.copytree(site, tmp_path / "moved", symlinks=True))
    for depth in range(DEEPEST + 2):
        library = place.joinpath(*"abcdefghi"[:depth], "built.so")
        library.parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "built.so", library)
        code = f"import ctypes; print(ctypes.CDLL({str(library)!r}).probe())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if mode == "absolute" or (mode == "relative" and depth <= DEEPEST):
            assert (done.stdout, done.stderr) == ("21\n", "")
        else:
            assert "libcublas.so.13: cannot open shared object file" in done.stderr


CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(probe LANGUAGES CXX)
enable_language(CUDA)
add_library(kernel OBJECT kernel.cu)
set_target_properties(kernel PROPERTIES POSITION_INDEPENDENT_CODE ON)
add_library(probe SHARED probe.cpp)
target_link_libraries(probe PRIVATE kernel)
"""


@pytest.mark.parametrize("mode", ["", "relative", "absolute"])
def test_cmake_links_cuda_code_by_the_host_compiler(
    mode: str, offline: dict[str, str], clean: dict[str, str], tmp_path: Path
) -> None:
    """As LightGBM does: g++ links CUDA's static runtime, and nobody names a directory."""
    venv = VEnv(tmp_path / "venv")
    venv.install("cuda-build-activate", MINIMAL, "cmake", "ninja", index=offline)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    (tmp_path / "kernel.cu").write_text("__global__ void kernel() {}\nvoid launch() { kernel<<<1, 1>>>(); }\n")
    (tmp_path / "probe.cpp").write_text("void launch();\nvoid probe() { launch(); }\n")
    path = {"PATH": f"{venv.path / 'bin'}{os.pathsep}{clean['PATH']}"}
    commands = "cmake -G Ninja -S . -B build && cmake --build build && cmake --install build --prefix installed"
    environ = venv.environ(env={**clean, **path, RPATH: mode})
    run(["sh", "-ec", commands], env=environ, cwd=tmp_path)
    dynamic = run(["readelf", "-d", tmp_path / "build" / "libprobe.so"])
    assert "libcudart.so" not in dynamic
    written = {"": "", "relative": "$ORIGIN/nvidia/cu13/lib", "absolute": f"{venv.root}/lib64/."}[mode]
    assert written in dynamic
    assert ("PATH)" in dynamic) == bool(mode)
