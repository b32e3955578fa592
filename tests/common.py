"""Every public estimator, found by itself, with small data on which it fits, and what it answers."""

import copy
import functools
import importlib
import pkgutil
import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from sklearn.base import BaseEstimator, clone

import sklowrank
from sklowrank._nets.training import Rule
from tests.estimators import LAWS, spec_of

METHODS = ("transform", "predict", "predict_proba", "decision_function", "score_samples")


def public_estimators():
    """Return one instance of each estimator that a public sub-package names, with the quick parameters of its row."""
    classes = []
    for module in pkgutil.iter_modules(sklowrank.__path__):
        if not module.name.startswith("_"):
            package = importlib.import_module(f"sklowrank.{module.name}")
            members = (getattr(package, name) for name in getattr(package, "__all__", ()))
            classes += [c for c in members if isinstance(c, type) and issubclass(c, BaseEstimator)]
    estimators = {c for c in classes if not issubclass(c, Rule)}  # a rule is a part of an estimator
    return [quick(c) for c in sorted(estimators, key=lambda c: c.__name__)]


def quick(cls):
    """Return an instance for the common tests: with the quick parameters of its row, around what it asks for."""
    return made(cls, **spec_of(cls).quick)


def made(cls, **params):
    """Return an instance with some parameters, around what it asks for."""
    wraps = spec_of(cls).wraps
    return cls(**({} if wraps is None else {"estimator": wraps()}), **params)


def seeded(estimator, **params):
    """Return a clone with a fixed seed, where it has one."""
    seed = {"random_state": 0} if spec_of(estimator).seed else {}
    return clone(estimator).set_params(**{**seed, **params})


def on_device(estimator, device):
    """Return the parameter that says where to compute: of an estimator, or of what it wraps."""
    places = ("device", "transport__device", "representation__device", "estimator__device")
    return {next(name for name in places if name in estimator.get_params()): device}


def computing(model):
    """Return the part of a fitted model that answers on a device: the fitted estimator that it wraps, or itself."""
    parts = (vars(model).get(name) for name in ("representation_", "estimator_", "best_estimator_"))
    return next((part for part in parts if isinstance(part, BaseEstimator)), model)


def moved_to(device, model):
    """Return a fitted model that computes somewhere else, and so does the fitted estimator that it wraps."""
    model.set_params(**on_device(model, device))
    if "device" in computing(model).get_params():
        computing(model).set_params(device=device)
    return model


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


def methods_of(estimator):
    """Return the names of the methods of an estimator that answer questions about X."""
    return [name for name in spec_of(estimator).laws if name != "labels_"]


def answers(model, X):
    """Return every output of a fitted estimator on X by method, and its labels if it has any."""
    found = {name: np.asarray(getattr(model, name)(X)) for name in methods_of(model)}
    return found | ({"labels_": np.asarray(model.labels_)} if "labels_" in spec_of(model).laws else {})


class Fit:
    """What the common tests read: an estimator, fitted with a seed to the small data, and its answers on new data."""

    def __init__(self, estimator, dtype, columns):
        self.X, self.y = small_data(estimator, dtype)
        self._new = new_data(estimator, self.X)
        rows = self.X if columns is None else pd.DataFrame(self.X, columns=list(columns))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sweeps that are cut short, and of seeds that break a guarantee
            self._model = fit(seeded(estimator), rows, self.y)

    @property
    def model(self):
        """A copy of the fitted estimator, which may be changed."""
        return copy.deepcopy(self._model)

    @functools.cached_property
    def answers(self):
        """What the estimator answers on new data, by method."""
        names = getattr(self._model, "feature_names_in_", None)
        return answers(self.model, self._new if names is None else pd.DataFrame(self._new, columns=names))


_FITS: dict[tuple, Fit] = {}


def fitted(estimator, dtype=np.float64, columns=None) -> Fit:
    """Return the fit of an estimator to the small data, made once; `columns` are the names of a data frame."""
    key = (type(estimator), repr(sorted(estimator.get_params().items())), np.dtype(dtype).name, columns)
    if key not in _FITS:
        _FITS[key] = Fit(estimator, dtype, columns)
    return _FITS[key]


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
    if isinstance(a, BaseEstimator):  # a part of another one
        return same_value(vars(a), vars(b))
    if isinstance(a, torch.nn.Module):  # without weights: see `sklowrank._nets.architecture.without_weights`
        shapes = ({name: value.shape for name, value in m.state_dict().items()} for m in (a, b))
        return repr(a) == repr(b) and same_value(*shapes)
    if sp.issparse(a):
        return a.shape == b.shape and (a != b).nnz == 0
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and same_value(a.tolist(), b.tolist())
    if isinstance(a, BaseEstimator):
        return same_value(vars(a), vars(b))
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
