"""Measure how the cost of a start grows with the environment, over a bare virtualenv that grows in the same way."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from environments import Environment, add_cuda_12, add_distributions, add_toolkit, put_root_away
from measure import VARIABLES, Start
from startup import BARE, CHILD, FIRST, MODULE, NONE, PLAIN, ROOT, States

PATHS = "more sys.path entries, all empty"
DISTRIBUTIONS = "more installed distributions"
TOGETHER = "component wheels, CUDA 13: all in nvidia/cu13"
APART = "component wheels, CUDA 13: each in a sys.path entry of its own"
CUDA_12 = "component wheels, CUDA 12: a directory each in nvidia/"


class Growth(NamedTuple):
    """What a state costs over the bare virtualenv at one size; for the bare one itself, its whole cost."""

    what: str
    size: int
    state: str
    instructions: int
    system_calls: int


def measure(states: States, interpreter: Path, directory: Path, wheel: Path) -> Iterator[Growth]:
    """Measure each kind of growth, with byte code. *states*: all of *interpreter*'s, with byte code."""
    yield from _paths(states, directory / "paths")
    for size in (1, 10, 100, 1000):
        yield from _distributions(size, States(interpreter, directory / "distributions", wheel))
    for what, sizes in ((TOGETHER, (1, 5, 10, 40)), (APART, (1, 5, 10, 40)), (CUDA_12, (1, 5, 10, 24))):
        for size in sizes:
            made = Environment(directory / "wheels", interpreter)
            made.install(wheel)
            yield from _wheels(what, size, made, directory / "apart" / f"{size:02}", states.bare)


def _paths(states: States, directory: Path) -> Iterator[Growth]:
    entries = [directory / f"{number:03}" for number in range(500)]
    for entry in entries:
        entry.mkdir(parents=True)
    for size in (0, 1, 10, 100, 500):
        more = _path(entries[:size])
        yield Growth(PATHS, size, BARE, *Start(states.bare, {**VARIABLES, **more}).cost())
        for name in (MODULE, PLAIN, CHILD, ROOT, NONE):
            start = states.starts[name]
            start = start._replace(variables={**start.variables, **more})
            yield Growth(PATHS, size, name, *start.over(states.bare))


def _distributions(size: int, states: States) -> Iterator[Growth]:
    for environment in states.environments:
        add_distributions(environment.site, size)
    states.compile()
    states.verify()
    yield Growth(DISTRIBUTIONS, size, BARE, *Start(states.bare).cost())
    for name, start in states.starts.items():
        yield Growth(DISTRIBUTIONS, size, name, *start.over(states.bare))


def _wheels(what: str, size: int, made: Environment, directory: Path, bare: Path) -> Iterator[Growth]:
    entries = [directory / f"{number:02}" for number in range(size)] if what == APART else []
    if what == CUDA_12:
        add_cuda_12(made.site, size)
    else:
        add_toolkit(entries or [made.site], size)
    made.compile()
    first = Start(
        made.python, {**VARIABLES, **_path(entries)}, before=functools.partial(put_root_away, [*entries, made.site][0])
    )
    yield Growth(what, size, FIRST, *first.over(bare))
    root = first._replace(before=None)
    yield Growth(what, size, ROOT, *root.over(bare))
    yield Growth(what, size, CHILD, *root._replace(variables=root.environ()).over(bare))


def _path(entries: list[Path]) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, entries))} if entries else {}
