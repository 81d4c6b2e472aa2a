"""A release that nobody knew when the tests were written: what `python3 tests --news` says of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import MACHINE, PROJECT, make_wheel
from toolkits import MORE_PRODUCTS, NEWEST, PRODUCTS, TORCH, release_lock

TOOLKIT = {"nvidia/cu13/bin/nvcc": "", "nvidia/cu13/include/cuda_runtime_api.h": ""}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A directory that is an index, with the newest release that the tests know."""
    directory = tmp_path / "index"
    directory.mkdir()
    for line in release_lock(NEWEST).read_text().splitlines():
        name, _, version = line.partition("==")
        if name in (*PRODUCTS, *MORE_PRODUCTS):
            make_wheel(directory, name, version, {})
    make_wheel(directory, "torch", [*TORCH][-1], {})
    make_release(directory, NEWEST, TOOLKIT)
    return directory


def make_release(index: Path, version: str, files: Mapping[str, str]) -> None:
    make_wheel(index, "nvidia-cuda-nvcc", f"{version}.1", files)
    extra = ("Provides-Extra: all", f"Requires-Dist: nvidia-cuda-nvcc=={version}.1; extra == 'all'")
    make_wheel(index, "cuda-toolkit", version, {}, *extra)


def news(index: Path) -> tuple[int, str]:
    environ = {**MACHINE, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "UV_FIND_LINKS": str(index)}
    # uv's own cache may hold what another index has of these.
    environ |= {"UV_CACHE_DIR": str(index.parent / "cache"), "UV_OFFLINE": "1", "TMPDIR": str(index.parent)}
    command = [sys.executable, str(PROJECT / "tests" / "news.py")]
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def test_nothing_is_new(index: Path) -> None:
    assert news(index) == (0, "Nothing is new.\n")


def test_a_release_with_an_unknown_layout(index: Path) -> None:
    make_release(index, "99.1.0", {**TOOLKIT, "nvidia/cu13/odd/place.h": ""})
    status, said = news(index)
    assert status == 1
    assert "New: cuda-toolkit 99.1.0\n" in said
    assert "nvidia_cuda_nvcc-99.1.0.1-py3-none-any.whl has files in nvidia/cu13/odd" in said
    for place in ("LAYOUT", "NOT_NEEDED", 'Add "99.1.0" to RELEASES in tests/toolkits.py', "python3 tests --lock"):
        assert place in said


def test_a_product_that_is_newer(index: Path) -> None:
    make_wheel(index, "nvidia-nccl-cu13", "99.0", {"nvidia/nccl/elsewhere/nccl.h": ""})
    status, said = news(index)
    assert status == 1
    assert "New: nvidia-nccl-cu13 99.0, where the tests have " in said
    assert "has files in nvidia/nccl/elsewhere" in said
    assert "RELEASES" not in said


def test_a_pytorch_that_is_new(index: Path) -> None:
    make_wheel(index, "torch", "99.0.0", {}, f"Requires-Dist: cuda-toolkit=={NEWEST}; sys_platform == 'linux'")
    status, said = news(index)
    assert status == 1
    assert f"New: torch 99.0.0, which requires cuda-toolkit {NEWEST}" in said
    assert f'Add "99.0.0": "{NEWEST}" to TORCH in tests/toolkits.py' in said
