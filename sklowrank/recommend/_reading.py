"""Reading lists of (row, column, further columns): each column by itself, so that none changes the type of another."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import assert_all_finite, check_consistent_length
from sklearn.utils.validation import validate_data

from .._core.compat import check_y
from .._core.validation import explained, on_host
from ._identifiers import check_identifiers, values_of


class Columns(NamedTuple):
    """What a list of pairs holds."""

    rows: np.ndarray  # (n_samples,) identifiers
    cols: np.ndarray  # (n_samples,) identifiers
    Z: np.ndarray  # (n_samples, n_further), float64


def check_columns(estimator, X, y: Any = "no_validation", *, reset):
    """Validate pairs as scikit-learn does a table; return :class:`Columns`, and y as numbers where it is given."""
    X, y = on_host(X), on_host(y)
    if _is_frame(X):
        validate_data(estimator, X, y, reset=reset, skip_check_array=True)
        for what, size in zip(("sample(s)", "feature(s)"), X.shape):
            if not size:
                raise ValueError(
                    f"Found array with 0 {what} (shape={tuple(X.shape)}) while a minimum of 1 is required."
                )
    else:
        with explained(X, dtype=None):
            X = validate_data(estimator, _typed(X), reset=reset, dtype=None, ensure_all_finite=False)
    if isinstance(y, str):
        return columns_of(X)
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None.")
    with explained(None, y):
        y = check_y(y, multi_output=False, y_numeric=True, estimator=estimator)
        y = y.astype(np.float64) if y.dtype.kind in "SU" else y
    check_consistent_length(X, y)
    return columns_of(X), y


def columns_of(X) -> Columns:
    """Return the columns of pairs; X is a frame or an array of two dimensions."""
    columns = list(separate(X))
    cols = columns[1] if len(columns) > 1 else np.zeros(len(X), dtype=np.int64)  # one column for all
    further = [_as_numbers(column) for column in columns[2:]]
    Z = np.column_stack(further) if further else np.zeros((len(X), 0))
    assert_all_finite(Z, input_name="X")
    return Columns(check_identifiers(columns[0], "row"), check_identifiers(cols, "column"), Z)


def separate(X):
    """Yield the columns of a frame or of an array."""
    for i in range(X.shape[1]):
        if hasattr(X, "iloc"):
            yield X.iloc[:, i]
        elif isinstance(X, np.ndarray):
            yield X[:, i]
        else:  # Polars, Arrow
            yield X.to_series(i) if hasattr(X, "to_series") else X.column(i)


def _is_frame(X):
    return len(getattr(X, "shape", ())) == 2 and any(hasattr(X, name) for name in ("iloc", "to_series", "column_names"))


def _typed(X):
    """Return a list of lists as an array of objects, in which an integer beside text or a fraction stays an integer."""
    if not isinstance(X, list | tuple):
        return X
    try:
        array = np.array(X, dtype=object)
    except ValueError:  # ragged: scikit-learn says so
        return X
    return array if array.ndim == 2 else X


def _as_numbers(column):
    column = values_of(column)
    try:
        if column.dtype.kind in "Mmc":  # which numpy would convert
            raise TypeError
        if column.dtype.kind == "O":
            column = [np.nan if value is None or str(value) in ("<NA>", "NaT") else value for value in column]
        return np.asarray(column).astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            "Columns of X after the first two enter linearly and must be numbers. Encode or drop them."
        ) from None
