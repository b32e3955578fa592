"""The structure of the code: how far a reader walks, what takes an estimator, who assigns, how many parameters."""

import ast
from pathlib import Path

import pytest

from benchmarks.quality import structure

MOST_RETURNS = {  # to a file already left, in one fit: half of what they were when the first six families stood
    "MatrixCompletionImputer": 19,
    "LowRankGaussianMixture": 26,
    "FrechetSDR": 22,
    "PrivateKernelDensity": 16,
}


@pytest.fixture(scope="module")
def walks():
    return structure.walks()


@pytest.mark.parametrize("name", MOST_RETURNS)
def test_a_fit_is_read_without_going_back_and_forth(walks, name):
    assert walks[name].returns <= MOST_RETURNS[name], walks[name]


def test_solvers_take_options_and_tensors():
    assert len(structure.functions_that_take_an_estimator()) < 10


def test_one_file_assigns_fitted_attributes():
    assert {place.partition(":")[0] for place in structure.places_that_write_attributes()} == {"_core/fitted.py"}


def test_no_constructor_has_more_parameters_than_scikit_learn_would_accept():
    counts = structure.parameters()
    assert max(counts.values()) <= 20, counts


def test_an_assignment_by_name_is_found():
    for text in ("vars(self).update(a=1)", "vars(self)['a'] = 1", "setattr(self, 'a', 1)", "del vars(self)['a']"):
        tree = ast.parse(text)
        assert any(structure.writes_attributes(node) for node in ast.walk(tree)), text
    assert not any(structure.writes_attributes(node) for node in ast.walk(ast.parse("vars(self).copy()")))


def test_the_floors_below_know_no_method():
    families = {path.name for path in structure.PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    for floor in ("_core", "_math", "_nets"):
        for path in sorted(Path(structure.PACKAGE / floor).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level:
                    assert (node.module or "").split(".")[0] not in families, f"{path.name} imports {node.module}"
