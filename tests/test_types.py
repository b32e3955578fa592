"""Annotations of public classes: constructors, fitted attributes, chains of fits."""

import importlib
import inspect
import subprocess
import sys
import typing
from pathlib import Path
from types import UnionType

import pytest
from numpydoc.docscrape import ClassDoc

from tests.common import fit, public_estimators, seeded, small_data

ROOT = Path(__file__).parent.parent
each = pytest.mark.parametrize("estimator", public_estimators(), ids=lambda e: type(e).__name__)

SETTINGS = """
[mypy]
follow_imports = silent
warn_unused_ignores = true
[mypy-dask.*,matplotlib.*,opendp.*,pandas.*,scipy.*,sklearn.*,skorch.*,torch.*]
follow_imports = skip
ignore_missing_imports = true
"""


def mypy(tmp_path, script):
    """Return what mypy says of a script, by line: nothing, where all is fine."""
    pytest.importorskip("mypy")
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    command = [sys.executable, "-m", "mypy", "--config-file", str(tmp_path / "mypy.ini"), "--no-error-summary"]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_script_of_typical_use_is_understood(tmp_path):
    """Lines of it that have to be refused are marked, and a mark that is not needed is an error as well."""
    assert mypy(tmp_path, ROOT / "tests" / "typed" / "user_script.py") == []


@pytest.mark.slow
def test_mistakes_are_found(tmp_path):
    """What the test above looks with: the same kinds of lines, wrong and without a mark."""
    script = tmp_path / "wrong.py"
    script.write_text(
        "from typing import assert_type\n"
        "from sklowrank.cluster import KSubspaces\n"
        "KSubspaces(n_clusters='three')\n"
        "assert_type(KSubspaces().fit([[0]]).n_iter_, float)\n"
        "KSubspaces().fit([[0]]).inertia_.upper()\n"
    )
    found = mypy(tmp_path, script)
    assert [line.split(":")[1] for line in found] == ["3", "4", "5"]


@each
def test_every_parameter_has_a_type_that_its_default_has(estimator):
    signature = inspect.signature(type(estimator).__init__)
    for name, parameter in list(signature.parameters.items())[1:]:
        assert parameter.annotation is not parameter.empty, name
        if parameter.default is None:
            assert type(None) in typing.get_args(parameter.annotation), name
        elif isinstance(parameter.default, str) and parameter.annotation is not str:
            options = typing.get_args(parameter.annotation) or (parameter.annotation,)
            literals = [value for option in (*options, parameter.annotation) for value in typing.get_args(option)]
            assert str in options or parameter.default in (*literals, *options), name


@each
def test_options_are_those_of_the_constraints(estimator):
    """Names that are written out in an annotation are the ones that `fit` accepts."""
    signature = inspect.signature(type(estimator).__init__)
    for name, constraints in type(estimator)._parameter_constraints.items():
        annotation = signature.parameters[name].annotation
        written = [a for a in (annotation, *typing.get_args(annotation)) if typing.get_origin(a) is typing.Literal]
        allowed = {option for c in constraints for option in getattr(c, "options", ())}
        named = {value for literal in written for value in typing.get_args(literal)}
        assert not written or named == allowed, name


@each
def test_documented_attributes_are_declared_without_values(estimator):
    """In the class, or in a mixin of the package."""
    cls = type(estimator)
    ours = [base for base in cls.__mro__ if base.__module__.startswith("sklowrank.")]
    declared = {name for base in ours for name in inspect.get_annotations(base)} - set(estimator.get_params(deep=False))
    documented = {name for a in ClassDoc(cls)["Attributes"] for name in a.name.split(", ")}
    assert documented == declared | {n for n in documented if isinstance(getattr(cls, n, None), property)}
    assert not [name for name in declared if hasattr(cls, name)]


@each
def test_fitted_attributes_are_declared_and_have_their_types(estimator):
    X, y = small_data(estimator)
    model = fit(seeded(estimator), X, y)
    hints = typing.get_type_hints(type(model))
    public = {name: value for name, value in vars(model).items() if name.endswith("_") and not name.startswith("_")}
    assert set(public) <= set(hints)
    for name, value in public.items():
        assert has_type(value, hints[name]), (name, value)


def has_type(value, hint):
    """Return whether a value has a type; of containers that of their elements is not asked."""
    if typing.get_origin(hint) in (UnionType, typing.Union):
        return any(has_type(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    plain = typing.get_origin(hint) or hint
    return plain is typing.Any or isinstance(value, float | int if plain is float else plain)


@each
def test_fits_return_their_own_type(estimator):
    for name in ("fit", "partial_fit"):
        if hasattr(estimator, name):
            assert inspect.signature(getattr(type(estimator), name)).return_annotation is typing.Self


def test_other_public_classes_are_annotated():
    for package in ("inspection", "privacy"):
        module = importlib.import_module(f"sklowrank.{package}")
        for cls in (getattr(module, name) for name in module.__all__):
            if "__init__" in vars(cls):
                parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
                assert all(p.annotation is not p.empty for p in parameters), cls
