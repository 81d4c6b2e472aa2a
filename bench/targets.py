"""The targets: what a start may cost, and whether it costs no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from builds import Builds
from growth import DISTRIBUTIONS, PATHS, Growth
from startup import BARE, CHILD, FIRST, FIRST_40, MODULE, NONE, OFF, PLAIN, ROOT, Row, Time

MILLION = 1_000_000
# Share of the bare interpreter's own growth with the number of distributions. Any import can trigger a garbage
# collection, which visits the import system's cache of site-packages: 0.2 M instructions for 1,000 distributions.
FLAT = 0.05
SHARE = 0.01  # of a build


class Target(NamedTuple):
    """What is measured, its limit, its value, and whether the limit is met."""

    what: str
    limit: str
    figure: str
    met: bool


def evaluate(
    version: tuple[int, int], rows: Sequence[Row], times: Sequence[Time], grown: Sequence[Growth]
) -> Iterator[Target]:
    """Compare the figures of an interpreter of *version* with the limits."""
    over = {(row.state, row.byte_code): row.instructions for row in rows}
    first_process = {True: 1.5 * MILLION, False: 1.15 * over[PLAIN, False]}
    # From 3.15 on, a .start file runs, which cannot keep a child from importing this package.
    child = {True: 0.5 * MILLION, False: 0.5 * MILLION} if version < (3, 15) else first_process
    for state, byte_code, limit in (
        (CHILD, True, child[True]),
        (CHILD, False, child[False]),
        (ROOT, True, first_process[True]),
        (ROOT, False, first_process[False]),
        (NONE, True, 1.2 * MILLION),
        (OFF, True, 1.2 * MILLION),
    ):
        instructions = over[state, byte_code]
        yield Target(_title(state, byte_code), millions(limit), millions(instructions), instructions <= limit)

    wall = {(time.state, time.byte_code): time.milliseconds for time in times}
    for state in (FIRST, FIRST_40):
        for byte_code in (True, False):
            starts = wall[state, byte_code] / wall[BARE, byte_code]
            yield Target(f"{_title(state, byte_code)}: wall time", "3 bare starts", f"{starts:.2f}", starts <= 3)

    _, bare, _ = _increase(grown, DISTRIBUTIONS, BARE)
    for state in (CHILD, ROOT, NONE):
        size, instructions, calls = _increase(grown, DISTRIBUTIONS, state)
        flat = instructions <= FLAT * bare and calls <= 0
        most, figure = f"{millions(FLAT * bare)}, +0 calls", f"{millions(instructions)}, {calls:+} calls"
        yield Target(f"{state}: {size:,} more distributions", most, figure, flat)
    _, _, importing = _increase(grown, PATHS, MODULE)  # without the import system's own look-ups
    for state in (CHILD, ROOT, NONE):
        size, _, calls = _increase(grown, PATHS, state)
        ours = max(calls - importing, 0) / size
        yield Target(f"{state}: per sys.path entry", "2 calls", f"{ours:.2f} calls", ours <= 2)


def evaluate_builds(measured: Builds) -> Iterator[Target]:
    """Compare our share of the builds with the limit."""
    for build in measured.builds:
        share = measured.ours(build) / sum(build.seconds.values())
        yield Target(f"ours: of {build.name}", f"{SHARE:.2%}", f"{share:.2%}", share < SHARE)


def millions(instructions: float) -> str:
    return f"{instructions / MILLION:+.2f} M"


def _title(state: str, byte_code: bool) -> str:
    return state if byte_code else f"{state}, no byte code"


def _increase(grown: Sequence[Growth], what: str, state: str) -> tuple[int, int, int]:
    """The differences in size, instructions and system calls between the smallest and the largest size."""
    few, *_, many = (row for row in grown if (row.what, row.state) == (what, state))
    return many.size - few.size, many.instructions - few.instructions, many.system_calls - few.system_calls
