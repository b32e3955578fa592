"""Data of supervised dictionary learning: features and covariates told apart, and both as the solvers see them."""

from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils import check_array, check_consistent_length

from .._core.compat import get_column_indices, get_feature_names, get_namespace
from .._core.rows import MappedRows, Rows, column_ends, first_rows, map_rows, rows_of
from .._core.warn import warn
from .._core.workspace import check_place
from .._math.sparse import csr_tensor
from ._supervised_dictionary_objective import Dense, Sparse, SparseRows, Table

_COPIED_BYTES = 1 << 29  # of rows that are scaled once, and kept; more of them are scaled each time they are read
_MOST_NAMED = 5  # covariates in an error


class Scaled(NamedTuple):
    """The training data as the solvers see them, and how to get back."""

    table: Table
    Z: torch.Tensor
    mean: torch.Tensor  # (p,), in units of X
    unit: float
    covariate_mean: torch.Tensor
    covariate_scale: torch.Tensor
    squares: float
    total: float  # sum of the sample weights


# Features and covariates


def covariate_indices(columns, X):
    """Return the positions (q,) of the columns of X that `covariate_columns` names; X as the user gave it."""
    if columns is None:
        return np.zeros(0, dtype=np.int64)
    X = first_rows(X)
    if callable(columns):
        columns = columns(X)
    if not isinstance(columns, slice):
        columns = list(columns)
    if isinstance(columns, list) and not columns:
        return np.zeros(0, dtype=np.int64)
    if not hasattr(X, "shape"):
        X = np.asarray(X)
    if columns == slice(None):
        return np.arange(X.shape[1])
    return np.asarray(get_column_indices(X, columns), dtype=np.int64)


def rows_and_covariates(X, indices, covariates, ws):
    """Return the features of training rows X, as rows that are read in blocks or a CSR matrix, and covariates (n, q).

    Raises
    ------
    ValueError
        As :func:`load_covariates`.
    """
    rows = X if sp.issparse(X) else rows_of(X, ws)
    if sp.issparse(X) or rows.kind == "memory" or not len(indices):
        if not sp.issparse(X) and not len(indices):
            return rows, _beside(rows.shape[0], covariates, ws)
        features, beside = load_covariates(X, indices, covariates, ws)
        return features if sp.issparse(X) else Rows(features), beside
    others = _other_columns(X, indices, covariates)
    beside = map_rows(rows, partial(_columns, torch.from_numpy(indices)), size=16 * X.shape[1])
    return MappedRows(rows, partial(_columns, torch.from_numpy(others)), len(others)), beside


def load_covariates(X, indices, covariates, ws, expected=None):
    """Return the features and the covariates (n, q) of rows X, as a tensor or CSR matrix and a tensor.

    `expected` is the number of covariates seen in fit, None in fit itself.

    Raises
    ------
    ValueError
        If covariates are given twice, are missing, or have another shape than in fit.
    """
    if len(indices):
        others = _other_columns(X, indices, covariates)
        if sp.issparse(X):
            return X[:, others], ws.load(X[:, indices].toarray())
        X = ws.load(X)
        return X[:, ws.load(others)], X[:, ws.load(indices)]
    X = X if sp.issparse(X) else ws.load(X)
    return X, _beside(X.shape[0], covariates, ws, expected)


def _other_columns(X, indices, covariates):
    """Return the positions of the columns of X that are no covariates."""
    if covariates is not None:
        raise ValueError("Covariates are columns of X (covariate_columns): covariates= cannot be given as well.")
    others = np.setdiff1d(np.arange(X.shape[1]), indices)
    if not len(others):
        raise ValueError("covariate_columns names all columns of X, which leaves no feature for the dictionary.")
    return others


def _columns(places, X):
    return X[:, places.to(X.device)]


def _beside(n_samples, covariates, ws, expected=None):
    """Return covariates that are no columns of X, (n, q)."""
    if covariates is None:
        if expected:
            raise ValueError(f"This model was fitted with {expected} covariates: pass covariates= here, too.")
        return torch.zeros(n_samples, 0, dtype=ws.dtype, device=ws.device)
    check_place(covariates, "covariates")
    xp, _ = get_namespace(covariates)
    try:
        Z = check_array(covariates, dtype=[xp.float64, xp.float32], input_name="covariates")
    except ValueError as error:
        if "covariates" in str(error):
            raise
        raise ValueError(f"covariates cannot be used: {error}") from error
    check_consistent_length(range(n_samples), Z)
    if expected is not None and Z.shape[1] != expected:
        raise ValueError(f"covariates has {Z.shape[1]} columns, but fit was given {expected}.")
    return ws.load(Z).to(ws.dtype)


def covariate_names(covariates):
    """Return the fitted attribute `covariate_names_in_` in a dict, empty where not all columns have text for a name."""
    names = None if covariates is None else get_feature_names(covariates)
    return {} if names is None else {"covariate_names_in_": names}


def check_covariate_names(model, covariates):
    """Compare the names of covariates with those seen in fit, as scikit-learn does with those of X.

    Raises
    ------
    ValueError
        If names differ, or stand in another order.
    """
    kind, seen = type(model).__name__, getattr(model, "covariate_names_in_", None)
    names = None if covariates is None else get_feature_names(covariates)
    if covariates is None or (names is None and seen is None):
        return
    if seen is None:
        warn(f"covariates has column names, but {kind} was fitted to covariates without names.", UserWarning)
    elif names is None:
        warn(f"covariates has no valid column names, but {kind} was fitted to covariates with names.", UserWarning)
    elif list(names) != list(seen):
        differences = {
            "Covariate names unseen at fit time:": sorted(set(names) - set(seen)),
            "Covariate names seen at fit time, yet now missing:": sorted(set(seen) - set(names)),
        }
        lines = ["The covariate names should match those that were passed during fit."]
        for what, some in differences.items():
            if some:
                lines += [what, *(f"- {name}" for name in some[:_MOST_NAMED])] + ["- ..."] * (len(some) > _MOST_NAMED)
        if not any(differences.values()):
            lines.append("Covariate names must be in the same order as they were in fit.")
        raise ValueError("\n".join(lines) + "\n")


# Data as the solvers see them


def scaled(X, covariates, sample_weight, *, center, fit_intercept, keep, ws):
    """Return rows of mean square length one and covariates of variance one, rows of weight zero left out beforehand.

    All are in the precision of `ws`, whatever that of X. With `keep` the scaled rows are kept in memory, however large
    they are.
    """
    total = float(sample_weight.sum())
    v = sample_weight / total
    table, mean, unit, squares = (
        _sparse_table(X, v, center, ws) if sp.issparse(X) else _dense_table(X, v, center, keep, ws)
    )
    Z = covariates.double()
    z_mean = v @ Z if fit_intercept else torch.zeros_like(Z[0])
    Z = Z - z_mean
    size = torch.where(Z.abs().amax(0) > 0, Z.abs().amax(0), 1.0)
    scale = (v @ (Z / size).square()).sqrt() * size
    scale = torch.where(scale > 1e-12 * z_mean.abs(), scale, 1.0)
    Z = Z / scale
    if fit_intercept:
        Z = torch.cat([torch.ones_like(Z[:, :1]) if Z.shape[1] else Z.new_ones(len(Z), 1), Z], 1)
    return Scaled(table, Z.to(ws.dtype), mean, unit, z_mean, scale, squares, total)


def _dense_table(rows, v, center, keep, ws):
    D = rows.shape[1]
    low, high = column_ends(rows)
    size = float(torch.maximum(low.abs(), high.abs()).amax()) or 1.0
    mean = torch.zeros(D, dtype=torch.float64, device=ws.device)
    if center:
        (mean,) = rows.gather(partial(_mean_sum, size), v, size=24 * D)
        mean = torch.where(low == high, low / size, mean)
    squares = float(rows.gather(partial(_sum_of_squares, size, mean), v, size=24 * D)[0])
    unit = squares**0.5 or 1.0
    scale, bytes_of_rows = partial(_scaled_block, size, mean.to(ws.dtype), unit), ws.dtype.itemsize * D * len(rows)
    if keep or (bytes_of_rows <= _COPIED_BYTES and rows.kind != "cluster"):
        rows, scale = Rows(map_rows(rows, scale, size=4 * ws.dtype.itemsize * D)), None
    blocks = MappedRows(rows, Dense if scale is None else partial(_dense_block, scale), D)
    return Table(blocks, v.to(ws.dtype)), mean * size, unit * size, float(squares > 0)


def _mean_sum(size, X, v):
    return (v @ (X.double() / size),)


def _sum_of_squares(size, mean, X, v):
    return (v @ (X.double() / size - mean).square().sum(1),)


def _scaled_block(size, mean, unit, X):
    return (X.to(mean.dtype) / size).sub_(mean).div_(unit)


def _dense_block(scale, X):
    return Dense(scale(X))


def _sparse_table(X, v, center, ws):
    size = float(abs(X.data).max(initial=0.0)) or 1.0
    X = sp.csr_matrix((X.data.astype(np.float64) / size, X.indices, X.indptr), shape=X.shape)
    weights = v.cpu().numpy()
    mean = X.T @ weights if center else np.zeros(X.shape[1])
    squares = float(X.multiply(X).sum(axis=1).A1 @ weights - mean @ mean)
    unit = max(squares, 0.0) ** 0.5 or 1.0
    X.data /= unit
    shift = ws.load(mean / unit) if center else None
    rows = SparseRows(Sparse(csr(X, ws), csr(X.T.tocsr(), ws), shift))
    return Table(rows, v.to(ws.dtype)), torch.from_numpy(mean * size).to(ws.device), unit * size, float(squares > 0)


def csr(X, ws):
    """Return a scipy CSR matrix as a tensor."""
    return csr_tensor(ws.load(X.indptr), ws.load(X.indices), ws.load(X.data), X.shape)
