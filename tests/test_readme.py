"""What the README says."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from conftest import PROJECT, run


def test_the_example_command(hostile: dict[str, str], offline: dict[str, str], tmp_path: Path) -> None:
    """``python3 examples`` in a fresh copy, with an index that is a directory."""
    ignored = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
    checkout = shutil.copytree(PROJECT, tmp_path / "checkout", ignore=ignored)
    environ = {**hostile, **offline}
    printed = run([sys.executable, "examples"], env=environ, cwd=checkout)
    example = (PROJECT / "README.md").read_text().partition("The toolkit of the build:")[2].partition("```")[0]
    for line in example.splitlines():
        if line.strip() not in ("", "...") and "/tmp/" not in line:  # noqa: S108
            assert line in printed
    (root,) = set(re.findall(r"toolkit = (.*)", printed))
    assert "/pip-build-env-" in root
