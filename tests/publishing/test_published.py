"""What `audit` says of wheels as they are on PyPI is what docs/how-to/publish.md says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MACHINE, PROJECT, VEnv
from test_audit import audit

from cuda_build_activate import _libraries
from cuda_build_activate._elf import MAGIC, read

pytestmark = [pytest.mark.network, pytest.mark.everything]

PAGE = (PROJECT / "docs" / "how-to" / "publish.md").read_text()
TABLE = re.findall(r"^\| ([\w-]+) ([\w.]+) \| (\d*) ?\| (.*?) ?\|$", PAGE, re.M)
SEVERITY = {"not-required": "error", "only-with-extra": "warning", "run-path-elsewhere": "warning"}
TAGS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux2014_x86_64")


@pytest.mark.parametrize(("name", "version", "cuda", "findings"), TABLE, ids=[name for name, *_ in TABLE])
def test_a_published_wheel(name: str, version: str, cuda: str, findings: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-cache-dir",
        "--dest",
        str(tmp_path),
    ]
    command += ["--only-binary", ":all:", "--python-version", "3.11", *(f"--platform={tag}" for tag in TAGS)]
    subprocess.run([*command, f"{name}=={version}"], env=MACHINE, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    report = audit(wheel)
    wheel.unlink()  # they are large
    expected = {
        (severity or SEVERITY.get(code, "note"), code)
        for code, severity in re.findall(r"`([\w-]+)`(?: \((\w+)\))?", findings)
    }
    assert {(finding.severity, finding.code) for finding in report.findings} == expected, report.findings
    assert str(report.cuda or "") == cuda


def test_the_sonames_of_the_newest_toolkit(full: VEnv) -> None:
    """The survey goes by the names of files; these are what the files say."""
    found = 0
    for path in full.site.rglob("*.so*"):
        if path.is_symlink() or path.parts[len(full.site.parts)] not in ("nvidia", "cutensor"):
            continue
        with path.open("rb") as file:
            if file.read(4) != MAGIC:  # nvidia-cuda-cupti and others have Python files whose names go on after .so
                continue
            soname = read(file).soname
        directory = str(path.parent.relative_to(full.site))
        owners = {row.directory for row in _libraries.owners(soname)}
        if soname and not directory.endswith(("/x86", "/bin")):
            assert directory in owners, (path, soname)
            found += 1
    assert found > 50


def test_what_cudas_own_wheels_require(full: VEnv) -> None:
    for name, required in _libraries.REQUIRED.items():
        for path in full.site.glob(f"{name.replace('-', '_')}*.dist-info/METADATA"):
            found = {_libraries.base(line) for line in re.findall(r"^Requires-Dist: ([\w-]+)", path.read_text(), re.M)}
            assert set(required) <= found, path
            break
        else:
            raise AssertionError(name)
