"""Draw the results for the pages: bars in SVG, readable on light and on dark backgrounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import startup
from environments import PREFERRED

WIDTH, ROW, LABEL, VALUE = 760, 26, 290, 70
# An SVG that is shown as an image does not know the page's background: it has its own.
STYLE = """
text { font: 13px sans-serif; fill: #222 } .title { font-weight: bold } .note { font-size: 11px; fill: #666 }
.ground { fill: #fff; stroke: #ddd } .a { fill: #8a8f98 } .b { fill: #2e7d32 } .c { fill: #b7bcc4 } .d { fill: #d9dce1 }
@media (prefers-color-scheme: dark) {
text { fill: #ddd } .note { fill: #999 }
.ground { fill: #1e2129; stroke: #333 }
.a { fill: #7d8590 } .b { fill: #66bb6a } .c { fill: #565d68 } .d { fill: #3b414b }
}
"""
INSTALL, CONFIGURE, COMPILE, PACK = "dacd"


class Bar(NamedTuple):
    """A row: its parts (each a class of STYLE, and a value), and the text after it."""

    label: str
    parts: Sequence[tuple[str, float]]
    text: str


def write(results: Mapping[str, Any], directory: Path) -> None:
    """Write the pictures of the *results* to *directory*."""
    (directory / "startup.svg").write_text(_startup(results["startup"]))
    (directory / "builds.svg").write_text(_builds(results["builds"]))
    for section in [name for name in results if name.startswith("caches, ")]:
        project = section.partition(", ")[2]
        (directory / f"caches-{project}.svg").write_text(_caches(results[section], project))


def _startup(found: Mapping[str, Any]) -> str:
    version = ".".join(map(str, PREFERRED))
    rows = [row for row in found["states"] if row["python"].startswith(f"{version}.") and row["byte_code"]]
    counts = {row["state"]: row["instructions"] / 1e6 for row in rows}
    bare = counts[startup.BARE]
    # Without those that would make the others invisible; the page has them in a table.
    shown = {state: count for state, count in counts.items() if state != startup.BARE and count < bare / 10}
    bars = [
        Bar(
            state.replace("ours: ", "this package, "),
            [("b" if state.startswith("ours") else "a", count)],
            f"+{count:.2f} M",
        )
        for state, count in shown.items()
    ]
    note = f"CPython {rows[0]['python']} with byte code; a bare start takes {bare:.1f} M. Counted on {found['date']}."
    return _drawn("What is added to a Python start, in millions of instructions", bars, note)


def _builds(found: Mapping[str, Any]) -> str:
    classes = dict(zip(("install", "configure", "compile", "pack"), (INSTALL, CONFIGURE, COMPILE, PACK)))
    bars = []
    for build in found["builds"]:
        seconds = build["seconds"]
        total = sum(seconds.values())
        share = f", {build['ours'] / total:.1%} ours" if build["ours"] else ""
        parts = [(classes[phase], value) for phase, value in seconds.items()]
        bars.append(Bar(build["name"], parts, f"{total:.1f} s{share}"))
    note = f"From left: install, configure, compile, pack. Two cores, wheels in the cache. Measured on {found['date']}."
    return _drawn("A build of the example, in seconds", bars, note)


def _caches(found: Mapping[str, Any], project: str) -> str:
    bars = []
    for build in found["builds"]:
        if build["project"] == project:
            name = build["name"].replace("stable path off", "off").replace(" --no-build-isolation", ", no isolation")
            hits = f" s, {build['hits']} of {build['files']}"
            bars += [Bar(name, [("a", build["cold"])], f"{build['cold']:.0f} s")]
            bars += [Bar("again", [("b", build["warm"])], f"{build['warm']:.0f}{hits}")]
    note = f"ccache, empty at first; so many CUDA files came from it. off: no stable path. Measured on {found['date']}."
    return _drawn(f"{project}, built twice with a compile cache", bars, note)


def _drawn(title: str, bars: Sequence[Bar], note: str) -> str:
    longest = max(sum(value for _, value in bar.parts) for bar in bars)
    scale = (WIDTH - LABEL - 2 * VALUE - 30) / longest
    height = 44 + ROW * len(bars) + 28
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        f'<text class="title" x="16" y="28">{escape(title)}</text>',
        *(line for row, bar in enumerate(bars) for line in _row(bar, 44 + ROW * row, scale)),
        f'<text class="note" x="16" y="{height - 14}">{escape(note)}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _row(bar: Bar, top: int, scale: float) -> Iterable[str]:
    yield f'<text x="{LABEL}" y="{top + 16}" text-anchor="end">{escape(bar.label)}</text>'
    left = LABEL + 10.0
    for kind, value in bar.parts:
        yield f'<rect class="{kind}" x="{left:.1f}" y="{top + 4}" width="{value * scale:.1f}" height="{ROW - 8}"/>'
        left += value * scale
    yield f'<text x="{left + 8:.1f}" y="{top + 16}">{escape(bar.text)}</text>'
