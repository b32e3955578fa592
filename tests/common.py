"""Every public estimator, found by itself, with small data on which it fits, and what it answers."""

import importlib
import pkgutil

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier, is_clusterer, is_regressor

import sklowrank

# Networks are trained for fewer epochs in the common tests, and nothing else is changed.
QUICKER = {
    "ManifoldLinearizingClustering": {"n_epochs_init": 5, "n_epochs": 2},
    "FrechetSDR": {"max_iter": 20, "patience": 3},
}
METHODS = ("transform", "predict", "predict_proba", "decision_function", "score_samples")


def public_estimators():
    """Return one instance, by defaults but for QUICKER, of each estimator that a public sub-package names."""
    classes = []
    for module in pkgutil.iter_modules(sklowrank.__path__):
        if not module.name.startswith("_"):
            package = importlib.import_module(f"sklowrank.{module.name}")
            members = (getattr(package, name) for name in getattr(package, "__all__", ()))
            classes += [c for c in members if isinstance(c, type) and issubclass(c, BaseEstimator)]
    return [c(**QUICKER.get(c.__name__, {})) for c in sorted(set(classes), key=lambda c: c.__name__)]


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
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(60, 5)) + [3, -1, 0, 2, 5]
    if hasattr(estimator, "recommend"):  # rows and columns of a matrix
        X[:, 0], X[:, 1] = np.divmod(rng.permutation(100)[:60], 10)
    if is_classifier(estimator):
        return X.astype(dtype), (X[:, 0] > 3).astype(int)
    if is_regressor(estimator) or estimator.__sklearn_tags__().target_tags.required:
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
    """True for the methods of subspaces: in one dimension there is no room for a flat piece."""
    flat = is_clusterer(estimator) and not hasattr(estimator, "module")
    return flat or hasattr(estimator, "score_function")


def fit(estimator, X, y):
    """Fit in place, with y only where there is one."""
    return estimator.fit(X) if y is None else estimator.fit(X, y)


def answers(fitted, X):
    """Return every output of a fitted estimator on X by method, and its labels if it has any."""
    out = {name: np.asarray(getattr(fitted, name)(X)) for name in METHODS if hasattr(fitted, name)}
    if hasattr(fitted, "labels_"):
        out["labels_"] = np.asarray(fitted.labels_)
    return out
