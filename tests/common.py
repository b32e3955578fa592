"""Every public estimator, found by itself, with small data on which it fits, and what it answers."""

import importlib
import pkgutil

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, clone

import sklowrank
from tests.estimators import LAWS, spec_of

METHODS = ("transform", "predict", "predict_proba", "decision_function", "score_samples")


def public_estimators():
    """Return one instance of each estimator that a public sub-package names, by defaults but for fewer epochs."""
    classes = []
    for module in pkgutil.iter_modules(sklowrank.__path__):
        if not module.name.startswith("_"):
            package = importlib.import_module(f"sklowrank.{module.name}")
            members = (getattr(package, name) for name in getattr(package, "__all__", ()))
            classes += [c for c in members if isinstance(c, type) and issubclass(c, BaseEstimator)]
    return [c(**spec_of(c).quick) for c in sorted(set(classes), key=lambda c: c.__name__)]


def seeded(estimator, **params):
    """Return a clone with a fixed seed, where it has one."""
    copy = clone(estimator)
    if "random_state" in copy.get_params():
        params = {"random_state": 0, **params}
    return copy.set_params(**params)


def small_data(estimator, dtype=np.float64):
    """Return X, y of 60 rows near a plane in 5 dimensions: what an estimator of the suite is made for.

    y is None for estimators that do not ask for one. Estimators that take identifiers read them off the first columns.
    """
    rng, spec = np.random.default_rng(0), spec_of(estimator)
    X = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(60, 5)) + [3, -1, 0, 2, 5]
    if spec.ids:  # rows and columns of a matrix
        X[:, 0], X[:, 1] = np.divmod(rng.permutation(100)[:60], 10)
    if spec.y == "classes":
        return X.astype(dtype), (X[:, 0] > 3).astype(int)
    if spec.y == "numbers":
        return X.astype(dtype), (X[:, 0] * X[:, 1] + X[:, 2]).astype(dtype)
    return X.astype(dtype), None


def holes(X, share=0.2):
    """Return X with some cells missing, none of them in the first row."""
    hole = np.random.default_rng(1).random(X.shape) < share
    hole[0] = False
    return np.where(hole, np.nan, X).astype(X.dtype)


def new_data(estimator, X):
    """What the fitted estimator is asked about: with holes where it takes them, so that `transform` has work to do."""
    return holes(X) if estimator.__sklearn_tags__().input_tags.allow_nan else X


def needs_two_features(estimator):
    """True for the methods of subspaces."""
    return spec_of(estimator).min_features > 1


def scaled(estimator, scale, n_features):
    """Return a seeded clone for X times a scale: parameters that have units go with it."""
    return seeded(estimator, **spec_of(estimator).in_units(estimator, scale, n_features))


def off_the_law(estimator, method, answer, there, scale, n_features):
    """Return how far what a method answers to X times a scale is off its law, relative to the answer to X itself."""
    law = LAWS[spec_of(estimator).laws[method]]
    unit = scale if law is LAWS["linear"] else 1.0
    expected = law(answer.astype(np.float64), scale, n_features)
    return np.abs((there.astype(np.float64) - expected) / unit).max() / np.abs(answer).max()


def fit(estimator, X, y):
    """Fit in place, with y only where there is one."""
    return estimator.fit(X) if y is None else estimator.fit(X, y)


def answers(fitted, X):
    """Return every output of a fitted estimator on X by method, and its labels if it has any."""
    out = {name: np.asarray(getattr(fitted, name)(X)) for name in METHODS if hasattr(fitted, name)}
    if hasattr(fitted, "labels_"):
        out["labels_"] = np.asarray(fitted.labels_)
    return out


def same_value(a, b):
    """True where two attributes are equal to the last bit, whatever they are made of; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_value(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_value, a, b))
    if isinstance(a, np.ndarray) and a.dtype.kind != "O":
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if sp.issparse(a):
        return a.shape == b.shape and (a != b).nnz == 0
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and same_value(a.tolist(), b.tolist())
    return a is b or a == b or (a != a and b != b)


def parts_of(value):
    """Yield a value and all that it holds: in lists, tuples, sets, dicts, arrays of objects, and objects of ours."""
    seen, todo = set(), [value]
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, dict):
            todo += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set | frozenset) or (
            isinstance(part, np.ndarray) and part.dtype == object
        ):
            todo += list(part)
        elif type(part).__module__.startswith("sklowrank") and hasattr(part, "__dict__"):
            todo.append(vars(part))
