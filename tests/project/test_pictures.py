"""The pictures in docs are of what the pages, and bench's last results, have."""

from __future__ import annotations

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


@pytest.mark.parametrize("picture", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_fetches_nothing_and_is_small(picture: Path) -> None:
    text = picture.read_text()
    assert "href=" not in text
    assert "@import" not in text
    assert len(text) < 60_000
