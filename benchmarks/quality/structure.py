"""Counts of the code's structure: the way through one `fit`, functions that take an estimator, sizes, parameters."""

import ast
import inspect
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sklowrank.dimension_reduction import FrechetSDR
from sklowrank.impute import MatrixCompletionImputer
from sklowrank.mixture import LowRankGaussianMixture
from sklowrank.privacy import PrivateKernelDensity
from tests.common import public_estimators

PACKAGE = Path(__file__).parent.parent.parent / "sklowrank"
_TAKES = ("estimator", "model", "self", "net")  # what a function calls an estimator that it is given
_WRAPPERS = ("compat.py", "modes.py", "warn.py")  # around each fit, and no part of its story
_FLOORS = ("_core", "_nets", "distributed.py", "inspection")  # which are made to be given one


class Walk(NamedTuple):
    """The way through one fit."""

    stays: int  # runs of functions of one file, in the order in which they are first entered
    files: int
    returns: int  # stays in a file that was left before


def walk(fit: Callable[[], object]) -> Walk:
    """Return how often a reader changes files who follows functions in the order of their first call."""
    entered: list[tuple[str, str]] = []
    seen = set()

    def trace(frame, event, arg):
        code = frame.f_code
        key = (code.co_filename, code.co_qualname)
        path = Path(code.co_filename)
        if event == "call" and PACKAGE in path.parents and path.name not in _WRAPPERS and key not in seen:
            name = code.co_qualname.rpartition(".")[2]
            if not name.startswith("<") and not name.startswith("__"):  # comprehensions, constructors
                seen.add(key)
                entered.append(key)

    sys.setprofile(trace)
    try:
        fit()
    finally:
        sys.setprofile(None)
    stays: list[str] = []
    for path, _ in entered:
        if not stays or stays[-1] != path:
            stays.append(path)
    return Walk(len(stays), len(set(stays)), len(stays) - len(set(stays)))


def walks() -> dict[str, Walk]:
    """Return the walks of four fits: of a table with missing values, of clusters, of a response, of private rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(300, 6))
    gaps = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    fits = {
        "MatrixCompletionImputer": lambda: MatrixCompletionImputer(random_state=0).fit(gaps),
        "LowRankGaussianMixture": lambda: LowRankGaussianMixture(2, random_state=0).fit(X),
        "FrechetSDR": lambda: FrechetSDR(1, max_iter=3, random_state=0).fit(X, X[:, 0] ** 2),
        "PrivateKernelDensity": lambda: PrivateKernelDensity(bounds=(-9, 9), random_state=0).fit(X),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: walk(fit) for name, fit in fits.items()}


def functions_that_take_an_estimator() -> list[str]:
    """Return the functions outside of classes whose first parameter is an estimator, where none should be."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if not any(floor in path.parts for floor in _FLOORS):
            for node in ast.parse(path.read_text()).body:
                parameters = node.args.posonlyargs + node.args.args if isinstance(node, ast.FunctionDef) else []
                if parameters and parameters[0].arg in _TAKES and _is_estimator(node, parameters[0].arg):
                    found.append(f"{path.relative_to(PACKAGE)}: {node.name}")
    return found


def _is_estimator(function, name):
    """Return whether the parameter is no tuple of a solver: it says so by its type, or is called an estimator."""
    annotation = next(a.annotation for a in function.args.posonlyargs + function.args.args if a.arg == name)
    return name in ("estimator", "self") or (annotation is None and _reads_fitted(function, name))


def _reads_fitted(function, name):
    """Return whether a function reads or calls something of a parameter that only estimators have."""
    for node in ast.walk(function):
        read = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
        if read and (node.attr in ("device", "random_state") or (node.attr.endswith("_") and node.attr[0] != "_")):
            return True
    return False


def places_that_write_attributes() -> list[str]:
    """Return the files and lines in which `vars` of an object is changed, or attributes are set by name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if _is_call(node, "setattr") or _is_call(node, "delattr") or _writes_vars(node):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    return found


def _is_call(node, name):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _writes_vars(node):
    """Return whether a node is ``vars(x).update(...)``, ``vars(x)[...] = ...`` or another way to change `vars`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _is_call(node.func.value, "vars") and node.func.attr in ("update", "pop", "clear", "setdefault")
    targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else []
    return any(isinstance(t, ast.Subscript) and _is_call(t.value, "vars") for t in targets)


def parameters() -> dict[str, int]:
    """Return the number of constructor parameters of each public estimator."""
    return {type(e).__name__: len(inspect.signature(type(e)).parameters) for e in public_estimators()}


def lines() -> dict[str, int]:
    """Return the number of lines of each file of the package."""
    return {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}


def main():
    """Print all counts; ``python -m benchmarks.quality.structure``."""
    for name, found in walks().items():
        print(f"{name}.fit: {found.stays} stays in {found.files} files, {found.returns} returns to a file already left")
    takers, writers = functions_that_take_an_estimator(), places_that_write_attributes()
    print(f"functions outside of classes that take an estimator: {len(takers)}", *takers, sep="\n    ")
    print(f"places that set attributes by `vars` or `setattr`: {len(writers)}", *writers, sep="\n    ")
    counts = parameters()
    most = max(counts, key=counts.__getitem__)
    print(f"parameters: median {statistics.median(counts.values()):g}, most {counts[most]} ({most})")
    sizes = lines()
    largest = max(sizes, key=sizes.__getitem__)
    print(
        f"files: {len(sizes)}, median {statistics.median(sizes.values()):g} lines, largest {sizes[largest]} ({largest})"
    )


if __name__ == "__main__":
    main()
