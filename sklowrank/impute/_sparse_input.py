"""Tables as the user passes them: what cells that a sparse one does not store mean, and how all are validated."""

import numpy as np
import scipy.sparse as sp

from .._core.warn import warn

MOST_DENSE_CELLS = 2**27  # 1 GiB of float64: above it a sparse X neither becomes a dense table nor is answered with one


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
    return hasattr(X, "iloc") and hasattr(X, "columns") and any(hasattr(t, "fill_value") for t in X.dtypes)


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


def table_validation(missing_values):
    """Return how a table is to be validated, in `fit` and later."""
    return {"accept_sparse": "csr", "ensure_all_finite": "allow-nan" if np.isnan(missing_values) else True}
