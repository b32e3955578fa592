"""Sub-packages build on one another in one direction only."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sklowrank"


def imports_of(text: str, package: tuple[str, ...]) -> set[str]:
    """Return the parts of sklowrank that a module of `package` imports, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            names += [f"{module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {name[1] for name in parts if name[0] == "sklowrank" and len(name) > 1}


def graph_of(files: dict[str, str]) -> dict[str, set[str]]:
    """Return which sub-packages, and modules beside them, import which; `files` are texts by their paths."""
    graph: dict[str, set[str]] = {}
    for path, text in files.items():
        folders = Path(path).parts[:-1]
        part = folders[0] if folders else Path(path).stem
        graph.setdefault(part, set()).update(imports_of(text, ("sklowrank", *folders)) - {part})
    return graph


def test_imports_of_sub_packages_form_no_cycle():
    files = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    graph = graph_of(files)
    assert {"_core", "_math"} <= graph["cluster"] & graph["mixture"]
    assert "cluster" in graph["mixture"]
    del graph["__init__"]  # names all of them
    tuple(TopologicalSorter(graph).static_order())


def test_a_cycle_inside_functions_is_found():
    files = {
        "cluster/_codes.py": "def refine():\n    from ..mixture._em import run\n",
        "mixture/__init__.py": "from ._em import run\n",
        "mixture/_em.py": "from sklowrank.cluster import codes\n",
    }
    assert graph_of(files) == {"cluster": {"mixture"}, "mixture": {"cluster"}}
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(graph_of(files)).static_order())
