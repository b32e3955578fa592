"""What the documents say of estimators, held against the estimators."""

import inspect
import re
from pathlib import Path

import pytest
from sklearn.base import clone

from sklowrank._core.tags import partitions_of_tags
from tests.common import made, public_estimators

ROOT = Path(__file__).parent.parent
ESTIMATORS = {type(e).__name__: e for e in public_estimators()}
COLUMNS = {  # of the table of api.md: whether an estimator can
    "sparse X": lambda e: e.__sklearn_tags__().input_tags.sparse,
    "NaN": lambda e: e.__sklearn_tags__().input_tags.allow_nan,
    "`sample_weight`": lambda e: "sample_weight" in inspect.signature(e.fit).parameters,
    "`partial_fit`": lambda e: hasattr(e, "partial_fit"),
    "callbacks, `verbose`": lambda e: hasattr(e, "set_callbacks"),
    "tensors": lambda e: e.__sklearn_tags__().array_api_support,
    "Dask": lambda e: partitions_of_tags(e) is not None,
}


def stated():
    """Return the rows of the table: by estimator a dict of cells by column."""
    lines = (ROOT / "doc" / "api.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| estimator |"))
    cells = [[cell.strip() for cell in line.strip("| ").split(" |")] for line in lines[start:] if line.startswith("|")]
    names = cells[0][1:]
    rows = [row for row in cells[2:] if row[0].strip("`") in ESTIMATORS]
    return {row[0].strip("`"): dict(zip(names, [*row[1:], *[""] * len(names)])) for row in rows}


def test_the_table_has_every_estimator_and_every_column():
    assert list(stated()) == sorted(ESTIMATORS)
    assert all(list(row) == list(COLUMNS) for row in stated().values())


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_a_cell_says_what_the_estimator_can(name, column):
    """A cell is "yes", empty, or names the parameter with which it holds."""
    cell, estimator = stated()[name][column], ESTIMATORS[name]
    assert COLUMNS[column](estimator) == (cell == "yes")
    if cell not in ("yes", ""):
        parameter, value = re.fullmatch(r'`(\w+)="(\w+)"`', cell).groups()
        assert COLUMNS[column](clone(estimator).set_params(**{parameter: value}))


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_verbose_and_callbacks_go_together(name):
    """Where there are steps to count there are both; what has neither has no `max_iter` or epochs either."""
    params = ESTIMATORS[name].get_params()
    iterates = any(p in params for p in ("max_iter", "n_epochs"))
    assert iterates == hasattr(ESTIMATORS[name], "set_callbacks") == ("verbose" in params)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_no_link_to_the_documentation_of_scikit_learn(name):
    """In the notebook's representation: no site of ours is published yet, and a link elsewhere would be wrong."""
    estimator = made(type(ESTIMATORS[name]))
    assert estimator._get_doc_link() == ""
    assert not re.findall(r'href="[^"#]', estimator._repr_html_())
