"""Real tables on which the precision of every estimator is measured, in the form that it takes.

Four are scikit-learn's own. Faces and ratings are read from the folder that `SKLOWRANK_DATA` names, where it is set.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

from tests.estimators import spec_of

BUNDLED = {"breast cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits, "diabetes": load_diabetes}
_N_FACES = 10  # people
_HIDDEN = 0.3  # share of cells


class RealTable(NamedTuple):
    """What an estimator is fitted to, and asked about."""

    X: np.ndarray
    y: np.ndarray | None
    params: dict[str, Any]  # which the table decides: the number of its clusters, bounds that are known


def tables_for(estimator) -> Iterator[tuple[str, RealTable]]:
    """Yield the names of the tables that an estimator is for, and the tables."""
    spec = spec_of(estimator)
    for name, load in BUNDLED.items():
        X, target = load(return_X_y=True)
        classes = target if name != "diabetes" else (target > np.median(target)).astype(int)
        yield name, _table(estimator, X, classes, target.astype(float))
    folder = os.environ.get("SKLOWRANK_DATA")
    if folder and spec.ids:
        ratings = np.loadtxt(Path(folder) / "movielens_100k" / "u.data", dtype=int)
        yield "ratings", RealTable(ratings[:, :2].astype(float), ratings[:, 2].astype(float), {})
    elif folder:
        file = np.load(next((Path(folder) / "yaleb32").glob("*.npz")))
        chosen = file["y"] < _N_FACES
        pixels = file["X"][chosen].reshape(-1, 16, 2, 16, 2).mean((2, 4)).reshape(-1, 256)
        yield "faces", _table(estimator, pixels, file["y"][chosen], file["y"][chosen].astype(float))


def _table(estimator, X, classes, numbers):
    """Return a table in the form that an estimator takes."""
    spec, params = spec_of(estimator), {}
    if spec.ids:
        return _pairs(X)
    if estimator.__sklearn_tags__().input_tags.allow_nan:
        hidden = np.random.default_rng(0).random(X.shape) < _HIDDEN
        return RealTable(np.where(hidden, np.nan, X), None, {})  # in its own units: it scales the columns itself
    X = (X - X.mean(0)) / np.where(X.std(0) > 0, X.std(0), 1.0)
    known = estimator.get_params()
    if "n_clusters" in known:
        params["n_clusters"] = len(np.unique(classes))
    elif "labels_" in spec.laws:
        params["n_components"] = len(np.unique(classes))
    if "bounds" in known:
        params["bounds"] = (-10.0, 10.0)
    return RealTable(X, {"classes": classes, "numbers": numbers, None: None}[spec.y], params)


def _pairs(X):
    """Return the cells of a table that are not hidden, as (row, column) and value in units of the column."""
    shown = np.random.default_rng(0).random(X.shape) >= _HIDDEN
    values = (X - X.mean(0)) / np.where(X.std(0) > 0, X.std(0), 1.0)
    return RealTable(np.argwhere(shown).astype(float), values[shown], {})
