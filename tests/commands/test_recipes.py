"""The recipes for other projects, as data: what is printed, and the page that is written from them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import fleet
import pytest
from conftest import PROJECT, run

from cuda_build_activate import _recipes
from cuda_build_activate.__main__ import main

RECIPES = _recipes.known()


def printed(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[int, str]:
    status = main(["recipe", *arguments])
    return status, capfdbinary.readouterr().out.decode()


def test_every_recipe_says_how_it_ended() -> None:
    for name, recipe in RECIPES.items():
        assert name == recipe.name
        assert recipe.load
        assert "cuda-toolkit[" in " ".join(recipe.build)
        if recipe.tested:
            assert recipe.tested["outcome"] == _recipes.BUILT or recipe.tested["fault"]
            assert set(recipe.tested) <= {"outcome", "date", "python", "minutes", "toolkit", "device code", "fault"}


def test_the_page() -> None:
    assert fleet.page() == fleet.PAGE.read_text(), "python3 tests --fleet writes docs/reference/fleet.md"


@pytest.mark.parametrize("name", RECIPES)
def test_uv_reads_what_is_printed(
    name: str, capfdbinary: pytest.CaptureFixture[bytes], clean: dict[str, str], tmp_path: Path
) -> None:
    status, text = printed(capfdbinary, name)
    assert status == 0
    assert text.startswith(f"# {name} {RECIPES[name].version}: ")
    settings = text.partition("# uv: in pyproject.toml\n")[2].partition("# and then")[0]
    (tmp_path / "pyproject.toml").write_text(settings)
    environ = {name: value for name, value in clean.items() if name != "UV_NO_CONFIG"}
    done = run([sys.executable, "-m", "uv", "pip", "freeze", "--verbose"], env=environ, cwd=tmp_path)
    assert "warning" not in done  # of what it cannot read
    assert f"{tmp_path}/pyproject.toml" in done
    for setting in ("extra-build-dependencies", *(["config-settings-package"] if RECIPES[name].settings else [])):
        assert f"[tool.uv.{setting}]" in settings


@pytest.mark.parametrize("name", RECIPES)
def test_a_shell_reads_what_is_printed(name: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    commands = [
        shlex.split(line)
        for line in printed(capfdbinary, name)[1].splitlines()
        if line.startswith(("uv ", "python ", "env "))
    ]
    recipe = RECIPES[name]
    assert commands == [_recipes.uv_command(recipe), *_recipes.pip_commands(recipe)]
    for command in commands[::2]:
        assert f"{name}=={recipe.version}" in command
    assert all(f"{variable}={value}" in commands[2] for variable, value in recipe.variables.items())


def test_pip_builds_in_isolation_what_lacks_nothing_but_cuda() -> None:
    """Of what is installed beside pip, an isolated build sees CUDA alone."""
    without = {name for name, recipe in RECIPES.items() if "--no-build-isolation" in _recipes.pip_commands(recipe)[1]}
    assert {"torch-scatter", "pytigre", "dlib"} <= without  # PyTorch; NumPy and Cython; Ninja
    assert without.isdisjoint({"pycuda", "lightgbm"})  # the toolkit; NCCL
    assert RECIPES["dlib"]._replace(build=["nvidia-cudnn-cu13"]).isolated


def test_any_spelling_of_a_name(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert printed(capfdbinary, "LightGBM") == printed(capfdbinary, "lightgbm")
    assert printed(capfdbinary, "llama.cpp__python") == printed(capfdbinary, "llama-cpp-python")


def test_an_unknown_project(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    status, text = printed(capfdbinary, "nonesuch")
    assert status == 1
    assert "There is no recipe for nonesuch" in text
    assert 'nonesuch = ["cuda-build-activate", "cuda-toolkit[nvcc,cudart,cccl]==13.*"]' in text
    assert "uv pip install --no-binary nonesuch nonesuch " in text


def test_the_list(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    status, text = printed(capfdbinary)
    assert status == 0
    assert [line.split()[0] for line in text.splitlines()] == list(RECIPES)


def test_a_build_of_an_unknown_project_is_refused() -> None:
    with pytest.raises(SystemExit, match="no recipe for nonesuch"):
        fleet.main(["nonesuch"])


def test_the_package_has_the_file() -> None:
    assert Path(_recipes.FILE).read_text() == (PROJECT / "src" / "cuda_build_activate" / "recipes.json").read_text()
