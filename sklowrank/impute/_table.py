"""Tables with missing values: reading them, their observed cells, and writing these into a filled table.

A loaded table, or a block of its rows, is a tensor in which NaN is missing, or a CSR matrix of the observed values.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from .._core.rows import MappedRows, RowSource, rows_of
from .._core.warn import warn
from .._core.workspace import on_cluster

MOST_DENSE_CELLS = 2**27  # 1 GiB of float64: above it a sparse X neither becomes a dense table nor is answered with one


class Entries(NamedTuple):
    """Single cells of a table."""

    rows: torch.Tensor
    columns: torch.Tensor
    values: torch.Tensor


def dense_if_zeros(X, unstored, missing_values, seen=None):
    """Return X ready to be validated, and what its unstored cells mean: "missing", "zero", or None if it has none.

    A sparse X whose unstored cells are zeros, as in one-hot columns, and a data frame with sparse columns, come back
    dense; one whose unstored cells are missing values, as in ratings, stays sparse. `unstored` is the parameter, `seen`
    the meaning that was found in `fit`.
    """
    if _has_sparse_columns(X):
        return _dense_frame(X, unstored, missing_values)
    if not sp.issparse(X) or X.ndim != 2 or X.dtype.kind not in "biuf":
        return X, None
    X = X.tocsr()  # a cell of a COO matrix may be listed twice
    if X.nnz == X.shape[0] * X.shape[1]:
        return X, None
    if missing_values == 0:
        meaning = "missing"  # a zero is a missing value, stored or not
    elif unstored == "auto":
        meaning = seen or _as_stored(X, missing_values)
    else:
        meaning = unstored
    if meaning == "missing":
        return X, meaning
    _check_size(X.shape, "unstored='zero'")
    return X.toarray(), meaning


def _as_stored(X, missing_values):
    """A matrix that stores missing values does not need unstored cells for them; of others nothing is known."""
    values = X.data
    if (np.isnan(values) if np.isnan(missing_values) else values == missing_values).any():
        return "zero"
    share = X.nnz / (X.shape[0] * X.shape[1])
    warn(
        f"X is sparse and stores {share:.2g} of its cells, none of them a missing value. The others are taken as "
        "missing. Pass unstored='missing' if they are, or unstored='zero' if they are zeros, as in the output of "
        "OneHotEncoder or ColumnTransformer.",
        UserWarning,
    )
    return "missing"


def _has_sparse_columns(X):
    return hasattr(X, "iloc") and any(hasattr(t, "fill_value") for t in getattr(X, "dtypes", ()))


def _dense_frame(X, unstored, missing_values):
    """Return a data frame with its sparse columns made dense, by default with the fill value of each."""
    _check_size(X.shape, "a data frame with sparse columns")
    filled, bases = X.copy(deep=False), set()
    for i, t in enumerate(X.dtypes):
        if not (hasattr(t, "fill_value") and t.subtype.kind in "biuf"):
            continue
        base = {"auto": t.fill_value, "zero": 0.0, "missing": missing_values}[unstored]
        cells = X.iloc[:, i].array
        column = np.full(len(X), base, dtype=t.subtype if t.subtype.kind == "f" else np.float64)
        column[cells.sp_index.to_int_index().indices] = cells.sp_values
        filled.isetitem(i, column)
        bases.add("missing" if np.isnan(base) or base == missing_values else "zero" if base == 0 else "other")
    return filled, bases.pop() if bases in ({"missing"}, {"zero"}) else None


def _check_size(shape, cause):
    if shape[0] * shape[1] > MOST_DENSE_CELLS:
        raise ValueError(
            f"With {cause} X is completed as a dense table, and n_samples={shape[0]} times n_features={shape[1]} is "
            f"above {MOST_DENSE_CELLS} cells. Pass fewer rows or features, or a sparse matrix whose unstored cells are "
            "missing, with unstored='missing'."
        )


def load_table(X, ws, missing_values) -> RowSource:
    """Return the rows of validated X, tensors in which NaN is missing or CSR matrices of the observed values.

    Rows of a cluster stay there.
    """
    if on_cluster(X):
        return X if np.isnan(missing_values) else MappedRows(X, partial(_with_nan, missing_values), X.shape[1])
    if not sp.issparse(X):
        X = ws.load(X)
        return rows_of(X if np.isnan(missing_values) else _with_nan(missing_values, X))
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    missing = np.isnan(X.data) | (X.data == missing_values)
    if missing.any():
        rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))[~missing]
        X = sp.csr_matrix((X.data[~missing], (rows, X.indices[~missing])), shape=X.shape)
    return rows_of(X)


def _with_nan(missing_values, X):
    return torch.where(missing_values == X, torch.nan, X)


def has_values(X) -> torch.Tensor:
    """Return of each row of a block whether something was observed in it, bool of shape (b,)."""
    return torch.from_numpy(np.diff(X.indptr) > 0) if sp.issparse(X) else (~X.isnan()).any(1)


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
