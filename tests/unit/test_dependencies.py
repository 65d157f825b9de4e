"""What the suite imports is what its package asks for: nothing comes by chance with the tools of developers."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

ROOMS = ("eva_bench", "tasks", "baselines", "pocket")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BRINGS = packages_distributions()
EXTRAS = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in ("all", "dev")}


def imported() -> dict[str, str]:
    """Third-party modules and one file that imports each, imports inside functions included."""
    found = {}
    for file in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {name.partition(".")[0]: str(file.relative_to(ROOT)) for name in names}
    return {name: file for name, file in found.items() if name not in {*sys.stdlib_module_names, *ROOMS}}


@pytest.mark.parametrize(("module", "file"), sorted(imported().items()))
def test_an_imported_module_is_a_dependency_or_in_an_extra(module, file):
    asked = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
    wanted = {Requirement(line).name.lower().replace("_", "-") for line in asked}
    bring = {name.lower().replace("_", "-") for name in BRINGS.get(module, [module])}
    assert bring & wanted, f"{file} imports {module}, which comes with {sorted(bring)}"
