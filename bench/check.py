"""Check whether the cost of a start has grown: compare counts with those recorded for the same CPython version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from measure import Start
from startup import BARE, States

RECORDED = Path(__file__).parent / "recorded.json"
GROWTH = 1.1
# Counts repeat exactly with the same interpreter at the same path. Another path makes a difference of thousands.
ALLOWANCE = 30_000

Counts = Mapping[str, int]


def count(interpreter: Path, directory: Path, wheel: Path) -> dict[str, int]:
    """The instructions of a bare start, and what three states cost on top of it, all with byte code."""
    states = States(interpreter, directory, wheel)
    states.compile()
    states.verify()
    counts = {BARE: Start(states.bare).instructions()}
    for name, start in states.starts.items():
        counts[name] = start.instructions() - Start(states.bare, start.variables).instructions()
    return counts


def recorded() -> dict[str, Counts]:
    """The recorded counts by version of CPython, such as "3.11"."""
    found: dict[str, Counts] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return found


def record(counts: Mapping[str, Counts]) -> None:
    """Replace the recorded counts of these versions."""
    RECORDED.write_text(json.dumps({**recorded(), **counts}, indent=2) + "\n")


def grown(counts: Counts, before: Counts) -> list[str]:
    """Which states cost more than is allowed by the recorded counts, in words.

    Builds of one version differ (one with profile-guided optimization executes a fifth fewer instructions), and our
    cost varies with that of a bare start. So the recorded counts are scaled accordingly.
    """
    scale = counts[BARE] / before[BARE]
    found = []
    for name, figure in counts.items():
        limit = before.get(name, 0) * scale * GROWTH + ALLOWANCE
        if name != BARE and figure > limit:
            found.append(f"{name}: {figure:,} instructions over a bare start; allowed are {limit:,.0f}")
    return found
