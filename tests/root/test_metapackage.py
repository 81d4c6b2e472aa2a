"""`cuda-toolkit[build-system]`, this package's own extras, and metadata that depends on the toolkit of the build."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import PROJECT, Argument, VEnv, block, copy_example, make_wheel, run
from toolkits import NEWEST, TOOLKITS, TORCH, minor_version

from cuda_build_activate._toolkit import versions

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
    project = copy_example(tmp_path / "project")
    pyproject = (project / "pyproject.toml").read_text()
    # The example also links cuBLAS.
    listed = (
        block('requires = ["scikit-build-core", "cuda-toolkit[build-system').replace("nvcc,", "nvcc,cublas,").strip()
    )
    pyproject, count = re.subn(r"^requires = \[.*?^\]", listed, pyproject, count=1, flags=re.DOTALL | re.MULTILINE)
    assert count == 1
    pyproject = pyproject.replace('minimum-version = "build-system.requires"', "")  # the documented line has none
    assert "cuda-build-activate" not in pyproject
    (project / "pyproject.toml").write_text(pyproject)
    environ = {**hostile, **offline, "CUDAARCHS": "86"}
    environ["PIP_FIND_LINKS"] += f" {proposed}"
    environ["UV_FIND_LINKS"] += f",{proposed}"
    log = run([*front_end, tmp_path / "out", project], env=environ, cwd=tmp_path)
    (root,) = re.findall(r"skbuild-demo: toolkit = (.*)", log)
    assert re.fullmatch(r".*/site-packages/cuda-build-activate/cu13", root)
    assert len(list((tmp_path / "out").glob("skbuild_demo-*.whl"))) == 1


@pytest.mark.parametrize("front_end", ["pip", "uv"])
@pytest.mark.parametrize("version", ["13.2.2", NEWEST])
def test_a_wheel_requires_the_cuda_that_it_was_built_with(
    version: str, front_end: str, offline: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> None:
    project = shutil.copytree(PROJECT / "examples" / "variant", tmp_path / "project")
    (tmp_path / "constraints.txt").write_text(f"cuda-toolkit=={version}\n")
    environ = {**hostile, **offline, "CUDAARCHS": "86"}
    environ |= dict.fromkeys(("PIP_BUILD_CONSTRAINT", "UV_BUILD_CONSTRAINT"), str(tmp_path / "constraints.txt"))
    run([*(UV if front_end == "uv" else PIP), tmp_path, project], env=environ, cwd=tmp_path)
    (wheel,) = tmp_path.glob("variant_demo-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    requirement = metadata["Requires-Dist"].replace(" ", "")
    assert set(requirement.removeprefix("nvidia-cuda-runtime").split(",")) == {f">={minor_version(version)}", "<14"}


def extra(release: str) -> str:
    """The extra for the minor version of *release*."""
    return f"cuda-build-activate[cu{minor_version(release).replace('.', '')}]"


def install(venv: VEnv, installer: str, index: Mapping[str, str], *requirements: str) -> None:
    if installer == "uv":
        venv.install(*requirements, index=index)
    else:
        pip: list[Argument] = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            venv.python,
            "install",
            "--quiet",
            "--no-cache-dir",
        ]
        run([*pip, *requirements], env={**os.environ, **index})


def components(venv: VEnv) -> dict[str, str]:
    """The minor version of what has to be of one."""
    names = ("nvidia_cuda_nvcc", "nvidia_nvvm", "nvidia_cuda_crt", "nvidia_cuda_runtime")
    installed = versions([str(venv.site)])
    return {name: minor_version(installed[name]) for name in names}


@pytest.mark.parametrize("installer", ["pip", "uv"])
@pytest.mark.parametrize("release", TOOLKITS)
def test_the_components_of_an_extra_are_of_one_version(
    release: str, installer: str, offline: dict[str, str], clean: dict[str, str], tmp_path: Path
) -> None:
    """While the index has newer ones, which the metapackage of 13.0 and 13.1 lets in."""
    venv = VEnv(tmp_path / "venv")
    install(venv, installer, offline, extra(release))
    assert set(components(venv).values()) == {minor_version(release)}
    done = venv.python_("-m", "cuda_build_activate", "doctor", "--compile", "--json", env=clean)
    report = json.loads(done.stdout)
    assert (report["findings"], len(report["passed"])) == ([], 2)


@pytest.mark.parametrize("installer", ["pip", "uv"])
@pytest.mark.parametrize("version", TORCH)
def test_an_extra_beside_pytorch(
    version: str, installer: str, offline: dict[str, str], clean: dict[str, str], tmp_path: Path
) -> None:
    """A stand-in for PyTorch that pins the toolkit as the real one does, and says what it was built with."""
    toolkit = TORCH[version]
    cuda = minor_version(toolkit)
    described = f"__version__ = '{version}'\ncuda = '{cuda}'\n"
    pin = f"Requires-Dist: cuda-toolkit[cudart]=={toolkit}"
    # A local version is preferred to the real one, which other tests have fetched.
    make_wheel(tmp_path, "torch", f"{version}+standin", {"torch/version.py": described}, pin)
    index = {**offline, "PIP_FIND_LINKS": f"{offline['PIP_FIND_LINKS']} {tmp_path}"}
    index["UV_FIND_LINKS"] += f",{tmp_path}"
    venv = VEnv(tmp_path / "venv")
    install(venv, installer, index, f"torch=={version}", extra(toolkit))
    assert set(components(venv).values()) == {cuda}
    done = venv.python_("-m", "cuda_build_activate", "doctor", "--json", env=clean)
    assert json.loads(done.stdout)["findings"] == []


def test_each_minor_version_has_an_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        provided = email.message_from_bytes(archive.read(name)).get_all("Provides-Extra", [])
    expected = {extra(release).partition("[")[2].rstrip("]") for release in TOOLKITS}
    assert {name for name in provided if re.fullmatch(r"cu\d\d\d", name)} == expected
