"""The modules of the package import each other in one direction, as docs/understand/how-it-works.md shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from conftest import PROJECT

PACKAGE = PROJECT / "src" / "cuda_build_activate"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports(module: Path) -> set[str]:
    """The modules of the package that *module* imports anywhere: in functions and for type checkers, too."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = f"{PACKAGE.name}." * (node.level > 0) + (node.module or "")
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
    return {name for name in MODULES if f"{PACKAGE.name}.{name}" in found}


def test_imports_lead_in_one_direction() -> None:
    page = (PROJECT / "docs" / "understand" / "how-it-works.md").read_text().partition("## The code")[2]
    rows = re.findall(r"^\| `(\w+)\.py` \| \d+ \|(.*?)\|", page, re.MULTILINE)
    assert sorted(name for name, _ in rows) == MODULES
    above: set[str] = set()
    for name, documented in rows:
        found = imports(PACKAGE / f"{name}.py")
        if name == "__init__":  # what every start runs hands over to what decides
            assert found == {"_activate"}
            continue
        assert found == set(re.findall(r"`(\w+)`", documented)), name
        assert found <= above, f"{name} imports what is below it"
        above.add(name)


def test_what_every_start_runs_imports_nothing_of_the_package() -> None:
    """Before it is called."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assert [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))] == [
        "import os",
        "import sys",
    ]
