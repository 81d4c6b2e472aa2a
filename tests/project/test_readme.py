"""What the README and the pages in docs say: each of their blocks is run, or compared with what is."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import PAGES, PROJECT, STABLE, VEnv, block, blocks, by_default, run
from faults import outcomes
from toolkits import MINIMAL, MIXED, NEWEST

Shell = Callable[..., dict[str, str]]

# Pages whose blocks are all read by one test.
TESTED_BY = {
    "comparison.md": "builds/test_comparison.py",
    "start-here.md": "project/test_start_here.py",
    "upstream.md": "project/test_upstream.py",
}
# What blocks begin with that are run in other words, or not at all: which test does it, or why none.
OTHERWISE = {
    "export CMAKE_CUDA_COMPILER_LAUNCHER=ccache": "test_caches.py, with a cache of its own",
    "/tmp/cba-1000/": "test_stable.py",  # noqa: S108  # that is where it is
    "export CCACHE_REMOTE_STORAGE=redis:": "test_caches.py, with a Redis of its own",
    "env:\n  CMAKE_CUDA_COMPILER_LAUNCHER": "not run: a workflow of GitHub's",
    "export CMAKE_CUDA_COMPILER_LAUNCHER=sccache SCCACHE_BUCKET": "test_caches.py, with a cache on the disk",
    "CUDA_BUILD_ACTIVATE_VERBOSE=1 pip wheel": "test_the_lines_to_add",
    "PIP_BUILD_CONSTRAINT=constraints.txt": "test_metapackage.py",
    'eval "$(cuda-build-activate env)"': "test_env",
    'pip install "cuda-build-activate[wheel]"': "test_start_here.py",
    "auditwheel repair $(": "test_audit.py",
    'pip install cuda-build-activate "cuda-toolkit[nvcc,cudart,cccl]==13.*"': "test_torch.py",
    '[project]\nname = "app"': "test_torch.py",
    "-rpath=$ORIGIN/nvidia/cu13/lib": "test_run_path.py",
    'uvx --with "cuda-toolkit[nvcc,cudart,cccl]==13.*"': "test_uvx",
    "sequenceDiagram": "a picture",
    "flowchart ": "a picture",
}


def in_order(expected: str, printed: str) -> None:
    """Check that the lines of *expected* are in *printed*, in that order; ``...`` stands for anything.

    A stable path has a number behind it where other builds run at the same time, as beside other tests.
    """
    lines = iter(re.sub(r"(/tmp/cba-\d+/\w+/cu13)\.\d+", r"\1", printed).splitlines())
    for line in expected.splitlines():
        pattern = ".*".join(re.escape(part) for part in line.strip().split("..."))
        assert any(re.fullmatch(pattern, candidate.strip()) for candidate in lines), f"{line}\n\n{printed}"


def sh(commands: str, env: Mapping[str, str], cwd: Path | None = None) -> str:
    """What a person sees who types *commands*, some of which may find fault with the environment."""
    done = subprocess.run(["sh", "-c", commands], env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def console(start: str) -> tuple[str, str]:
    """The command, and what it prints, of the console block that begins with *start*."""
    command, _, printed = block(start).partition("\n")
    return command.removeprefix("$ "), printed


@pytest.fixture
def shell(offline: dict[str, str], clean: dict[str, str], tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The variables of a shell in an environment with the package and the given requirements."""

    def install(*requirements: str) -> dict[str, str]:
        made = VEnv(tmp_path / "venv")
        made.install("cuda-build-activate", *requirements, index=offline)
        return {**clean, "PATH": f"{made.path / 'bin'}{os.pathsep}{clean['PATH']}"}

    return install


def test_every_block_is_run_or_compared() -> None:
    calls = [
        node
        for path in (PROJECT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("block", "console")
    ]
    starts = [str(node.args[0].value) for node in calls if isinstance(node.args[0], ast.Constant)]
    built = [
        path.read_text(errors="replace")
        for directory in ("examples", "tests/packages")
        for path in (PROJECT / directory).rglob("*")
        if path.is_file()
    ]
    texts = [text for page in PAGES if page.name not in TESTED_BY for text in blocks(page)]
    others = [text for text in texts if not text.startswith(tuple(starts))]
    others = [text for text in others if not any(text in source for source in built)]  # an excerpt of what tests build
    assert [text for text in others if not text.startswith(tuple(OTHERWISE))] == []
    assert [start for start in OTHERWISE if not any(text.startswith(start) for text in others)] == []
    for page, test in TESTED_BY.items():
        assert page in (PROJECT / "tests" / test).read_text()


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 130


def test_the_index_has_every_page() -> None:
    index = (PROJECT / "docs" / "index.md").read_text()
    linked = {(PROJECT / "docs" / target).resolve() for target in re.findall(r"\]\(([^):#]+)\)", index)}
    assert [page for page in PAGES if page not in linked and page.name != "index.md"] == []


def test_the_number_of_faults() -> None:
    count = sum(len(found) for found in outcomes().values())
    assert re.findall(r"\b(\d+)\s+faults\s+in\s", (PROJECT / "README.md").read_text()) == [f"{count}"]


def test_the_lines_of_each_module() -> None:
    page = (PROJECT / "docs" / "understand" / "how-it-works.md").read_text().partition("## The code")[2]
    rows = re.findall(r"^\| (`\w+\.py`.*?) \| (\d+) \|", page, re.MULTILINE)
    package = PROJECT / "src" / "cuda_build_activate"
    counted = {name: (package / name).read_text().count("\n") for name in os.listdir(package) if name.endswith(".py")}
    documented = {tuple(re.findall(r"`(\w+\.py)`", names)): int(lines) for names, lines in rows}
    assert {names: sum(counted[name] for name in names) for names in documented} == documented
    assert sum(documented.values()) == sum(counted.values())


def test_links_lead_somewhere() -> None:
    for document in [*PROJECT.glob("*.md"), *PAGES, *PROJECT.glob("examples/*/README.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text()):
            path = (document.parent / target[0]) if target[0] else document
            assert path.exists(), f"{document.name}: {target}"
            if target[1]:
                headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert target[1] in anchors, f"{document.name}: {target}"


def test_ci_runs_the_command_for_the_tests() -> None:
    commands = re.findall(r"^(?:python3|\.ci/).*", (PROJECT / ".ci" / "run").read_text(), re.MULTILINE)
    assert commands == ["python3 tests", ".ci/gates", "python3 tests --all -m everything"]
    assert block("python3 tests") == "python3 tests\n"


def test_the_example_command(hostile: dict[str, str], offline: dict[str, str], tmp_path: Path) -> None:
    """In a fresh copy, with an index that is a directory."""
    ignored = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
    checkout = shutil.copytree(PROJECT, tmp_path / "checkout", ignore=ignored)
    environ = {**by_default(hostile), **offline}
    printed = run(["sh", "-ec", block("python3 examples")], env=environ, cwd=checkout)
    in_order(block("The toolkit of the build:"), printed)
    (root,) = set(re.findall(r"toolkit = (.*)", printed))
    assert re.fullmatch(STABLE, root)


def test_the_lines_to_add(offline: dict[str, str], hostile: dict[str, str], tmp_path: Path) -> None:
    """The diff makes a project out of the example's source, and pip builds it as the README shows."""
    project = shutil.copytree(PROJECT / "examples" / "skbuild", tmp_path / "project")
    pyproject = (project / "pyproject.toml").read_text()
    before, after = (
        "".join(line[1:] + "\n" for line in block(" [build-system]").splitlines() if line[0] in (" ", sign))
        for sign in "-+"
    )
    rest = "".join(pyproject.partition("\n[project]")[1:])
    assert before.count("\n") == after.count("\n") - 4
    # The example also links cuBLAS, and names the oldest scikit-build-core that it works with.
    rest = rest.replace('minimum-version = "build-system.requires"', "")
    (project / "pyproject.toml").write_text(after.replace("[nvcc,", "[cublas,nvcc,") + rest)
    command, printed = console("$ pip wheel -v .")
    environ = {**by_default(hostile), **offline, "CUDA_BUILD_ACTIVATE_VERBOSE": "1"}
    in_order(printed, run(["sh", "-ec", f"{sys.executable} -m {command}"], env=environ, cwd=project))


def test_info_and_root(shell: Shell) -> None:
    environ = shell(MINIMAL)
    for command, printed in (console("$ cuda-build-activate\n"), console("$ cuda-build-activate root")):
        in_order(printed, sh(command, environ))


def test_recipe(shell: Shell) -> None:
    command, printed = console("$ cuda-build-activate recipe lightgbm")
    in_order(printed, sh(command, shell()))


def test_what_the_root_holds(full: VEnv, clean: dict[str, str]) -> None:
    full.environ(env=clean)
    for line in block("<site-packages>/cuda-build-activate/cu13/").splitlines()[1:]:
        place = line.strip().partition("  ")[0]
        if " -> " in place:
            link, _, target = place.partition(" -> ")
            assert os.readlink(full.root / link) == target
        for name in re.sub(r"\{(\w+),(\w+)\}", r"\1", place.partition(" ->")[0]).split(", "):
            assert (full.root / name).exists(), name


def test_what_the_doctor_prints(shell: Shell, hostile: dict[str, str]) -> None:
    command, printed = console("$ CMAKE_PREFIX_PATH=/usr/local/cuda cuda-build-activate doctor --compile")
    another = hostile["CUDA_HOME"]
    said = sh(command.replace("/usr/local/cuda", another), shell(MINIMAL))
    in_order(printed, said.replace(another, "/usr/local/cuda"))
    assert len(said.splitlines()) == len(printed.splitlines())


def test_what_the_doctor_prints_of_mixed_components(shell: Shell) -> None:
    command, printed = console("$ cuda-build-activate doctor\n")
    page = (PROJECT / "docs" / "how-to" / "choose-a-toolkit.md").read_text()
    assert f"`cuda-toolkit[nvcc,cudart,cccl]=={MIXED}`" in page
    in_order(printed, sh(command, shell(f"cuda-toolkit[nvcc,cudart,cccl]=={MIXED}")))


def test_env(shell: Shell, tmp_path: Path) -> None:
    environ = shell(MINIMAL)
    lines = [line[2:].partition("  ")[0] for line in block('$ eval "$(cuda-build-activate env)"').splitlines()]
    assert len(lines) == 6
    root = sh("cuda-build-activate root", environ).strip()
    for line in lines[:1]:
        assert sh(f"{line}\nprintenv CUDA_HOME", environ).strip() == root
    for line in lines[1:]:  # for shells that are not everywhere: test_command_line.py evaluates what they get
        command = line.partition(" |")[0]
        sh(command, {**environ, "GITHUB_ENV": str(tmp_path / "github")}, tmp_path)
    assert f"\n{root}\n" in (tmp_path / "github").read_text()
    assert root in (tmp_path / "activate-cuda.bat").read_text()


def test_run(shell: Shell) -> None:
    command, _ = console("$ cuda-build-activate run -- nvcc --version")
    assert f"V{NEWEST[:4]}." in sh(command, shell(MINIMAL))


def test_uvx(offline: dict[str, str], clean: dict[str, str]) -> None:
    command, printed = console('$ uvx --with "cuda-toolkit[nvcc,cudart,cccl]==13.*"')
    in_order(printed, sh(f"{Path(sys.executable).parent}/{command}", {**clean, **offline}))


def test_the_api(shell: Shell, tmp_path: Path) -> None:
    """The values in its comments; -S processes no startup files."""
    code = block("import cuda_build_activate")
    environ = shell(MINIMAL)
    environ["PYTHONPATH"] = next((tmp_path / "venv").glob("lib/python*/site-packages")).as_posix()
    for expression, value in re.findall(r"^(activation\.\w+)  # (.*)", code, re.MULTILINE):
        printed = sh(f"python -S - <<'END'\n{code}\nprint(repr({expression}))\nEND", environ).strip()
        expected = re.sub(r", (or|as) .*", "", value).replace(", ...}", "...}")
        if not value.startswith("the same"):
            in_order(expected, printed)


def test_the_library_path(shell: Shell, tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "how-to" / "others.md").read_text()
    (export,) = re.findall(r"`(export LIBRARY_PATH=.*?)`", page)
    environ = shell(MINIMAL)
    link = "echo 'int main() { return 0; }' | gcc -x c - -lcudart -o program"
    with pytest.raises(AssertionError, match="cannot find -lcudart"):
        run(["sh", "-ec", link], env=environ, cwd=tmp_path)
    run(["sh", "-ec", f"{export}; {link}"], env=environ, cwd=tmp_path)
