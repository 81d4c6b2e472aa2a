"""The tutorial, docs/start-here.md: its files are written, and its commands are run, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from conftest import PROJECT, by_default, without_cuda
from test_readme import in_order

PAGE = (PROJECT / "docs" / "start-here.md").read_text()
WITHOUT_A_GPU = "RuntimeError: CUDA error 35"


def test_the_tutorial(offline: dict[str, str], tmp_path: Path) -> None:
    """With the paths of builds as they are by default, and where no CUDA of the machine's can answer."""
    files = re.findall(r"^`([\w/]+\.\w+)` [^\n]*\n(?:[^\n`]+\n)*\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert [text for _, text in files] == [text for language, text in blocks if language != "console"]
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    environ = {**by_default(os.environ), **offline}
    for language, text in blocks:
        if language != "console":
            continue
        for command, expected in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", text, re.MULTILINE):
            done = subprocess.run(
                [*without_cuda(), "sh", "-c", command],
                env=environ,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if WITHOUT_A_GPU in expected and done.returncode == 0:
                assert re.fullmatch(r"\[[1-6](, [1-6]){4}\]\n", done.stdout)
                continue
            in_order("\n".join(line for line in expected.splitlines() if line != "..."), done.stdout)
            assert done.returncode == (1 if "rror: " in expected else 0), done.stdout
