"""Recipes: how to build a source distribution of another project, unchanged, with a toolkit from PyPI."""

import json
import os
import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple, Union

FILE = os.path.join(os.path.dirname(__file__), "recipes.json")
BUILT = "built and loaded"
CUDA = ("cuda-toolkit", "nvidia-", "cutensor")  # prefixes of the wheels whose files the root shows to every build


class Recipe(NamedTuple):
    """A row of recipes.json.

    name, version: of the source distribution. kind: its field. backend: what builds it. build: the build requirements
    besides this package. run: the run-time requirements. torch: the PyTorch that both need, or empty. variables,
    settings: environment variables and config settings of the build. needs: what the machine must have, in words.
    load: Python code that loads what was compiled. tested: the result ("outcome": BUILT, or where it stopped, with
    whose "fault" that is), "date", "python", "minutes"; empty if it was not tested.
    """

    name: str
    version: str
    kind: str
    backend: str
    build: Sequence[str]
    load: str
    run: Sequence[str] = ()
    torch: str = ""
    variables: dict[str, str] = {}  # noqa: RUF012  # never changed
    settings: dict[str, str] = {}  # noqa: RUF012
    needs: str = ""
    tested: dict[str, str] = {}  # noqa: RUF012

    @property
    def requires(self) -> list[str]:
        """What the build environment needs besides the project's own build requirements."""
        return [*([f"torch=={self.torch}"] if self.torch else []), "cuda-build-activate", *self.build]

    @property
    def isolated(self) -> bool:
        """Whether pip can build it in isolation: then a build sees only the CUDA of pip's environment."""
        return not self.torch and all(requirement.startswith(CUDA) for requirement in self.build)

    @property
    def installs(self) -> list[str]:
        """What to install: the project, and what it needs at run time."""
        pinned = f"{self.name}=={self.version}" if self.version else self.name
        return [pinned, *([f"torch=={self.torch}"] if self.torch else []), *self.run]


def known(path: str = FILE) -> dict[str, Recipe]:
    """All recipes, by project name. Raises OSError if *path* cannot be read."""
    with open(path, encoding="utf-8") as file:
        return {row["name"]: Recipe(**row) for row in json.load(file)}


def find(name: str) -> Union[Recipe, None]:
    """The recipe for the project *name*, in any spelling; None if there is none."""
    return known().get(re.sub(r"[-_.]+", "-", name).lower())


def uv_settings(recipe: Recipe, prefix: str = "") -> str:
    """The settings for a uv.toml, or, with the *prefix* ``tool.uv.``, for a pyproject.toml."""
    tables = [f"[{prefix}extra-build-dependencies]\n{recipe.name} = {json.dumps(recipe.requires)}\n"]
    for table, values in (
        ("extra-build-variables", recipe.variables),
        ("config-settings-package", recipe.settings),
    ):
        if values:
            inline = ", ".join(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in values.items())
            tables.append(f"[{prefix}{table}]\n{recipe.name} = {{ {inline} }}\n")
    return "\n".join(tables)


def uv_command(recipe: Recipe) -> list[str]:
    """The command that installs it with uv."""
    return ["uv", "pip", "install", "--no-binary", recipe.name, *recipe.installs]


def pip_commands(recipe: Recipe) -> list[list[str]]:
    """The commands that install it with pip: the build uses the toolkit activated in pip's environment."""
    pip = ["python", "-m", "pip", "install"]
    settings = [part for name, value in recipe.settings.items() for part in ("-C", f"{name}={value}")]
    isolation = [] if recipe.isolated else ["--no-build-isolation"]
    tools = [] if recipe.isolated else ["setuptools", "wheel"]
    variables = [f"{name}={value}" for name, value in recipe.variables.items()]
    env = ["env", *variables] if variables else []
    return [
        [*pip, *tools, *recipe.requires],
        [*env, *pip, *isolation, "--no-binary", recipe.name, *settings, *recipe.installs],
    ]


def described(recipe: Recipe) -> str:
    """The recipe as text: what to type, and when it was tested with what result."""
    tested = recipe.tested
    if tested:
        told = f"{tested['outcome']} on {tested['date']} with Python {tested['python']} on Linux x86_64"
        fault = f"\n# {tested['fault']}" if tested.get("fault") else ""
    else:
        told, fault = "not run", ""
    needs = f"\n# needs {recipe.needs}" if recipe.needs else ""
    return f"""# {recipe.name} {recipe.version}: {told}{fault}{needs}
{_commands(recipe)}"""


def _commands(recipe: Recipe) -> str:
    pip = "\n".join(shlex.join(command) for command in pip_commands(recipe))
    return f"""
# uv: in pyproject.toml
{uv_settings(recipe, "tool.uv.")}
# and then, in that directory (or: uv sync, if your project requires it)
{shlex.join(uv_command(recipe))}

# pip: in a virtual environment
{pip}
"""


UNKNOWN = Recipe(
    name="",
    version="",
    kind="",
    backend="",
    build=("cuda-toolkit[nvcc,cudart,cccl]==13.*",),
    load="",
    run=("cuda-toolkit[cudart]==13.*",),
    variables={"CUDAARCHS": "90", "CUDA_BUILD_ACTIVATE_RPATH": "relative"},
)


def start(name: str) -> str:
    """What to look for in a project without a recipe, and a recipe to start from."""
    recipe = UNKNOWN._replace(name=name)
    return f"""# There is no recipe for {name}. Look in its documentation and its CMakeLists.txt or setup.py for:
# - what enables CUDA: a config setting (-C cmake.define.USE_CUDA=ON), CMAKE_ARGS or an environment variable
# - the libraries it links (cublas, curand, cusparse, nvrtc ...): extras of cuda-toolkit for the build and at run time.
#   For NCCL, cuDNN, cuTENSOR: nvidia-nccl-cu13, nvidia-cudnn-cu13, cutensor-cu13
# - the GPU architectures: CUDAARCHS for CMake, TORCH_CUDA_ARCH_LIST for PyTorch extensions, which also need "torch"
# - programs it calls but does not require: add "cmake", "ninja" to the requirements
# With CUDA_BUILD_ACTIVATE_VERBOSE=1, "uv pip install -v" and "pip install -v" show which toolkit the build uses.
{_commands(recipe)}"""
