"""What an interpreter start costs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A copy of the benchmark, for counts of its own."""
    if not shutil.which("valgrind"):
        pytest.skip("there is no valgrind to count instructions with")
    copy = shutil.copytree(PROJECT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    if "{}.{}".format(*sys.version_info) not in json.loads((copy / "recorded.json").read_text()):
        pytest.skip("no counts are recorded for this version of Python: python3 bench --record")
    return copy


def check(bench: Path, wheel: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(bench), "--check", "--wheel", str(wheel)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_state_has_grown_by_a_tenth(bench: Path, wheel: Path) -> None:
    done = check(bench, wheel)
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = json.loads((bench / "recorded.json").read_text())
    version = "{}.{}".format(*sys.version_info)
    states = [state for state in recorded[version] if state.startswith("ours")]
    assert len(states) == 3
    for state in states:
        recorded[version][state] = recorded[version][state] * 4 // 5
    (bench / "recorded.json").write_text(json.dumps(recorded))
    done = check(bench, wheel)
    assert done.returncode == 1
    for state in states:
        assert f"{state}: " in done.stdout + done.stderr
