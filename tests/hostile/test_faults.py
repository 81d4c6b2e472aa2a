"""Hostile conditions, each provoked for real. Whatever happens, an interpreter start succeeds, says nothing, and is
activated completely or not at all; asked for, it says in one line what it did.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import coverage
import pytest
from conftest import OTHER_USERS, PROJECT, SETPRIV, WITHOUT_PRIVILEGE, VEnv, run
from faults import (
    ACTIVATED,
    CACHED,
    FAULTS,
    PROBE,
    UNTOUCHED,
    WHEELS,
    activation,
    details,
    expect,
    fault,
    namespaces,
    places,
    probe,
    summary,
)


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(group, name, marks=pytest.mark.fault(f"{group}: {name}"))
        for group, faults in FAULTS.items()
        for name in faults
    ],
)
def test_a_fault(group: str, name: str, env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    fault = FAULTS[group][name]
    if "-P" in fault.options and sys.version_info < (3, 11):
        pytest.skip("Python 3.11 is the first with -P")
    if "chown" in fault.commands and not OTHER_USERS:
        pytest.skip("chown needs root")
    path = tmp_path / fault.path
    while len(str(path)) + len(str(env.site)) - len(str(tmp_path)) < fault.length - 1:
        missing = fault.length - len(str(path)) - len(str(env.site)) + len(str(tmp_path)) - 1
        path /= "x" * min(missing, 200)
    if path != tmp_path:
        path.mkdir(parents=True)
        env.path.rename(path / "venv")
        env = env.at(path / "venv")
    values = {"SITE": str(env.site), "BASE": str(tmp_path), "PYTHON": str(env.python)}
    for variable, value in fault.variables.items():
        if value is None:
            environ.pop(variable, None)
        else:
            environ[variable] = value.replace("$BASE", str(tmp_path))
    run(["sh", "-ec", fault.commands], env={**environ, "PATH": os.environ["PATH"], **values}, cwd=env.site)
    env.prefix = WITHOUT_PRIVILEGE
    if fault.around:
        if "mount" in fault.around and not namespaces():
            pytest.skip("no mount namespace can be made here: that takes root, and no chroot")
        around = fault.around
        for variable, value in values.items():
            around = around.replace(f"${variable}", value)
        env.prefix = ["unshare", "-m"] * ("mount" in around) + ["sh", "-ec", f'{around}; exec "$@"', "sh", *env.prefix]
    expect(fault.outcome, env, environ, *fault.options, says=fault.says)
    assert os.listdir(tmp_path / "home") == []
    assert not (tmp_path / "a").exists()


@fault("file systems", "no symbolic links, no modes, and case ignored (FAT)", CACHED)
def test_fat(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    with mounted(tmp_path, env.site, ["mkfs.vfat"], ["fusefat", "-o", "rw+"]):
        expect(CACHED, env, environ)


@fault("file systems", "case ignored, and no modes (NTFS)", CACHED)
def test_ntfs(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    with mounted(tmp_path, env.site, ["mkntfs", "-q", "-F", "-f"], ["lowntfs-3g", "-o", "ignore_case"]):
        expect(CACHED, env, environ)


@fault("file systems", "case ignored (NTFS)", ACTIVATED)
def test_ntfs_with_modes(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    with mounted(tmp_path, env.site, ["mkntfs", "-q", "-F", "-f"], ["lowntfs-3g", "-o", "ignore_case,permissions"]):
        assert (env.site / "NVIDIA" / "CU13").is_dir()
        expect(ACTIVATED, env, environ)


@contextmanager
def mounted(base: Path, directory: Path, make: list[str], mount: list[str]) -> Iterator[None]:
    """Let *directory* lie on a file system of its own, that the commands *make* and *mount* make and mount."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not all(map(shutil.which, (make[0], mount[0]))):
        pytest.skip(f"{make[0]} and {mount[0]}, which need root and /dev/fuse, are not here")
    image, content = base / "image", base / "content"
    image.write_bytes(b"")
    os.truncate(image, 32 << 20)
    run([*make, image])
    directory.rename(content)
    directory.mkdir()
    run([*mount, image, directory])
    try:
        run(["cp", "-r", f"{content}/.", directory])
        yield
    finally:
        run(["umount", directory])


@pytest.fixture
def forbidding(env: VEnv) -> VEnv:
    """An environment with an audit hook, as policies and sandboxes have them, that lets none of $FORBIDDEN happen."""
    (env.site / "forbidding.py").write_text(
        "import builtins, os, sys\n"
        "error, *events = os.environ.get('FORBIDDEN', 'OSError').split()\n"
        "def forbid(event, arguments):\n"
        "    if event in events or event == 'open' and 'write' in events and arguments[2] & 3:\n"
        "        raise getattr(builtins, error)('forbidden')\n"
        "sys.addaudithook(forbid)\n"
    )
    (env.site / "a.pth").write_text("import forbidding\n")
    return env


WRITING = "write os.mkdir os.symlink os.rename os.remove os.rmdir"


@fault("file systems", "symbolic links are refused", WHEELS)
def test_no_links(forbidding: VEnv, environ: dict[str, str]) -> None:
    environ["FORBIDDEN"] = "PermissionError os.symlink"
    expect(WHEELS, forbidding, environ, says="forbidden")


@fault("interpreters", "an audit hook that forbids writing", WHEELS)
def test_forbidden_to_write(forbidding: VEnv, environ: dict[str, str]) -> None:
    environ["FORBIDDEN"] = f"PermissionError {WRITING}"
    expect(WHEELS, forbidding, environ, says="forbidden")


@fault("interpreters", "an audit hook that forbids writing, with its own type of exception", UNTOUCHED)
def test_forbidden_to_write_by_another_error(forbidding: VEnv, environ: dict[str, str]) -> None:
    environ |= {"FORBIDDEN": f"RuntimeError {WRITING}", "PYTHONDONTWRITEBYTECODE": "1"}
    expect(UNTOUCHED, forbidding, environ, says="RuntimeError('forbidden')")


@fault("file systems", "owned by another user, and no home directory", WHEELS)
def test_another_users_environment(env: VEnv, environ: dict[str, str]) -> None:
    with foreign(env, environ):
        del environ["XDG_CACHE_HOME"]
        environ["HOME"] = "/nonexistent"
        expect(WHEELS, env, environ, says="Permission denied")


@fault("file systems", "a container image: owned by another user, with its root, times truncated to seconds", ACTIVATED)
def test_a_container_layer(env: VEnv, environ: dict[str, str]) -> None:
    odd = 10**18 + 123_456_789
    for path in [env.site, *env.site.rglob("*")]:
        os.utime(path, ns=(odd, odd), follow_symlinks=False)
    env.environ(env=environ)
    for path in [env.site, *env.site.rglob("*")]:
        whole = path.lstat().st_mtime_ns // 10**9 * 10**9
        os.utime(path, ns=(whole, whole), follow_symlinks=False)
    with foreign(env, environ):
        environ["HOME"] = "/nonexistent"
        expect(ACTIVATED, env, environ)


@contextmanager
def foreign(env: VEnv, environ: dict[str, str]) -> Iterator[None]:
    """Let *env* be another user's, in a place that all users can reach."""
    if not OTHER_USERS:
        pytest.skip("taking another user's place needs root")
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    moved = env.copy(place / "venv")
    env.path, env.python, env.site = moved.path, moved.python, moved.site
    env.prefix = [SETPRIV, "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    try:
        if env.start(env=environ).returncode:
            pytest.skip(f"other users cannot start {env.python.resolve()}")
        yield
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("options", ["-a", "-r", "-rL"])
@fault("a stale root", "the environment was copied, three ways", ACTIVATED)
def test_a_copied_environment(env: VEnv, environ: dict[str, str], tmp_path: Path, options: str) -> None:
    env.environ(env=environ)
    python = env.python.resolve()
    other = env.copy(tmp_path / "copied", options)
    if options == "-rL":  # of the interpreter, a copy would not find its library
        other.python.unlink()
        other.python.symlink_to(python)
    if options == "-a":
        run(["rm", "-r", env.path])
    expect(ACTIVATED, other, environ)


@fault("a stale root", "the environment was moved", ACTIVATED)
def test_a_moved_environment(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    env.environ(env=environ)
    made = os.readlink(env.root)
    env.path.rename(tmp_path / "moved")
    moved = env.at(tmp_path / "moved")
    expect(ACTIVATED, moved, environ)
    assert os.readlink(moved.root) == made


EMBEDDING = """
#include <Python.h>

int main(int argc, char **argv) {
    for (int start = 0; start < 2; start++) {
        PyConfig config;
        PyConfig_InitPythonConfig(&config);
        PyConfig_SetBytesString(&config, &config.executable, argv[1]);
        Py_InitializeFromConfig(&config);
        PyRun_SimpleString(argv[2]);
        PyThreadState *first = PyThreadState_Get();
        PyThreadState *second = Py_NewInterpreter();
        PyRun_SimpleString(argv[2]);
        Py_EndInterpreter(second);
        PyThreadState_Swap(first);
        Py_FinalizeEx();
    }
    printf("%s\\n", getenv("CUDA_HOME"));
}
"""


@fault("broken installation of this package", "the module that decides is missing", UNTOUCHED)
@pytest.mark.parametrize("module", ["_activate", "_toolkit"])
def test_without_the_module_that_decides(env: VEnv, environ: dict[str, str], module: str) -> None:
    """Or one without which that cannot be imported."""
    (env.site / "cuda_build_activate" / f"{module}.py").unlink()
    for verbose in ("", "1"):  # there is nothing left that could tell
        told = {**environ, "CUDA_BUILD_ACTIVATE_VERBOSE": verbose}
        assert env.environ(env=told) == env.environ("-S", env=told)


@fault("interpreters", "embedded in a program, twice, each time with a subinterpreter", ACTIVATED)
def test_an_embedded_interpreter(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    headers, libraries = sysconfig.get_path("include"), sysconfig.get_config_var("LIBDIR")
    if not (Path(headers, "Python.h").exists() and Path(libraries, sysconfig.get_config_var("LDLIBRARY")).exists()):
        pytest.skip("this Python has no headers, or no library to link")
    (tmp_path / "program.c").write_text(EMBEDDING)
    link = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lpython{}.{}".format(*sys.version_info)]
    run(["cc", f"-I{headers}", "-o", tmp_path / "program", tmp_path / "program.c", *link])
    command = [str(tmp_path / "program"), str(env.python), PROBE]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *printed, seen_by_c = done.stdout.splitlines()
    assert seen_by_c == str(env.root)
    assert len(printed) == 4
    for line in printed:
        seen, held = json.loads(line)
        assert seen == {**seen, **activation(str(env.root), env.site, environ)}
        assert set(held) == places(env.site)


@fault("interpreters", "a debugger", ACTIVATED)
def test_a_debugger(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROBE)
    done = env.python_("-m", "pdb", "-c", "continue", "-c", "quit", str(tmp_path / "program.py"), env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    seen, held = json.loads(done.stdout.splitlines()[0])
    assert seen == {**seen, **activation(str(env.root), env.site, environ)}
    assert set(held) == places(env.site)


@fault("interpreters", "coverage, measuring every process", ACTIVATED)
def test_coverage(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    (env.site / "coverage").symlink_to(Path(coverage.__file__).parent)
    (env.site / "a1_coverage.pth").write_text("import coverage; coverage.process_startup()\n")
    settings = tmp_path / "settings"
    settings.write_text(f"[run]\ndata_file = {tmp_path}/data\nparallel = True\n")
    environ["COVERAGE_PROCESS_START"] = str(settings)
    expect(ACTIVATED, env, environ)
    assert list(tmp_path.glob("data.*")), "coverage did not run"


@fault("several copies", "in the user's site directory", ACTIVATED)
def test_user_site(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    user = tmp_path / "user" / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    user.parent.mkdir(parents=True)
    env.site.rename(user)
    env.site.mkdir()
    configuration = env.path / "pyvenv.cfg"
    configuration.write_text(re.sub("(include-system-site-packages = ).*", r"\1true", configuration.read_text()))
    env.site = user
    environ |= {"PYTHONUSERBASE": str(tmp_path / "user"), "CUDA_BUILD_ACTIVATE": "13"}
    expect(ACTIVATED, env, environ)


@fault("several copies", "in the system's site directory", ACTIVATED)
def test_system_site(env: VEnv, environ: dict[str, str]) -> None:
    python = env.python.resolve()
    printed = run([python, "-I", "-c", "import site; print(*site.getsitepackages(), sep='\\n')"])
    directories = [path for path in map(Path, printed.splitlines()) if path.is_dir()]
    if not namespaces() or not directories:
        pytest.skip("mounting needs root, and a system site directory")
    env.python = python
    env.prefix = ["unshare", "-m", "sh", "-ec", f'mount --bind {env.site} {directories[0]}; exec "$@"', "sh"]
    env.site = directories[0]
    seen, held = probe(env, environ)
    assert seen == {**seen, **activation(str(env.root), env.site, environ)}
    assert {".stamp", "bin/nvcc", "lib64/libcudart.so"} <= held


def test_nothing_is_written_elsewhere_and_nothing_else_is_done(env: VEnv, environ: dict[str, str]) -> None:
    """What SECURITY.md says, seen by an audit hook: what the first start writes, and that it runs and calls nobody."""
    log = env.path / "log"
    (env.site / "watching.py").write_text(
        "import os, sys\n"
        f"log = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "quiet = ('object.', 'import', 'compile', 'exec', 'marshal.', 'code.', 'sys.', 'builtins.', 'cpython.',\n"
        "         'os.listdir', 'os.scandir')\n"
        "def watch(event, arguments):\n"
        "    reading = event == 'open' and (not arguments[2] & 3 or isinstance(arguments[0], int))\n"
        "    if not reading and not event.startswith(quiet):\n"
        "        os.write(log, os.fsencode(f'{event}\\0{arguments}\\n'))\n"
        "sys.addaudithook(watch)\n"
    )
    (env.site / "a.pth").write_text("import watching\n")
    assert env.environ("-B", env=environ)["CUDA_HOME"] == str(env.root)
    events = [line.split("\0") for line in log.read_text().splitlines()]
    assert {event for event, _ in events} == {"open", "os.mkdir", "os.symlink", "os.rename", "os.remove", "os.putenv"}
    for event, arguments in events:
        if event in ("open", "os.mkdir", "os.remove"):
            assert arguments.startswith(f"('{env.root.parent}"), arguments
        elif event in ("os.symlink", "os.rename"):
            assert f", '{env.root.parent}/" in arguments, arguments


@pytest.mark.parametrize("written", [summary, details])
def test_every_fault_is_documented(written: Callable[[], str]) -> None:
    page = (PROJECT / "docs" / "understand" / "hostile-conditions.md").read_text()
    assert written() in page, f"docs/understand/hostile-conditions.md should have:\n{written()}"
