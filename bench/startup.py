"""Measure what each state costs, in one interpreter."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from environments import Argument, Environment, add_toolkit, put_root_away
from measure import VARIABLES, Start, medians

PLAIN_FILES = tuple(Path(__file__).parent / "plain" / f"plain_activator.{suffix}" for suffix in ("pth", "py"))
MARKER = "CUDA_BUILD_ACTIVATE_ROOT"
FINDER = "find_nvidia_binary_utility"
FIND = f"from cuda.pathfinder import {FINDER}; assert {FINDER}('nvcc')"

BARE = "bare virtualenv"
LINE = "an empty import line in a .pth"
MODULE = "an import of an empty module in a .pth"
SETUPTOOLS = "setuptools' distutils-precedence.pth"
COVERAGE = "coverage's a1_coverage.pth"
PLAIN = "a plain activator: find nvcc and prepend"
PATHFINDER = "cuda.pathfinder finds nvcc, no .pth"
CHILD = "ours: child of an activated build"
ROOT = "ours: first process, root in place"
NONE = "ours: no toolkit in the environment"
OFF = "ours: switched off"
FIRST = "ours: very first start"
FIRST_40 = "ours: very first start, 40 wheels"
ACTIVATING = (PLAIN, ROOT, FIRST, FIRST_40)


class Row(NamedTuple):
    """What a state costs over a bare virtualenv with the same variables; for the bare one itself, its whole cost."""

    python: str
    state: str
    byte_code: bool
    instructions: int
    system_calls: int


class Time(NamedTuple):
    """The median wall time of a start."""

    python: str
    state: str
    byte_code: bool
    milliseconds: float


class States:
    """An interpreter's environments, and the states that it starts in; without byte code before `compile()`."""

    def __init__(self, interpreter: Path, directory: Path, wheel: Path) -> None:
        self.environments: list[Environment] = []
        self._interpreter, self._directory, self._wheel = interpreter, directory, wheel
        self.bare = self._environment().python
        self._ours, without = self._environment(wheel), self._environment(wheel)
        add_toolkit([self._ours.site])
        self.starts = {
            CHILD: Start(self._ours.python, Start(self._ours.python).environ()),
            ROOT: Start(self._ours.python),
            NONE: Start(without.python),
        }

    def add_all(self) -> dict[str, str]:
        """Add our other states, and what they are compared with; return the versions of other projects."""
        line, module, plain = (self._environment() for _ in range(3))
        (line.site / "line.pth").write_text("import sys\n")
        (module.site / "module.pth").write_text("import empty_module\n")
        (module.site / "empty_module.py").touch()
        for file in PLAIN_FILES:
            shutil.copy(file, plain.site)
        projects = {name: self._environment(name) for name in ("setuptools", "coverage", "cuda-pathfinder")}
        setuptools, coverage, pathfinder = projects.values()
        many = self._environment(self._wheel)
        add_toolkit([plain.site])
        add_toolkit([pathfinder.site])
        add_toolkit([many.site], 40)
        self.starts = {
            LINE: Start(line.python),
            MODULE: Start(module.python),
            SETUPTOOLS: Start(setuptools.python),
            COVERAGE: Start(coverage.python),
            PLAIN: Start(plain.python),
            PATHFINDER: Start(pathfinder.python, code=FIND),
            **self.starts,
            OFF: Start(self._ours.python, {**VARIABLES, "CUDA_BUILD_ACTIVATE": "0"}),
            FIRST: Start(self._ours.python, before=functools.partial(put_root_away, self._ours.site)),
            FIRST_40: Start(many.python, before=functools.partial(put_root_away, many.site)),
        }
        # The last releases for Python 3.9 (coverage 7.10.7, cuda-pathfinder 1.3.2) lack these.
        if not (coverage.site / "a1_coverage.pth").exists():
            del self.starts[COVERAGE]
        if FINDER not in (pathfinder.site / "cuda" / "pathfinder" / "__init__.py").read_text():
            del self.starts[PATHFINDER]
        return {name: environment.version(name) for name, environment in projects.items()}

    def compile(self) -> None:
        """Make byte code for everything installed."""
        for environment in self.environments:
            environment.compile()

    def verify(self) -> None:
        """Check that each state is what its name says: raises AssertionError."""
        for name, start in self.starts.items():
            seen = start.environ()
            assert (seen != start.variables) == (name in ACTIVATING), f"{name}: {seen}"
            if name in (ROOT, FIRST, FIRST_40):
                trees = {os.path.realpath(seen[MARKER]), os.path.realpath(start.environ()[MARKER])}
                assert len(trees) == (1 if name == ROOT else 2), f"{name}: {trees}"

    def _environment(self, *requirements: Argument) -> Environment:
        made = Environment(self._directory, self._interpreter)
        if requirements:
            made.install(*requirements)
        self.environments.append(made)
        return made


def measure(python: str, states: States) -> tuple[list[Row], list[Time]]:
    """Count and time every state without byte code, then with it."""
    rows, times = [], []
    for byte_code in (False, True):
        if byte_code:
            states.compile()
        states.verify()
        rows.append(Row(python, BARE, byte_code, *Start(states.bare).cost()))
        rows += [Row(python, name, byte_code, *start.over(states.bare)) for name, start in states.starts.items()]
        timed = {BARE: Start(states.bare), **{name: states.starts[name] for name in (ROOT, FIRST, FIRST_40)}}
        times += [Time(python, name, byte_code, milliseconds) for name, milliseconds in medians(timed).items()]
    return rows, times
