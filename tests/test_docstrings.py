"""Docstrings of all public names: numpydoc's rules, and an example that runs."""

import importlib
import inspect
import pkgutil

import pytest

import sklowrank
from sklowrank._nets.training import Rule

validate = pytest.importorskip("numpydoc.validate", reason="numpydoc is not installed: the extra doc has it").validate
ClassDoc = pytest.importorskip("numpydoc.docscrape").ClassDoc

IGNORED = {
    "EX01",  # an example: asked for below, of classes and functions
    "ES01",  # an extended summary: not all names need one
    "SA01",  # See Also: not all names have relatives
    "SA04",  # a description in See Also: names of scikit-learn speak for themselves
    "GL01",  # text starts in the line of the quotes, as scikit-learn's does
    "GL02",  # and ends before the line of the quotes
    "GL03",  # blank lines around sections are ruff's matter
    "PR01",  # parameters of __init__ stand in the class
    "PR02",
    "RT02",  # return values have names, as those of scikit-learn do
    "RT03",  # a return value whose description is its type
    "RT04",
    "RT05",
    "PR08",  # descriptions of parameters may start with a name in lower case
    "PR09",  # and end with a formula
    "YD01",
    "SS06",  # a summary may take two lines
    "SS03",
    "SS05",
    "GL08",  # methods that scikit-learn adds
}


def public_names():
    for module in pkgutil.iter_modules(sklowrank.__path__):
        if not module.name.startswith("_"):
            package = importlib.import_module(f"sklowrank.{module.name}")
            for name in package.__all__:
                yield f"sklowrank.{module.name}.{name}"


NAMES = sorted(public_names())


def _public(name):
    package, _, short = name.rpartition(".")
    return getattr(importlib.import_module(package), short)


@pytest.mark.parametrize("name", NAMES)
def test_numpydoc_finds_nothing(name):
    errors = [f"{code} {text}" for code, text in validate(name)["errors"] if code not in IGNORED]
    package, _, short = name.rpartition(".")
    thing = getattr(importlib.import_module(package), short)
    if inspect.isclass(thing):
        for method, value in vars(thing).items():
            hook = issubclass(thing, Rule) and hasattr(Rule, method)  # called by the training, not by users
            if not method.startswith("_") and inspect.isfunction(value) and not hook:
                found = validate(f"{name}.{method}")["errors"]
                errors += [f"{method}: {code} {text}" for code, text in found if code not in IGNORED]
    assert not errors


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_an_example(name):
    package, _, short = name.rpartition(".")
    assert ">>>" in inspect.getdoc(getattr(importlib.import_module(package), short))


@pytest.mark.parametrize("name", [n for n in NAMES if inspect.isclass(_public(n)) and "__init__" in vars(_public(n))])
def test_parameters_of_constructors_are_documented_in_their_order(name):
    signature = list(inspect.signature(_public(name)).parameters)
    documented = ClassDoc(_public(name))["Parameters"]
    assert [part for parameter in documented for part in parameter.name.split(", ")] == signature
