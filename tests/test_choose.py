"""The table of `doc/choose.md`, the README, the user guide: they name everything that can be fitted."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.experimental import enable_iterative_imputer  # noqa: F401

import sklowrank

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "doc" / "choose.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| data and aim")]
NAMED = sorted(set(re.findall(r"{py:\w+}`~([\w.]+)`", PAGE)))
GUIDE = {path.name: path.read_text() for path in sorted((ROOT / "doc" / "guide").glob("*.md"))}
FAMILIES = (ROOT / "README.md").read_text().partition("## What is in it")[2].partition("\n## ")[0]


def fitted_by_users():
    """Return the public classes that are fitted, train a network or count a budget, by their full names."""
    kinds = BaseEstimator, torch.optim.Optimizer
    for module in pkgutil.iter_modules(sklowrank.__path__):
        if not module.name.startswith("_"):
            package = importlib.import_module(f"sklowrank.{module.name}")
            for name in getattr(package, "__all__", ()):
                cls = getattr(package, name)
                if isinstance(cls, type) and issubclass(cls, kinds):
                    yield f"sklowrank.{module.name}.{name}"


@pytest.mark.parametrize("name", sorted(fitted_by_users()))
def test_the_table_has_every_estimator(name):
    assert name in NAMED


@pytest.mark.parametrize("name", NAMED)
def test_what_the_table_names_is_there(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("line", ROWS, ids=lambda line: line[2:40])
def test_a_row_says_what_to_use(line):
    aim, ours, theirs = (cell.strip() for cell in line.strip("|").split(" |"))
    assert aim
    assert theirs  # of scikit-learn's own there may be none, and then the cell says so
    assert "sklowrank." in ours or (not ours and "sklearn." in theirs)


@pytest.mark.parametrize("name", sorted(fitted_by_users()))
def test_the_readme_has_every_family(name):
    """A family is a sub-package; the table of the README names each."""
    assert re.search(rf"`{name.split('.')[1]}[`.]", FAMILIES)


@pytest.mark.parametrize("name", sorted(fitted_by_users()))
def test_the_guide_has_every_estimator(name):
    """In the table of its first page, and on a page that compares it with the alternatives."""
    pages = [page for page, text in GUIDE.items() if f"{{py:class}}`~{name}`" in text]
    assert "index.md" in pages
    assert pages != ["index.md"]


@pytest.mark.parametrize("family", sorted({name.split(".")[1] for name in fitted_by_users()}))
def test_the_guide_runs_an_estimator_of_every_family(family):
    assert any(f">>> from sklowrank.{family} import" in text for text in GUIDE.values())


def test_the_start_page_has_a_card_for_every_page_of_the_guide():
    cards = set(re.findall(r":link: (\S+)", (ROOT / "doc" / "index.md").read_text()))
    pages = {f"guide/{page.removesuffix('.md')}" for page in GUIDE} - {"guide/index"}
    assert pages | {"choose", "scale", "gpu", "quality", "benchmarks/scoreboard"} <= cards
