"""What docs/upstream.md proposes to others: its commands show what is wrong, and its patches mend it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import layout
import pytest
from conftest import PROJECT, VEnv, by_default, make_wheel, run, without_cuda
from test_readme import in_order
from toolkits import MINIMAL, MIXED, NEWEST

PAGE = (PROJECT / "docs" / "upstream.md").read_text()
PATCHES = PROJECT / "docs" / "patches"
FIND_CCCL = "cmake_minimum_required(VERSION 3.25)\nproject(probe LANGUAGES CXX)\nfind_package(CCCL REQUIRED)\n"


def commands(heading: str) -> list[tuple[str, str]]:
    """The commands of a section, each with what it prints."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    shown = "".join(re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    return re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", shown, re.MULTILINE)


def shell(command: str, environ: dict[str, str], cwd: Path) -> str:
    """What a person sees who types *command*."""
    return run([*without_cuda(), "sh", "-c", f"{{ {command}; }} 2>&1; true"], env=environ, cwd=cwd)


def patch(name: str, directory: Path) -> None:
    run(["git", "apply", PATCHES / f"{name}.patch"], cwd=directory)


@pytest.fixture
def environ(full: VEnv, clean: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A shell in an environment with every component, whose files other tests do not share where these write."""
    full.environ(env=clean)
    wheels = run(["cp", "-al", full.site / "nvidia" / "cu13", tmp_path / "cu13"]) or tmp_path / "cu13"
    tools = Path(sys.executable).parent
    (tmp_path / "bin").mkdir()
    for name in ("cmake", "ninja"):
        (tmp_path / "bin" / name).symlink_to(tools / name)
    path = os.pathsep.join([str(tmp_path / "bin"), clean["PATH"]])
    return {**clean, "PATH": path, "WHEELS": str(wheels), "ROOT": str(full.root), "CMAKE_GENERATOR": "Ninja"}


def test_the_missing_pins(offline: dict[str, str], wheelhouse: Path, clean: dict[str, str], tmp_path: Path) -> None:
    ((command, printed),) = commands("cuda-toolkit: the missing pins")
    assert f"=={MIXED}" in command
    uvx = f"{Path(sys.executable).parent}/{command}"
    in_order(printed, shell(uvx, {**clean, **offline}, tmp_path))

    (wheel,) = wheelhouse.glob(f"cuda_toolkit-{MIXED}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        (tmp_path / "METADATA").write_bytes(archive.read(name))
    patch(f"cuda-toolkit-{MIXED}", tmp_path)
    fields = (tmp_path / "METADATA").read_text().partition("\n\n")[0].splitlines()
    version = f"{MIXED}.post1"
    assert f"Version: {version}" in fields
    fields = [field for field in fields if re.match("Provides-Extra|Requires-Dist", field)]
    make_wheel(tmp_path, "cuda-toolkit", version, {}, *fields)
    index = {**clean, **offline, "UV_FIND_LINKS": f"{offline['UV_FIND_LINKS']},{tmp_path}"}
    report = shell(f"{uvx.replace(MIXED, version)} --json", index, tmp_path)
    assert json.loads(report[report.index("{") :])["findings"] == []


def test_names_for_linkers(environ: dict[str, str], tmp_path: Path) -> None:
    for command, printed in commands("The wheels: names for linkers"):
        in_order(printed, shell(command, environ, tmp_path))


def test_cccls_header_search(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "CMakeLists.txt").write_text(FIND_CCCL)
    (failing, message), (working, printed) = commands("The wheels: CCCL's header search")
    in_order(message, shell(failing, environ, tmp_path))
    cccl = tmp_path / "cu13" / "cccl"
    shutil.copytree(cccl, tmp_path / "copy")  # the files themselves are other tests', too
    shutil.rmtree(cccl)
    (tmp_path / "copy").rename(cccl)
    patch("cccl", cccl)
    in_order(printed.replace("nvidia/cu13", tmp_path.name + "/cu13"), shell(working, environ, tmp_path))


@pytest.mark.everything
def test_import_libraries(pytestconfig: pytest.Config) -> None:
    cache = Path(pytestconfig.cache.mkdir("wheel-layouts"))
    files = layout.survey("win_amd64", cache, [NEWEST])[NEWEST]
    libraries = {path.rpartition("/")[2].lower() for path in files if path.endswith(".lib")}
    wheels = {wheel.partition("-")[0] for path, wheel in files.items() if path.endswith(".dll")}
    lacking = {
        wheel
        for wheel in wheels
        if not any(path.endswith(".lib") for path, other in files.items() if other.startswith(f"{wheel}-"))
    }
    assert "cudart.lib" in libraries
    named = re.findall(r"DLLs\s+and\s+headers\s+of\s(.*?),\s+and\s+no\s+import", PAGE, re.DOTALL)[0]
    names = {name.strip().lower() for name in re.split(r",|\band\b", named)}
    assert {wheel.removeprefix("nvidia_").removeprefix("cuda_") for wheel in lacking} >= names
    ((command, printed),) = commands("The wheels: import libraries for Windows")
    assert (re.findall(r"nvidia_\w+", command), printed.strip()) == (["nvidia_cublas"], "0")


def test_the_drivers_stubs(environ: dict[str, str], tmp_path: Path) -> None:
    for command, printed in commands("The wheels: the driver's stubs"):
        in_order(printed, shell(command, environ, tmp_path))


def test_find_cuda_toolkit(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    shutil.copy(PATCHES / "targets.cmake", tmp_path / "targets" / "CMakeLists.txt")
    (module,) = Path(sys.prefix).glob(
        "lib/python*/site-packages/cmake/data/share/cmake-*/Modules/FindCUDAToolkit.cmake"
    )
    (tmp_path / "modules").mkdir()
    shutil.copy(module, tmp_path / "modules")
    patch("FindCUDAToolkit", tmp_path / "modules")
    (failing, message), (working, printed) = commands("CMake: FindCUDAToolkit for wheels")
    in_order(message, shell(failing, environ, tmp_path))
    said = shell(working, environ, tmp_path)
    in_order(printed.replace("nvidia/cu13", tmp_path.name + "/cu13"), said)

    def targets(said: str) -> set[str]:
        (found,) = re.findall(r"^-- targets: (.*)", said, re.MULTILINE)
        return set(found.split(";"))

    by_root = shell('PATH="$ROOT/bin:$PATH" cmake -S targets -B root', environ, tmp_path)
    assert targets(by_root) - targets(said) == {"CUDA::cuda_driver", "CUDA::nvml"}
    assert targets(said) <= targets(by_root)
    assert len(targets(said)) > 30


def test_paths_that_stay(offline: dict[str, str], hostile: dict[str, str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    requires = ["setuptools", "cuda-build-activate", MINIMAL]
    text = f"[build-system]\nrequires = {requires}\n[project]\nname = 'probe'\nversion = '1'\n"
    (project / "pyproject.toml").write_text(text)
    ((command, printed),) = commands("pip and uv: stable paths")
    environ = {**by_default(hostile), **offline}
    in_order(printed, shell(command.replace("pip wheel", f"{sys.executable} -m pip wheel"), environ, project))


def test_every_section_has_a_row() -> None:
    sections = re.findall(r"^## (.*)", PAGE, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in sections]
    assert re.findall(r"^\| [\w, ]+ \| \[[^\]]*\]\(#([\w-]+)\)", PAGE, re.MULTILINE) == anchors
