"""Reading lists of (row, column, further columns): each column by itself, so that none changes the type of another."""

from typing import NamedTuple

import numpy as np
from sklearn.utils import assert_all_finite

from .._core.compat import check_sample_weight, check_y
from .._core.validation import explained, on_host
from .._core.workspace import check_place
from ._identifiers import check_identifiers, concat_identifiers, values_of

_NO_NUMBERS = "Columns of X after the first two enter linearly and must be numbers. Encode or drop them."


class Pairs(NamedTuple):
    """What a list of pairs holds."""

    rows: np.ndarray  # (n_samples,) identifiers
    cols: np.ndarray  # (n_samples,) identifiers
    Z: np.ndarray  # (n_samples, n_further), float64


class Observations(NamedTuple):
    """Values with their pairs."""

    rows: np.ndarray  # (n_samples,) identifiers
    cols: np.ndarray
    Z: np.ndarray  # (n_samples, n_further), float64
    y: np.ndarray  # (n_samples,)
    weights: np.ndarray | None  # None where each is one

    @property
    def kind(self):
        """How they come, as :class:`~sklowrank._core.rows.RowSource` says it."""
        return "memory"

    @property
    def dtype(self):
        """Type of the values."""
        return self.y.dtype

    def weighted(self):
        """Return the same with weights written out."""
        return self if self.weights is not None else self._replace(weights=np.ones(len(self.y)))

    def followed_by(self, other):
        """Return both, one after the other; both with weights."""
        ids = (concat_identifiers([a, b]) for a, b in ((self.rows, other.rows), (self.cols, other.cols)))
        return Observations(*ids, *(np.concatenate([a, b]) for a, b in zip(self[2:], other[2:])))

    def present(self):
        """Return what has a weight above 0, which may be nothing: what has none is as if it were not there."""
        if self.weights is None or (self.weights > 0).all():
            return self
        return Observations(*(part[self.weights > 0] for part in self))


def prepared(X, y):
    """Return X and y as scikit-learn can validate them, and how X is to be validated."""
    check_place(X)
    X, y = on_host(X), on_host(y)
    if not _is_frame(X):
        return _typed(X), y, {"dtype": None, "ensure_all_finite": False}
    for what, size in zip(("sample(s)", "feature(s)"), X.shape):
        if not size:
            raise ValueError(f"Found array with 0 {what} (shape={tuple(X.shape)}) while a minimum of 1 is required.")
    return X, y, {"skip_check_array": True}


def numeric_values(y, name) -> np.ndarray:
    """Return y as numbers; `name` is that of the estimator."""
    if y is None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    with explained(None, y):
        y = check_y(y, multi_output=False, y_numeric=True, estimator=name)
        return y.astype(np.float64) if y.dtype.kind in "SU" else y


def numeric_weights(sample_weight, y) -> np.ndarray | None:
    """Return weights as float64, or None where all are one."""
    if sample_weight is None:
        return None
    check_place(sample_weight, "sample_weight")
    weights = check_sample_weight(
        on_host(sample_weight), y[:, None], dtype=np.float64, ensure_non_negative=True, allow_all_zero_weights=True
    )
    return None if (weights == 1).all() else weights


def pairs_of(X) -> Pairs:
    """Return the columns of pairs; X is a frame or an array of two dimensions."""
    columns = list(separate(X))
    cols = columns[1] if len(columns) > 1 else np.zeros(len(X), dtype=np.int64)  # one column for all
    further = [numbers_of(column, _NO_NUMBERS) for column in columns[2:]]
    Z = np.column_stack(further) if further else np.zeros((len(X), 0))
    assert_all_finite(Z, input_name="X")
    return Pairs(check_identifiers(columns[0], "row"), check_identifiers(cols, "column"), Z)


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


def numbers_of(column, refusal):
    """Return a column as float64, in which a missing value is NaN; ValueError with a text where it holds no numbers."""
    values = values_of(column)
    try:
        if values.dtype.kind in "Mmc":  # which numpy would convert
            raise TypeError
        if values.dtype.kind == "O":
            values = [np.nan if value is None or str(value) in ("<NA>", "NaT") else value for value in values]
        return np.asarray(values).astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(refusal) from None
