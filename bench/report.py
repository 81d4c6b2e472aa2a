"""Format the results as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from builds import Builds
from caches import Row as CacheRow
from check import Counts
from growth import Growth
from startup import BARE, Row, Time
from targets import Target, millions


def startup(python: str, rows: Sequence[Row], times: Sequence[Time]) -> Iterator[str]:
    """An interpreter's counts and times."""
    over = {(row.state, row.byte_code): row for row in rows}
    bare = over[BARE, True]
    yield f"\nCPython {python}: a bare virtualenv's start takes {bare.instructions:,} instructions and"
    yield f"{bare.system_calls} system calls; over that:"
    table = [["", "with byte code", "calls", "without", "calls"]]
    for name in dict.fromkeys(row.state for row in rows if row.state != BARE):
        cells = [over[name, byte_code] for byte_code in (True, False)]
        table.append([name, *(text for row in cells for text in (millions(row.instructions), f"{row.system_calls:+}"))])
    yield from aligned(table)
    wall = {(time.state, time.byte_code): time.milliseconds for time in times}
    table = [["wall time, and in bare starts", "with byte code", "", "without", ""]]
    for name in dict.fromkeys(time.state for time in times):
        texts = []
        for byte_code in (True, False):
            time = wall[name, byte_code]
            texts += [f"{time:.1f} ms", f"{time / wall[BARE, byte_code]:.2f}"]
        table.append([name, *texts])
    yield from aligned(table)


def growth(rows: Sequence[Growth]) -> Iterator[str]:
    """A table for each kind of growth: instructions and system calls by size."""
    for what in dict.fromkeys(row.what for row in rows):
        found = {(row.state, row.size): row for row in rows if row.what == what}
        sizes = sorted({size for _, size in found})
        yield ""
        table = [[what, *(f"{size:,}" for size in sizes)]]
        for name in dict.fromkeys(name for name, _ in found):
            cells = [found[name, size] for size in sizes]
            if name == BARE:  # its whole cost
                table.append([name, *(f"{cell.instructions / 1e6:.2f} M {cell.system_calls:5}" for cell in cells)])
            else:
                table.append([name, *(f"{millions(cell.instructions)} {cell.system_calls:+5}" for cell in cells)])
        yield from aligned(table)


def targets(rows: Iterable[Target]) -> Iterator[str]:
    """The targets, and whether they are met."""
    yield ""
    table = [["target", "at most", "is", ""]]
    yield from aligned([*table, *([*row[:3], "met" if row.met else "NOT MET"] for row in rows)])


def builds(measured: Builds) -> Iterator[str]:
    """The seconds of each phase of each build, and our share at most."""
    yield f"without isolation the toolkit is {measured.installed}"
    for name, milliseconds in measured.milliseconds.items():
        yield f"{milliseconds:.1f} ms: a start, {name}"
    phases = list(measured.builds[0].seconds)
    table = [["seconds", *phases, "total", "ours", "our starts"]]
    for build in measured.builds:
        seconds = [f"{value:.1f}" for value in (*build.seconds.values(), sum(build.seconds.values()))]
        table.append([build.name, *seconds, f"{measured.ours(build):.3f}", str(build.starts)])
    yield from aligned(table)


def caches(rows: Sequence[CacheRow]) -> Iterator[str]:
    """The seconds of each pair of builds, and how much the second took from the cache."""
    table = [["seconds", "", "cold", "warm", "CUDA code from the cache"]]
    for row in rows:
        table.append([row.project, row.name, f"{row.cold:.1f}", f"{row.warm:.1f}", f"{row.hits} of {row.files}"])
    yield from aligned(table)


def counts(found: Counts, before: Counts | None) -> Iterator[str]:
    """The instruction counts beside the recorded ones."""
    table = [["instructions", "now", "recorded"]]
    for name, figure in found.items():
        table.append([name, f"{figure:,}", f"{before[name]:,}" if before else "-"])
    yield from aligned(table)


def aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows as lines: the first column aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*table)]
    for first, *others in table:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        yield "  ".join(cells).rstrip()
