"""What a start may cost, and whether it does not cost more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from growth import DISTRIBUTIONS, PATHS, Growth
from startup import BARE, CHILD, FIRST, FIRST_40, NONE, OFF, PLAIN, ROOT, Row, Time

MILLION = 1_000_000
FLAT = 0.1 * MILLION  # from 1 distribution to 1,000


class Target(NamedTuple):
    """What is measured, the most that it may be, what it is, and whether that is met."""

    what: str
    limit: str
    figure: str
    met: bool


def evaluate(
    version: tuple[int, int], rows: Sequence[Row], times: Sequence[Time], grown: Sequence[Growth]
) -> Iterator[Target]:
    """Compare the figures of an interpreter of that *version* with what is allowed."""
    over = {(row.state, row.byte_code): row.instructions for row in rows}
    plain = over[PLAIN, False]
    guarded = version < (3, 15)  # from there on a .start file runs, and that cannot keep a child from importing us
    child = [0.5 * MILLION, 0.5 * MILLION] if guarded else [1.5 * MILLION, 1.15 * plain]
    for name, byte_code, limit in (
        (CHILD, True, child[0]),
        (CHILD, False, child[1]),
        (ROOT, True, 1.5 * MILLION),
        (ROOT, False, 1.15 * plain),
        (NONE, True, 1.2 * MILLION),
        (OFF, True, 1.2 * MILLION),
    ):
        instructions = over[name, byte_code]
        yield Target(_title(name, byte_code), millions(limit), millions(instructions), instructions <= limit)
    wall = {(time.state, time.byte_code): time.milliseconds for time in times}
    for name in (FIRST, FIRST_40):
        for byte_code in (True, False):
            starts = wall[name, byte_code] / wall[BARE, byte_code]
            yield Target(f"{_title(name, byte_code)}, wall time", "3 bare starts", f"{starts:.2f}", starts <= 3)
    for name in (CHILD, ROOT, NONE):
        few, *_, many = (growth for growth in grown if (growth.what, growth.state) == (DISTRIBUTIONS, name))
        more, calls = many.instructions - few.instructions, many.system_calls - few.system_calls
        figure = f"{millions(more)}, {calls:+} system calls"
        met = more <= FLAT and calls <= 0
        yield Target(f"{name}: {few.size:,} to {many.size:,} distributions", f"{millions(FLAT)} (flat)", figure, met)
    for name in (CHILD, ROOT, NONE):
        few, *_, many = (growth for growth in grown if (growth.what, growth.state) == (PATHS, name))
        slope = (many.system_calls - few.system_calls) / (many.size - few.size)
        yield Target(f"{name}: system calls per sys.path entry", "2", f"{slope:.2f}", slope <= 2)


def millions(instructions: float) -> str:
    return f"{instructions / MILLION:+.2f} M"


def _title(name: str, byte_code: bool) -> str:
    return name if byte_code else f"{name}, no byte code"
