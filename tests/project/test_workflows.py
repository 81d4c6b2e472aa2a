"""The example, built in isolation by what people run projects and their tests with."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import STABLE, VEnv, copy_example, fetch, index_of, run
from toolkits import NEWEST, lock, minor_version

pytestmark = pytest.mark.everything


class Workflow(NamedTuple):
    """A program, and how it is told to build a project.

    arguments: of the program, with {python}. files: what it reads in the project, each appended to what is there, with
    {index}, from where it installs.
    """

    arguments: str
    files: dict[str, str] = {}  # noqa: RUF012  # nobody changes it


TOX = """
[tox]
env_list = demo
[testenv]
package = wheel
pass_env = *
commands = python -c "import skbuild_demo"
[testenv:.pkg]
pass_env = *
"""
NOX = """
import nox

@nox.session
def demo(session):
    session.install(".")
    session.run("python", "-c", "import skbuild_demo")
"""
PDM = """
[[tool.pdm.source]]
name = "pypi"
url = "{index}/simple/"
"""
POETRY = """
[[tool.poetry.source]]
name = "here"
url = "{index}/simple/"
priority = "primary"
"""
WORKFLOWS = {
    "tox": Workflow("run", {"tox.ini": TOX}),
    "nox": Workflow("--session demo", {"noxfile.py": NOX}),
    "hatch": Workflow("build --target wheel"),
    "pdm": Workflow("build -v --no-sdist", {"pyproject.toml": PDM}),
    "poetry": Workflow("build --format wheel", {"pyproject.toml": POETRY}),
    "uv": Workflow("sync --no-editable --python {python}"),
    "uv tool": Workflow(
        "install --python {python} .",
        {"pyproject.toml": '\n[project.scripts]\nskbuild-demo = "skbuild_demo.__main__:main"\n'},
    ),
}


@pytest.fixture
def index(offline: dict[str, str], temporary: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A hostile environment with a home of its own in which front ends install what was fetched, and nothing else."""
    (tmp_path / "home").mkdir()
    return {**temporary, **offline, "CUDAARCHS": "86", "HOME": str(tmp_path / "home")}


@pytest.fixture
def program(
    request: pytest.FixtureRequest, wheelhouse: Path, wheel: Path, pytestconfig: pytest.Config, tmp_path: Path
) -> list[str]:
    """The program of the test's parameter, installed in an environment of its own."""
    name, *more = str(request.param).split()
    if name == "uv":
        return [sys.executable, "-m", name, *more]
    if sys.version_info < (3, 10):
        pytest.skip("some of them want Python 3.10")
    fetch("front ends", pytestconfig)
    made = VEnv(tmp_path / "program")
    made.install(name, index={**index_of(wheelhouse, wheel, pytestconfig), "UV_CONSTRAINT": str(lock("front-ends"))})
    return [str(made.path / "bin" / name)]


@pytest.fixture
def served(wheelhouse: Path, wheel: Path, tmp_path: Path) -> Iterator[str]:
    """The address of an index (PEP 503) of what was fetched, and of the wheel under test."""
    simple = tmp_path / "served" / "simple"
    for path in [*wheelhouse.glob("*.whl"), wheel]:
        directory = simple / path.name.partition("-")[0].lower().replace("_", "-").replace(".", "-")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / path.name).symlink_to(path)
    handler = functools.partial(Quiet, directory=str(simple.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files and of directories, whose listings have the form of an index."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("program", "name"), [(name, name) for name in WORKFLOWS], indirect=["program"])
def test_the_example_is_built_in_isolation(
    program: list[str],
    name: str,
    index: dict[str, str],
    wheel: Path,
    served: str,
    cuobjdump: Path,
    tmp_path: Path,
) -> None:
    project = copy_example(tmp_path / "project")
    workflow = WORKFLOWS[name]
    places = {"index": served, "python": sys.executable}
    for file, text in workflow.files.items():
        with open(project / file, "a") as opened:
            opened.write(text.format(**places))
    # The build directory tells what was found, whatever is printed.
    environ = {**index, "SKBUILD_BUILD_DIR": str(tmp_path / "build"), "UV_TOOL_DIR": str(tmp_path / "tools")}
    environ |= {"UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    # What was fetched is for this Python alone, and uv would lock for all.
    version = "{}.{}".format(*sys.version_info)
    text = (project / "pyproject.toml").read_text().replace('">=3.9"', f'"=={version}.*"')
    (project / "pyproject.toml").write_text(text)
    log = run([*program, *workflow.arguments.format(**places).split()], env=environ, cwd=project)
    assert "the decoy was called" not in log
    check(tmp_path, cuobjdump)


def check(directory: Path, cuobjdump: Path) -> None:
    """Check the build in *directory*/build, and the libraries that came of it, wherever they are."""
    cache = dict(re.findall(r"^(\w+):\w+=(.*)$", (directory / "build" / "CMakeCache.txt").read_text(), re.MULTILINE))
    compiler = cache["CMAKE_CUDA_COMPILER"]
    assert re.fullmatch(f"{STABLE}/bin/nvcc", compiler)
    root = compiler.removesuffix("/bin/nvcc")
    assert not root.startswith(sys.prefix)
    assert cache["CCCL_DIR"] == f"{root}/lib/cmake/cccl"
    if os.path.exists(root):  # tox and Hatch keep their build environments
        assert os.readlink(root).startswith(f"{directory}/")
    for wheel in directory.rglob("skbuild_demo-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extract("skbuild_demo/libskbuild_demo.so", directory / "extracted")
    shutil.rmtree(directory / "build")
    libraries = list(directory.rglob("libskbuild_demo.so"))
    assert libraries
    for library in libraries:
        assert set(re.findall(r"\.(sm_\d+)\.cubin", run([cuobjdump, "--list-elf", library]))) == {"sm_86"}
        made = f"Cuda compilation tools, release {minor_version(NEWEST)}"
        assert made in run([cuobjdump, "--dump-elf", library])
