"""The pictures in docs and the figures of what this package costs: they are of the last results, and of the pages."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import diagrams
import pytest
from conftest import PROJECT, run

PICTURES = PROJECT / "docs" / "pictures"


def test_each_diagram_is_drawn() -> None:
    drawn = {path.name for path in PICTURES.glob("diagram-*.svg")}
    assert drawn == set(diagrams.sources()), "python3 tests --diagrams draws them"
    for path in PICTURES.glob("diagram-*.svg"):
        assert not [color for color in diagrams.COLORS if color in path.read_text()]


def test_plots_are_of_the_last_results(tmp_path: Path) -> None:
    bench = shutil.copytree(PROJECT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    run(["python3", bench, "--pictures"])
    made = {path.name: path.read_text() for path in (tmp_path / "docs" / "pictures").iterdir()}
    plots = {path.name: path.read_text() for path in PICTURES.iterdir() if not path.name.startswith("diagram-")}
    assert plots == made, "python3 bench --pictures draws them"


def test_the_page_has_the_last_results() -> None:
    page = (PROJECT / "docs" / "understand" / "cost.md").read_text()
    results = json.loads((PROJECT / "bench" / "result.json").read_text())

    counts = re.findall(r"\| \+([\d.]+) M \| \+([\d.]+) M \|$", page, re.MULTILINE)
    rows = [row for row in results["startup"]["states"] if row["python"].startswith("3.11.")]
    figures = {(row["state"], row["byte_code"]): f"{row['instructions'] / 1e6:.2f}" for row in rows}
    assert len(counts) == 10
    assert set(counts) <= {(figures[state, True], figures[state, False]) for state, _ in figures}

    builds = re.findall(r"\| (\d+) \| (\d+) \| (\d+) of (\d+) \|$", page, re.MULTILINE)
    timed = [row for name in ("lightgbm", "example") for row in results[f"caches, {name}"]["builds"]]
    assert builds == [
        (f"{row['cold']:.0f}", f"{row['warm']:.0f}", str(row["hits"]), str(row["files"])) for row in timed
    ]


@pytest.mark.parametrize("picture", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_fetches_nothing_and_is_small(picture: Path) -> None:
    text = picture.read_text()
    assert "href=" not in text
    assert "@import" not in text
    assert len(text) < 60_000
