"""Lists of pairs on a cluster, brought into partitions that have all values of their rows."""

from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length

from .._core.compat import check_sample_weight, check_y
from .._core.partitions import Partitions, forms_of, head_of, load_dask, partitions_of, to_local
from .._core.validation import explained
from .._core.workspace import open_workspace
from ._identifiers import values_of
from ._reading import Columns, columns_of, separate


class PartitionedPairs(Partitions):
    """A list of (row, column, value) on a cluster, brought into partitions that have all values of their rows.

    Parameters
    ----------
    X : dask array or data frame
        Identifiers of row and column, and further columns.
    y : dask or numpy array of shape (n_samples,)
        The values.
    sample_weight : dask or numpy array of shape (n_samples,), or None
        Numbers of observations. Samples of weight 0 are left out.
    device : str
        Where workers compute.
    """

    def __init__(self, X, y, sample_weight=None, *, device="auto"):
        dask = load_dask()
        import dask.dataframe as dd

        if y is None:
            raise ValueError("MatrixFactorizationRegressor requires y to be passed, but the target y is None.")
        parts = partitions_of(X)
        forms = forms_of(parts, _types_of_columns)
        y = to_local(y)
        with explained(None, y):
            y = check_y(y, y_numeric=True, estimator="MatrixFactorizationRegressor")
        ends = np.cumsum([0, *(form.n_rows for form in forms)])
        check_consistent_length(range(ends[-1]), y)
        outline = np.broadcast_to(y.dtype.type(0), (len(y), 1))
        weights = check_sample_weight(
            None if sample_weight is None else to_local(sample_weight), outline, ensure_non_negative=True
        )
        types = {form.dtype for form in forms if form.n_rows}
        plain = len(types) == 1 and next(iter(types))[0].kind != "O"  # all identifiers of rows are of one type
        framed = partial(_framed, not plain)
        frames = [dask.delayed(framed)(part, y[i:j], weights[i:j]) for part, i, j in zip(parts, ends, ends[1:])]
        self.source, self.dtype = X, np.dtype(np.float32 if y.dtype == np.float32 else np.float64)
        first = frames[0].compute()
        head = head_of(parts, forms)
        self.head = (head, y[: len(head)])
        with dask.config.set({"dataframe.convert-string": False}):
            frame = dd.from_delayed(frames, meta=first.iloc[:0], verify_meta=False)
            frame = (
                frame[frame["weight"] > 0].shuffle("key", shuffle_method=None if len(types) == 1 else "tasks").persist()
            )
        parts = frame.to_delayed()
        lengths = dask.compute(*(dask.delayed(len)(part) for part in parts))
        parts = [part for part, n in zip(parts, lengths) if n]
        super().__init__(parts, partial(_pairs_here, self.dtype), device, np.cumsum([0, *(n for n in lengths if n)]))
        self.shape = (len(self), first.shape[1] - 3)


class Pairs(NamedTuple):
    """Pairs of one partition, their values, and where to compute."""

    columns: Columns
    y: np.ndarray
    weights: np.ndarray
    ws: Any

    @property
    def shape(self):
        return (len(self.y),)


def _types_of_columns(part):
    """Return an array of the shape of a partition, whose type has those of its columns; what are no pairs raises."""
    if not hasattr(part, "iloc"):
        with explained(part, dtype=None):
            part = check_array(part, dtype=None, ensure_all_finite=False, ensure_min_samples=0)
    if len(part):
        columns_of(part)
    types = np.dtype([(str(i), values_of(column).dtype) for i, column in enumerate(separate(part))])
    return np.broadcast_to(np.empty((), dtype=types), part.shape)


def _framed(as_text, part, y, weights):
    """Return a frame of the columns of pairs, of their values and weights, and of keys by which rows find together.

    Identifiers keep their types. The keys are the row identifiers, as text where partitions have them in several types.
    """
    import pandas as pd

    part = part if hasattr(part, "iloc") else np.asarray(part)
    columns = {str(i): values_of(column) for i, column in enumerate(separate(part))}
    key = [_text_of(value) for value in columns["0"]] if as_text else columns["0"]
    return pd.DataFrame({**columns, "value": y, "weight": weights, "key": key})


def _text_of(identifier):
    """Return a text that is the same for equal identifiers, such as 1, 1.0 and True."""
    return str(float(identifier) if isinstance(identifier, Real | np.bool_) else identifier)


def _pairs_here(dtype, frame, device):
    y, weights = (np.array(frame[name], dtype=t) for name, t in (("value", dtype), ("weight", np.float64)))
    ws = open_workspace(y, device=device)
    return Pairs(columns_of(frame.iloc[:, :-3]), y, weights, ws), ws.device
