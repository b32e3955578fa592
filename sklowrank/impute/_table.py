"""Loaded tables with missing values: their observed cells, and writing these into a filled table.

A table, or a block of its rows, is a tensor in which NaN is missing, or a CSR matrix of the observed values.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from .._core.rows import MappedRows, Rows, RowSource
from .._core.workspace import on_cluster


class Entries(NamedTuple):
    """Single cells of a table."""

    rows: torch.Tensor
    columns: torch.Tensor
    values: torch.Tensor


def load_table(X, ws, missing_values) -> RowSource:
    """Return the rows of validated X, tensors in which NaN is missing or CSR matrices of the observed values.

    Rows of a cluster stay there.
    """
    if on_cluster(X):
        return X if np.isnan(missing_values) else MappedRows(X, partial(_with_nan, missing_values), X.shape[1])
    if not sp.issparse(X):
        X = ws.load(X)
        return Rows(X if np.isnan(missing_values) else _with_nan(missing_values, X))
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    missing = np.isnan(X.data) | (X.data == missing_values)
    if missing.any():
        rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))[~missing]
        X = sp.csr_matrix((X.data[~missing], (rows, X.indices[~missing])), shape=X.shape)
    return Rows(X)


def _with_nan(missing_values, X):
    return torch.where(missing_values == X, torch.nan, X)


def observed_entries(X, device) -> Entries:
    """Return the observed cells of a block."""
    if not sp.issparse(X):
        rows, columns = torch.nonzero(~X.isnan(), as_tuple=True)
        return Entries(rows, columns, X[rows, columns])
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    return Entries(*(torch.from_numpy(a).to(device) for a in (rows, X.indices.astype(np.int64), X.data)))


def put_observed(full, X, value=None):
    """Write the observed cells of a block into `full`, or `value` in their place, and return it."""
    if not sp.issparse(X):
        return torch.where(X.isnan(), full, X if value is None else value)
    rows, columns, values = observed_entries(X, full.device)
    full[rows, columns] = values if value is None else value
    return full


def split_for_score(X, share, modelled):
    """Return a share of the observed cells of the modelled columns of a block, and the block without them."""
    rows, columns, values = observed_entries(X, modelled.device)
    eligible = modelled[columns].nonzero()[:, 0].cpu().numpy()
    chosen = np.random.RandomState(0).permutation(eligible)[: max(1, int(share * len(eligible)))]
    chosen = torch.from_numpy(np.sort(chosen)).to(modelled.device)
    hidden = Entries(rows[chosen], columns[chosen], values[chosen])
    if not sp.issparse(X):
        rest = X.clone()
        rest[hidden.rows, hidden.columns] = torch.nan
        return hidden, rest
    rest = np.ones(X.nnz, dtype=bool)
    rest[chosen.cpu().numpy()] = False
    return hidden, sp.csr_matrix((X.data[rest], (rows.cpu().numpy()[rest], X.indices[rest])), shape=X.shape)


def check_positions(positions, name, limit):
    """Return positions of rows or columns as int64, all within the limit."""
    positions = np.asarray(positions)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a list of integers, got an array of {positions.dtype}, {positions.ndim}-d.")
    if len(positions) and not (positions.min() >= 0 and positions.max() < limit):
        raise ValueError(f"{name} must lie in [0, {limit}), got {positions.min()} to {positions.max()}.")
    return positions.astype(np.int64)


def stacked(a, b):
    """Return the rows of two tables as one; a dense table with a sparse one becomes a sparse one of observed cells."""
    if not (sp.issparse(a) or sp.issparse(b)):
        return np.concatenate([a, b])
    return sp.vstack([_only_observed(a), _only_observed(b)], format="csr")


def _only_observed(X):
    if sp.issparse(X):
        return X
    rows, columns = np.nonzero(~np.isnan(X))
    return sp.csr_matrix((X[rows, columns], (rows, columns)), shape=X.shape)
