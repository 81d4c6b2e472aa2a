"""docs/reference/environment-variables.md has every environment variable that the package reads or sets."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from conftest import PROJECT, VARIABLES

PACKAGE = PROJECT / "src" / "cuda_build_activate"
PAGE = (PROJECT / "docs" / "reference" / "environment-variables.md").read_text()
# What the modules that look at the environment write in capitals besides.
NO_VARIABLES = {"COMMAND", "DIR", "EOF", "RECORD", "WHEEL"}


def rows(heading: str) -> list[list[str]]:
    """The cells of each row of the table under *heading*."""
    table = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in row.split(" | ")] for row in re.findall(r"^\| (`.*) \|$", table, re.MULTILINE)]


def names(heading: str) -> set[str]:
    return {name for row in rows(heading) for name in re.findall(r"`(\w+)`", row[0])}


def written(module: Path) -> set[str]:
    """What *module* writes as variables are written: strings, and the names of arguments."""
    tree = list(ast.walk(ast.parse(module.read_text())))
    strings = {node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    arguments = {node.arg for node in tree if isinstance(node, ast.keyword) and node.arg}
    return {name for name in strings | arguments if re.fullmatch(r"[A-Z][A-Z_]+[A-Za-z_]*", name)}


def test_every_variable_has_a_row() -> None:
    modules = [module for module in PACKAGE.glob("*.py") if re.search(r"\benviron\b", module.read_text())]
    found = {name for module in modules for name in written(module)}
    assert found - NO_VARIABLES == names("Variables that you set") | names("Set by an activation") | names("Read only")


def test_what_an_activation_sets() -> None:
    always = {row[0].strip("`") for row in rows("Set by an activation") if "with run paths only" not in row[1]}
    assert always == VARIABLES


def test_a_row_is_complete() -> None:
    for heading in ("Variables that you set", "Set by an activation", "Read only"):
        for row in rows(heading):
            assert all(row)
            assert re.fullmatch(r"\d+\.\d+\.\d+", row[-1])
