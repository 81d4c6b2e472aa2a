"""Stable paths: builds in temporary environments see their toolkit at the same path, and never another's."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from conftest import OTHER_USERS, PROJECT, VARIABLES, VEnv, by_default, run, script
from faults import ACTIVATED, OTHERS, fault
from test_races import KILLING

from cuda_build_activate import STAMP, _stable

NAME = "CUDA_BUILD_ACTIVATE_STABLE_PATH"
RECORD = "nvidia/cu13/bin/nvcc,sha256={},36\nnvidia/cu13/include/cuda_runtime.h,,\n"


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory for stable paths, as short as the default one, with the modes of /tmp above it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as directory:
        os.chmod(directory, 0o1777)  # noqa: S103  # as /tmp has it
        yield Path(directory) / "cba"


@pytest.fixture
def stable(environ: dict[str, str], base: Path) -> dict[str, str]:
    """The variables for stable paths below *base*."""
    return {**environ, NAME: str(base)}


@pytest.fixture
def env(env: VEnv) -> VEnv:
    """An environment with a compiler that its distribution has a hash of."""
    return with_record(env)


def with_record(env: VEnv, digest: str = "a" * 43) -> VEnv:
    info = env.site / "nvidia_cuda_nvcc-13.4.92.dist-info"
    info.mkdir()
    (info / "RECORD").write_text(RECORD.format(digest))
    (env.site / "nvidia" / "cu13" / "include" / "whose.h").write_text(str(env.path))
    for path in env.site.rglob("*"):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    return env


def seen(env: VEnv, environ: dict[str, str]) -> str:
    """The root that all variables hold, which leads to the environment's own toolkit."""
    found = env.environ(env=environ)
    root = found["CUDA_BUILD_ACTIVATE_ROOT"]
    names = {name for name in VARIABLES if "CUDA" in name and name not in ("CUDA_BUILD_ACTIVATE_SITE", "CUDACXX")}
    assert {found[name] for name in names} == {root}
    assert found["CUDACXX"] == f"{root}/bin/nvcc"
    assert found["PATH"].startswith(f"{root}/bin:")
    assert found["CMAKE_PREFIX_PATH"] == root
    assert found["LIBRARY_PATH"] == f"{root}/lib64/stubs"
    assert found["CUDA_BUILD_ACTIVATE_SITE"] == f"{root}/.site"
    assert (Path(root) / "include" / "whose.h").read_text() == str(env.path)
    assert run([f"{root}/bin/nvcc"]).strip() == f"{root}/bin/nvcc"
    return root


def test_every_variable_holds_the_same_path_at_every_start(env: VEnv, stable: dict[str, str], base: Path) -> None:
    root = seen(env, stable)
    assert root.startswith(f"{base}/")
    assert os.readlink(root) == str(env.root)
    assert seen(env, stable) == root
    # A child keeps it.
    child = f"import os, subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {PRINT!r}], text=True))"
    assert env.start(child, env=stable).stdout.strip() == root


PRINT = "import os; print(os.environ.get('CUDA_HOME'))"


def test_an_ordinary_start_takes_no_decision(env: VEnv, environ: dict[str, str]) -> None:
    environ = by_default(environ)
    root = seen(env, environ)
    assert root.startswith(f"/tmp/cba-{os.geteuid()}/")  # noqa: S108
    code = f"{PRINT}; import sys; print('cuda_build_activate._activate' in sys.modules)"
    assert env.start(code, env=environ).stdout.split() == [root, "False"]
    code = f"{PRINT}; import sys; print('cuda_build_activate' in sys.modules)"
    assert env.start(code, env=env.environ(env=environ)).stdout.split() == [root, "False"]  # nor a child any


def test_the_next_environment_sees_the_same_path(
    env: VEnv, template: VEnv, stable: dict[str, str], tmp_path: Path
) -> None:
    root = seen(env, stable)
    other = with_record(template.copy(tmp_path / "other"))
    second = seen(other, stable)
    assert second == f"{root}.1"
    third = with_record(template.copy(tmp_path / "third"))
    assert seen(third, stable) == f"{root}.2"
    shutil.rmtree(env.path)
    again = with_record(template.copy(tmp_path / "another place"))
    assert seen(again, stable) == root
    assert seen(other, stable) == second  # which keeps its own


def test_other_components_have_another_path(env: VEnv, stable: dict[str, str], base: Path) -> None:
    root = seen(env, stable)
    (env.site / "nvidia_cublas-13.6.0.dist-info").mkdir()
    (env.site / "nvidia" / "cu13" / "lib" / "libcublas.so.13").touch()
    other = seen(env, stable)
    assert Path(other).parent != Path(root).parent
    shutil.rmtree(env.site / "nvidia_cublas-13.6.0.dist-info")
    (env.site / "nvidia" / "cu13" / "lib" / "libcublas.so.13").unlink()
    assert seen(env, stable) == root


def test_the_compiler_is_a_copy_with_a_time_that_follows_from_its_content(
    env: VEnv, template: VEnv, stable: dict[str, str], tmp_path: Path
) -> None:
    first = Path(seen(env, stable)) / "bin" / "nvcc"
    same = with_record(template.copy(tmp_path / "same"))
    other = with_record(template.copy(tmp_path / "other"), "b" * 43)
    os.utime(other.site / "nvidia" / "cu13" / "bin" / "nvcc")
    times = [(Path(seen(venv, stable)) / "bin" / "nvcc").lstat() for venv in (env, same, other)]
    assert not first.is_symlink()
    assert first.read_bytes() == (env.site / "nvidia/cu13/bin/nvcc").read_bytes()
    assert times[0].st_mtime_ns == times[1].st_mtime_ns != times[2].st_mtime_ns
    assert all(found.st_mode == 0o100755 for found in times)


@pytest.mark.parametrize("record", [None, "", "nvidia/cu13/include/cuda_runtime.h,,\n"])
def test_a_compiler_that_its_distribution_has_no_hash_of(
    record: str | None, env: VEnv, stable: dict[str, str], base: Path
) -> None:
    (path,) = env.site.glob("nvidia_cuda_nvcc-*.dist-info/RECORD")
    path.unlink()
    if record is not None:
        path.write_text(record)
    assert seen(env, stable).startswith(f"{base}/")
    assert (env.root / "bin" / "nvcc").is_symlink()


def test_what_cannot_be_replaced_stays(tmp_path: Path) -> None:
    (tmp_path / STAMP).write_bytes(b"here\0records")

    def fail(file: BinaryIO) -> None:
        file.write(b"there")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        _stable._replace(str(tmp_path / STAMP), 0o644, fail)
    assert [path.name for path in tmp_path.iterdir()] == [STAMP]
    assert (tmp_path / STAMP).read_bytes() == b"here\0records"
    _stable._remember(str(tmp_path), "/somewhere/else")
    assert (tmp_path / STAMP).read_bytes() == b"/somewhere/else\0records"
    _stable._remember(str(tmp_path / "nowhere"), "/somewhere")  # raises nothing
    with pytest.raises(FileNotFoundError):
        _stable._replace(str(tmp_path / "nowhere" / "nvcc"), 0o755, fail)


@pytest.mark.parametrize("value", ["off", "0", "no"])
def test_switched_off(value: str, env: VEnv, stable: dict[str, str], base: Path) -> None:
    assert seen(env, {**stable, NAME: value}) == str(env.root)
    assert (env.root / "bin" / "nvcc").is_symlink()
    assert not base.exists()


def test_switched_off_later(env: VEnv, stable: dict[str, str], base: Path) -> None:
    root = seen(env, stable)
    assert seen(env, {**stable, NAME: "off"}) == str(env.root)
    assert seen(env, stable) == root


def test_a_venv_that_stays_keeps_its_own_path(template: VEnv, environ: dict[str, str]) -> None:
    (PROJECT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PROJECT / "build") as directory:
        if os.path.realpath(directory).startswith(("/tmp/", "/var/tmp/")):  # noqa: S108
            pytest.skip("this checkout is itself in a directory for temporary files")
        staying = with_record(template.copy(Path(directory) / "venv"))
        assert seen(staying, by_default(environ)) == str(staying.root)
        assert (staying.root / "bin" / "nvcc").is_symlink()
        # Unless that is where the user's temporary files are, or a front end's environments.
        shutil.rmtree(staying.root.parent)
        assert seen(staying, {**by_default(environ), "TMPDIR": directory}) != str(staying.root)
        for place in ("builds-v0/.tmpAbc", ".tox/.pkg"):
            (Path(directory) / place).mkdir(parents=True)
            built = with_record(template.copy(Path(directory) / place / "venv"))
            assert seen(built, by_default(environ)).startswith("/tmp/cba-")  # noqa: S108


def test_info_and_doctor(env: VEnv, stable: dict[str, str], base: Path) -> None:
    root = seen(env, stable)
    command = ("-m", "cuda_build_activate")
    told = env.python_(*command, env=stable).stdout
    assert told.startswith(f"activated CUDA 13.4.92 with nvcc: {root} -> {env.root} (rule 3)\n")
    described = json.loads(env.python_(*command, "info", "--json", env=stable).stdout)
    assert (described["root"], described["own_root"]) == (root, str(env.root))
    assert env.python_(*command, "doctor", env=stable).stdout.splitlines()[1:] == ["nothing is wrong"]
    described = json.loads(env.python_(*command, "doctor", "--json", env={**stable, NAME: "here"}).stdout)
    (found,) = described["findings"]
    assert (found["code"], found["severity"]) == ("no-stable-path", "warning")
    assert found["seen"] == f"{NAME}='here' is neither off nor a usable absolute path"
    assert described["healthy"]


@pytest.mark.parametrize("character", ["$", '"', "`", ";", "<", "[", "\\", "\n"])
def test_a_path_that_no_toolkit_can_have(
    character: str, template: VEnv, stable: dict[str, str], tmp_path: Path
) -> None:
    made = with_record(template.copy(tmp_path / f"a{character}b"))
    assert seen(made, stable).isprintable()


# What a base may be, or a link in it, so that it must not be used: by shell commands, with {base}.
BASES = {
    "a file": "touch {base}",
    "a link": "mkdir -m 700 {base}.other; ln -s {base}.other {base}",
    "a dangling link": "ln -s nowhere {base}",
    "open to the group": "mkdir -m 750 {base}",
    "open to everybody": "mkdir -m 777 {base}",
    "another user's": "mkdir -m 700 {base}; chown 12345 {base}",
    "in a directory in which everyone can replace it": "chmod 777 {above}",
    "full": "mkdir -m 700 {base}; mount -t tmpfs -o size=4k,nr_inodes=1,mode=700 none {base}",
    "read-only": "mkdir -m 700 {base}; mount -t tmpfs -o ro,mode=700 none {base}",
    "usable, but its lock is a link": "mkdir -m 700 {base}; ln -s {base}.other {base}/.lock",
}


for _name in BASES:
    OTHERS.setdefault("stable paths", {})[f"a base that is {_name}"] = ACTIVATED


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.fault(f"stable paths: a base that is {name}")) for name in BASES]
)
def test_a_base_that_must_not_be_used(name: str, env: VEnv, stable: dict[str, str], base: Path) -> None:
    commands = BASES[name].format(base=base, above=base.parent)
    if "chown" in commands and not OTHER_USERS:
        pytest.skip("taking another user's place needs root")
    if "mount" in commands:
        if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
            pytest.skip("no mount namespace can be made here")
        env.prefix = ["unshare", "-m", "sh", "-ec", f'{commands.partition("; ")[2]}; exec "$@"', "sh"]
        commands = commands.partition("; ")[0]
    run(["sh", "-ec", commands])
    for _ in range(2):
        assert seen(env, stable) == str(env.root)
    done = env.start(env={**stable, "CUDA_BUILD_ACTIVATE_VERBOSE": "1"})
    assert f"{env.root} (no stable path: " in done.stderr
    report = json.loads(env.python_("-m", "cuda_build_activate", "doctor", "--json", env=stable).stdout)
    assert [found["code"] for found in report["findings"]] == ["no-stable-path"]


@fault("stable paths", "a lock that another process holds", ACTIVATED)
def test_no_lock(env: VEnv, stable: dict[str, str], base: Path) -> None:
    base.mkdir(0o700)
    code = (
        f"import fcntl, time; file = open({str(base / '.lock')!r}, 'w'); fcntl.flock(file, 2)\n"
        "print(1, flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout
        keeper.stdout.readline()
        started = time.monotonic()
        assert seen(env, stable) == str(env.root)
        assert time.monotonic() - started < 5
        keeper.kill()
    assert seen(env, stable) == str(env.root)  # all processes of a build agree


@fault("stable paths", "no space for the copy of the compiler", ACTIVATED)
def test_no_space(env: VEnv, stable: dict[str, str], base: Path) -> None:
    compiler = script(env.site / "nvidia" / "cu13" / "bin" / "nvcc", 'echo "$0"; exit\n' + "# filler\n" * 100_000)
    os.utime(compiler.parent, ns=(10**18, 10**18))
    env.prefix = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh"]
    for _ in range(2):
        assert seen(env, stable) == str(env.root)
    assert base.exists()
    assert (env.root / "bin" / "nvcc").is_symlink()
    assert [path.name for path in (env.root / "bin").iterdir() if path.name.startswith("nvcc.")] == ["nvcc.profile"]
    env.prefix = []
    assert seen(env, stable) == str(env.root)  # all processes of a build agree


@fault("stable paths", "the directory for temporary files is cleaned between two starts", ACTIVATED)
def test_cleaned_between_two_starts(env: VEnv, stable: dict[str, str], base: Path) -> None:
    root = seen(env, stable)
    for remove in (root, str(Path(root).parent), str(base)):
        run(["rm", "-r", remove])
        assert seen(env, stable) == root


@fault("stable paths", "the directory for temporary files is cleaned between two processes of a build", ACTIVATED)
def test_cleaned_between_two_processes(env: VEnv, stable: dict[str, str], base: Path) -> None:
    code = (
        f"import shutil, subprocess, sys; shutil.rmtree({str(base)!r})\n"
        f"subprocess.run([sys.executable, '-c', {PRINT!r}])"
    )
    done = env.start(code, env=stable)
    assert done.stderr == ""
    assert Path(done.stdout.strip()).parent.parent == base
    assert os.readlink(done.stdout.strip()) == str(env.root)


@fault("stable paths", "a base that another user replaces between two starts", ACTIVATED)
def test_planted(env: VEnv, stable: dict[str, str], base: Path) -> None:
    if not OTHER_USERS:
        pytest.skip("taking another user's place needs root")
    root = Path(seen(env, stable))
    shutil.rmtree(base)
    root.parent.mkdir(parents=True)
    root.symlink_to(env.root)
    for path in (base, root.parent, root):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    assert seen(env, stable) == str(env.root)


@fault("stable paths", "an environment that is copied, or moved", ACTIVATED)
def test_copied_and_moved(env: VEnv, stable: dict[str, str], tmp_path: Path) -> None:
    root = seen(env, stable)
    copied = env.copy(tmp_path / "copy")
    (copied.site / "nvidia" / "cu13" / "include" / "whose.h").write_text(str(copied.path))
    assert seen(copied, stable) == f"{root}.1"
    assert seen(env, stable) == root
    moved = env.at(env.path.rename(tmp_path / "moved"))
    (moved.site / "nvidia" / "cu13" / "include" / "whose.h").write_text(str(moved.path))
    assert seen(moved, stable) == root  # which is free


@fault("stable paths", "an environment that is removed, and recreated at the same path", ACTIVATED)
def test_made_again_at_the_same_path(env: VEnv, template: VEnv, stable: dict[str, str]) -> None:
    root = seen(env, stable)
    shutil.rmtree(env.path)
    assert not os.path.exists(root)
    assert seen(with_record(template.copy(env.path)), stable) == root


@fault("stable paths", "the clock is set back", ACTIVATED)
def test_the_clock_is_set_back(env: VEnv, stable: dict[str, str], base: Path) -> None:
    root = seen(env, stable)
    for path in [base, *base.rglob("*"), env.root.parent]:
        os.utime(path, (4e9, 4e9), follow_symlinks=False)
    assert seen(env, stable) == root


def test_what_is_left_behind(env: VEnv, template: VEnv, stable: dict[str, str], base: Path, tmp_path: Path) -> None:
    """A lock and a link; the links of other toolkits that are gone are swept."""
    root = seen(env, stable)
    shutil.rmtree(env.path)
    assert {str(path.relative_to(base)) for path in base.rglob("*")} == {
        ".lock",
        Path(root).parent.name,
        str(Path(root).relative_to(base)),
    }
    other = with_record(template.copy(tmp_path / "other"))
    (other.site / "nvidia_nccl_cu13-2.0.dist-info").mkdir()
    left = Path(seen(other, stable))
    assert set(base.rglob("*")) == {base / ".lock", left.parent, left}


@fault("stable paths", "16 environments of one toolkit, started and removed in every order, some killed", ACTIVATED)
def test_sixteen_at_once(template: VEnv, stable: dict[str, str], tmp_path: Path) -> None:
    """Each process looks again and again at what its variables lead to: never another's toolkit, nor nothing."""
    code = (
        "import os, random, sys, time\n"
        "from pathlib import Path\n"
        "until = time.monotonic() + random.random() * 2\n"
        "while time.monotonic() < until:\n"
        "    whose = Path(os.environ['CUDA_HOME'], 'include', 'whose.h').read_text()\n"
        "    assert whose == sys.argv[1], (whose, sys.argv[1])\n"
        "    assert os.access(os.environ['CUDACXX'], os.X_OK)\n"
        "print(os.environ['CUDA_HOME'])\n"
    )
    dice = random.Random(16)
    for number in range(16):
        with_record(template.copy(tmp_path / f"{number}"))
    running: dict[int, subprocess.Popen[str]] = {}
    waiting, seen_at = list(range(16)), set()
    while waiting or running:
        while waiting and len(running) < 8:
            number = waiting.pop(dice.randrange(len(waiting)))
            venv = template.at(tmp_path / f"{number}")
            command = [str(venv.python), "-c", code, str(venv.path)]
            running[number] = subprocess.Popen(
                command, env=stable, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        number = dice.choice(list(running))
        process = running.pop(number)
        killed = dice.random() < 0.3
        if killed:
            time.sleep(dice.random() * 0.2)
            process.send_signal(signal.SIGKILL)
        out, errors = process.communicate()
        assert errors == ""
        assert killed or process.returncode == 0
        seen_at |= set(out.split())
        shutil.rmtree(tmp_path / f"{number}")
    assert all(path.startswith(f"{stable[NAME]}/") for path in seen_at)
    assert 1 <= len(seen_at) <= 9


@fault("stable paths", "killed before each step of claiming a path, beside an environment that has one", ACTIVATED)
def test_killed_at_every_step(env: VEnv, template: VEnv, stable: dict[str, str], tmp_path: Path) -> None:
    (env.site / "killing.py").write_text(KILLING)
    (env.site / "a.pth").write_text("import killing\n")
    beside = with_record(template.copy(tmp_path / "beside"))
    first = seen(beside, stable)
    steps = 0
    while True:
        steps += 1
        victim = env.copy(tmp_path / f"victim-{steps}")  # from the second on, there is a link to replace
        (victim.site / "nvidia" / "cu13" / "include" / "whose.h").write_text(str(victim.path))
        at = {"KILLED_FROM": f"{stable[NAME]}/", "KILLED_AT": str(steps)}
        killed = victim.start("pass", "-B", env={**stable, **at})
        assert os.readlink(first) == str(beside.root)
        if killed.returncode == 0:
            break
        assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
        other = with_record(template.copy(tmp_path / "other"))
        found = [seen(victim, stable), seen(other, stable)]
        # Without a stable path, if the process did not come so far as to write it down.
        assert found in (
            [str(victim.root), f"{first}.1"],
            [str(victim.root), f"{first}.2"],
            [f"{first}.1", f"{first}.2"],
        )
        assert (victim.root / "bin" / "nvcc").read_bytes() == (other.root / "bin" / "nvcc").read_bytes()
        shutil.rmtree(victim.path)
        shutil.rmtree(other.path)
    assert seen(victim, stable) == f"{first}.1"
    assert steps > 6


def test_no_bytes_of_the_compiler_are_lost(env: VEnv, stable: dict[str, str]) -> None:
    compiler = env.site / "nvidia" / "cu13" / "bin" / "nvcc"
    text = "exit 0\n" + "# filler\n" * 1_000_000
    script(compiler, text)
    root = env.environ(env=stable)["CUDA_HOME"]
    assert Path(root, "bin", "nvcc").read_bytes() == compiler.read_bytes()
    assert [path.name for path in (env.root / "bin").iterdir() if path.name.startswith("nvcc.")] == ["nvcc.profile"]
