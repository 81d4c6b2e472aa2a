"""`cuda-toolkit[build-system]`, and metadata that depends on the toolkit of the build."""

from __future__ import annotations

import email
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import PROJECT, block, run
from toolkits import NEWEST, minor_version

PIP = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--verbose", "--no-cache-dir", "--wheel-dir"]
UV = [sys.executable, "-m", "uv", "build", "--wheel", "--verbose", "--out-dir"]


@pytest.fixture
def proposed(wheelhouse: Path, tmp_path: Path) -> Path:
    """A directory with the metapackage that has the extra."""
    (wheel,) = wheelhouse.glob(f"cuda_toolkit-{NEWEST}-*.whl")
    (tmp_path / "proposed").mkdir()
    run([sys.executable, PROJECT / "examples" / "build_system_extra.py", wheel, tmp_path / "proposed"])
    return tmp_path / "proposed"


def test_the_extra_is_two_lines_of_metadata(proposed: Path, wheelhouse: Path) -> None:
    def metadata(wheel: Path) -> list[str]:
        with zipfile.ZipFile(wheel) as archive:
            assert archive.testzip() is None
            (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
            return archive.read(name).decode().splitlines()

    (original,) = wheelhouse.glob(f"cuda_toolkit-{NEWEST}-*.whl")
    (made,) = proposed.iterdir()
    before, after = metadata(original), metadata(made)
    lines = ["Provides-Extra: build-system", "Requires-Dist: cuda-build-activate; extra == 'build-system'"]
    assert [line for line in after if line not in before] == [f"Version: {NEWEST}+build.system", *lines]
    assert len(after) == len(before) + 2
    assert block("Provides-Extra: build-system").splitlines() == lines


@pytest.mark.parametrize("front_end", [PIP, UV], ids=["pip", "uv"])
def test_the_extra_is_all_that_a_project_lists(
    front_end: list[str], proposed: Path, offline: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> None:
    project = shutil.copytree(PROJECT / "examples" / "skbuild", tmp_path / "project")
    pyproject = (project / "pyproject.toml").read_text()
    # The example also links cuBLAS.
    listed = (
        block('requires = ["scikit-build-core", "cuda-toolkit[build-system').replace("nvcc,", "nvcc,cublas,").strip()
    )
    pyproject, count = re.subn(r"^requires = \[.*?^\]", listed, pyproject, count=1, flags=re.DOTALL | re.MULTILINE)
    assert count == 1
    pyproject = pyproject.replace('minimum-version = "build-system.requires"', "")  # the README's line has none
    assert "cuda-build-activate" not in pyproject
    (project / "pyproject.toml").write_text(pyproject)
    environ = {**hostile, **offline, "CUDAARCHS": "86"}
    environ["PIP_FIND_LINKS"] += f" {proposed}"
    environ["UV_FIND_LINKS"] += f",{proposed}"
    log = run([*front_end, tmp_path / "out", project], env=environ, cwd=tmp_path)
    (root,) = re.findall(r"skbuild-demo: toolkit = (.*)", log)
    assert re.fullmatch(r".*/site-packages/cuda-build-activate/cu13", root)
    assert len(list((tmp_path / "out").glob("skbuild_demo-*.whl"))) == 1


@pytest.mark.parametrize("version", ["13.2.2", NEWEST])
def test_a_wheel_requires_the_cuda_that_it_was_built_with(
    version: str, offline: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> None:
    project = shutil.copytree(PROJECT / "examples" / "variant", tmp_path / "project")
    (tmp_path / "constraints.txt").write_text(f"cuda-toolkit=={version}\n")
    environ = {**hostile, **offline, "CUDAARCHS": "86"}
    run([*UV, tmp_path, "--build-constraints", tmp_path / "constraints.txt", project], env=environ, cwd=tmp_path)
    (wheel,) = tmp_path.glob("variant_demo-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    requirement = metadata["Requires-Dist"].replace(" ", "")
    assert set(requirement.removeprefix("nvidia-cuda-runtime").split(",")) == {f">={minor_version(version)}", "<14"}
