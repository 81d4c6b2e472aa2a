"""From a project that knows nothing of run paths to a library that loads where it is installed."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, VEnv, run, without_cuda
from test_audit import audit, silent

from cuda_build_activate import _repair

SONAMES = ("libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libnccl.so.2", "libcudart.so.13")
LOAD = """
import json, linked
versions = linked.versions()
with open("/proc/self/maps") as maps:
    print(json.dumps([versions, sorted({line.split(None, 5)[5].strip() for line in maps if ".so" in line})]))
"""


@pytest.fixture(scope="module")
def built(offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built in isolation."""
    directory = tmp_path_factory.mktemp("linked")
    project = PROJECT / "tests" / "packages" / "linked"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "uv",
        "build",
        "--quiet",
        "--wheel",
        "--out-dir",
        directory,
        project,
    ]
    run(command, env={**os.environ, **offline})
    (wheel,) = directory.glob("*.whl")
    return wheel


def install(venv: VEnv, installer: str, wheel: Path, offline: dict[str, str]) -> None:
    if installer == "uv":
        venv.install(wheel, index=offline)
    else:
        command: list[str | Path] = [sys.executable, "-m", "pip", "--python", venv.python, "install", "--quiet", wheel]
        run(command, env={**os.environ, **offline})


def test_it_is_found_wanting(built: Path) -> None:
    report = audit(built)
    assert [finding.code for finding in report.findings] == ["not-required", "run-path-misses"]
    (file,) = report.distribution.files
    assert file.place == "linked/inner/deep/linked.so"
    assert file.elf.device_code == ("compute_90", "sm_100f", "sm_90") or "sm_100f" in file.elf.device_code


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_repaired_it_loads_from_the_environment(
    installer: str, built: Path, offline: dict[str, str], clean: dict[str, str], tmp_path: Path
) -> None:
    venv = VEnv(tmp_path / "venv")
    venv.prefix = without_cuda()
    install(venv, installer, built, offline)
    done = venv.start(LOAD, env=clean)
    assert re.search(r"lib\w+\.so\.\d+: cannot open shared object file", done.stderr)

    target, _ = _repair.repair(str(built), str(tmp_path / "wheelhouse"), silent)
    venv.uninstall("linked")
    install(venv, installer, Path(target), offline)
    assert "LD_LIBRARY_PATH" not in clean
    done = venv.start(LOAD, env=clean)
    assert done.returncode == 0, done.stderr
    (cublas, curand, nccl, cudart), loaded = json.loads(done.stdout)
    assert (cublas, curand // 1000, nccl // 10000, cudart // 1000) == (13, 10, 2, 13)
    for soname in SONAMES:
        assert (
            [path for path in loaded if soname in path]
            == [path for path in loaded if soname in path and path.startswith(f"{venv.site}/nvidia/")]
            != []
        ), soname
