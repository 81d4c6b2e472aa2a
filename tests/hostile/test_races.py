"""Many interpreters at once, changes while they start, and processes that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import VEnv, make_toolkit, run
from faults import ACTIVATED, PROBE, activation, contents, expect, fault, places, probe

from cuda_build_activate import DIRECTORY, _assemble
from cuda_build_activate._toolkit import find

INTERPRETERS = 64


@fault("races", f"{INTERPRETERS} interpreters at once in a fresh environment", ACTIVATED)
def test_many_at_once(env: VEnv, environ: dict[str, str]) -> None:
    untouched = probe(env, environ, "-S")[0]
    command = [str(env.python), "-c", PROBE]
    started = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(INTERPRETERS)
    ]
    expected = {**untouched, **activation(str(env.root), env.site, untouched)}
    for process in started:
        out, errors = process.communicate()
        assert (process.returncode, errors) == (0, b"")
        seen, held = json.loads(out)
        assert seen == expected
        assert set(held) == places(env.site)
    expect(ACTIVATED, env, environ)


def changing(change: Callable[[int], None], meanwhile: Callable[[], None], times: int) -> None:
    """Call *change* over and over while *meanwhile* is called so many *times*."""
    done = threading.Event()
    errors: list[Exception] = []

    def work() -> None:
        count = 0
        while not done.is_set() and not errors:
            try:
                change(count)
            except Exception as error:
                errors.append(error)
            count += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(times):
            meanwhile()
    finally:
        done.set()
        thread.join()
    assert not errors


@fault("races", "starts while the components are upgraded", ACTIVATED)
def test_starts_during_an_upgrade(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    """Front ends remove the old files, then the empty directories, then write the new files."""
    toolkit = env.site / "nvidia" / "cu13"
    new = make_toolkit(tmp_path / "new")
    untouched = probe(env, environ, "-S")[0]
    activations = {
        json.dumps({**untouched, **activation(str(env.root), env.site, untouched, nvcc=nvcc)}, sort_keys=True)
        for nvcc in (True, False)
    }
    seen_activated = []

    def upgrade(_: int) -> None:
        for directory in ("bin", "include", "lib", "nvvm", "cccl"):
            shutil.rmtree(toolkit / directory)
            shutil.copytree(new / directory, toolkit / directory)

    def start() -> None:
        seen, held = probe(env, environ)
        if seen != untouched:
            assert json.dumps(seen, sort_keys=True) in activations
            # Of whatever was there at that moment: whole.
            assert {".stamp", "bin", "include", "lib", "lib64/stubs"} <= held
            seen_activated.append(1)

    changing(upgrade, start, 40)
    assert seen_activated
    expect(ACTIVATED, env, environ)


@fault("races", "readers while the root is rebuilt", ACTIVATED)
def test_no_process_sees_a_partial_root(env: VEnv, environ: dict[str, str]) -> None:
    expect(ACTIVATED, env, environ)
    library = env.site / "nvidia" / "cu13" / "lib" / "libcublas.so.13"
    without = places(env.site)
    library.touch()
    wholes = (without, places(env.site))
    seen = set()

    def change(count: int) -> None:
        library.unlink() if count % 2 else library.touch()
        env.environ(env=environ)

    def read() -> None:
        tree = os.path.realpath(env.root)
        for _ in range(20):
            assert contents(tree) in wholes
        seen.add(tree)

    library.unlink()
    changing(change, read, 300)
    assert len(seen) > 5, "the root was hardly ever made again"
    expect(ACTIVATED, env, environ)


# Kills its process at the step that $KILLED_AT says, of those that change anything, from one below $KILLED_FROM on.
KILLING = """
import os, signal, sys
steps = 0
def count(event, arguments):
    global steps
    if event in ("os.mkdir", "os.symlink", "os.rename", "os.remove", "os.rmdir") or (
            event == "open" and arguments[2] & os.O_CREAT):
        steps += steps > 0 or str(arguments[0]).startswith(os.environ.get("KILLED_FROM", ""))
        if steps == int(os.environ["KILLED_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
if os.environ.get("KILLED_AT"):
    sys.addaudithook(count)
"""


def whole_or_absent(env: VEnv) -> bool:
    """Whether there is a root; what there is is whole."""
    if not os.path.lexists(env.root):
        return False
    toolkit = find([str(env.site)])
    assert toolkit
    tree = os.path.realpath(env.root)
    held = contents(tree)
    plan = set(_assemble.plan(toolkit))
    old = {"lib64/libold.so.1", "lib64/libold.so"}
    assert plan <= held if tree == str(env.root) else held in (plan, plan | old)
    return True


@pytest.mark.parametrize("before", ["no root", "a stale root", "a copy of a stale root"])
@fault("races", "killed before each step of making the root, for the first time and again", ACTIVATED)
def test_killed_at_every_step(env: VEnv, environ: dict[str, str], tmp_path: Path, before: str) -> None:
    (env.site / "killing.py").write_text(KILLING)
    (env.site / "a.pth").write_text("import killing\n")
    if before != "no root":
        old = env.site / "nvidia" / "cu13" / "lib" / "libold.so.1"
        old.touch()
        env.environ(env=environ)
        if before == "a copy of a stale root":
            shutil.copytree(env.root, tmp_path / "copy")
            shutil.rmtree(env.root.resolve())
            env.root.unlink()
            (tmp_path / "copy").rename(env.root)
        old.unlink()
    own = env.site / DIRECTORY
    own.mkdir(exist_ok=True)
    run(["cp", "-a", own, tmp_path / "before"])
    steps = 0
    while True:
        steps += 1
        shutil.rmtree(own)
        if before != "no root":
            run(["cp", "-a", tmp_path / "before", own])
        killed = env.start("pass", "-B", env={**environ, "KILLED_AT": str(steps)})
        there = whole_or_absent(env)
        if killed.returncode == 0:
            break
        assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
        assert there or before != "a stale root", "the root was gone for a moment"
        seen, held = probe(env, environ)
        assert seen["CUDA_HOME"] == str(env.root)
        assert held == places(env.site)
    assert steps > 30


@fault("races", "killed within each write of a file", ACTIVATED)
def test_killed_within_a_write(env: VEnv, environ: dict[str, str], tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("there is no strace here")
    for steps in range(1, 100):
        victim = env.copy(tmp_path / f"victim-{steps}")
        victim.prefix = [
            "strace",
            "-qqq",
            "-e",
            "trace=write",
            "-o",
            "/dev/null",
            "-e",
            f"inject=write:signal=KILL:when={steps}",
        ]
        killed = victim.start("pass", "-B", env=environ).returncode
        whole_or_absent(victim)
        victim.prefix = []
        assert probe(victim, environ)[1] == places(victim.site)
        if killed == 0:
            break
    assert 3 < steps < 99
