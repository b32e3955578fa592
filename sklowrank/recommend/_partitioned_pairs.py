"""Lists of pairs on a cluster, brought into partitions that have all values of their rows."""

from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length

from .._core.compat import check_y
from .._core.partitions import Partitions, forms_of, head_of, load_dask, partitions_of, to_local
from .._core.validation import explained
from .._core.workspace import open_workspace
from ._identifiers import readable


class PartitionedPairs(Partitions):
    """A list of (row, column, value) on a cluster, brought into partitions that have all values of their rows.

    Parameters
    ----------
    X : dask array or data frame
        Identifiers of row and column, and further columns.
    y : dask or numpy array of shape (n_samples,)
        The values.
    device : str
        Where workers compute.
    """

    def __init__(self, X, y, *, device="auto"):
        dask = load_dask()
        import dask.dataframe as dd

        if y is None:
            raise ValueError("MatrixFactorizationRegressor requires y to be passed, but the target y is None.")
        parts = partitions_of(X)
        forms = forms_of(parts, _validated)
        y = to_local(y)
        with explained(None, y):
            y = check_y(y, y_numeric=True, estimator="MatrixFactorizationRegressor")
        ends = np.cumsum([0, *(form.n_rows for form in forms)])
        check_consistent_length(range(ends[-1]), y)
        common = _common_type([form.dtype for form in forms])
        frames = [dask.delayed(_with_value)(part, y[i:j], common) for part, i, j in zip(parts, ends, ends[1:])]
        self.source, self.dtype = X, np.dtype(np.float32 if y.dtype == np.float32 else np.float64)
        first = frames[0].compute()
        head = head_of(parts, forms)
        self.head = (head, y[: len(head)])
        with dask.config.set({"dataframe.convert-string": False}):
            frame = dd.from_delayed(frames, meta=first.iloc[:0], verify_meta=False)
            frame = frame.shuffle("key").persist()
        parts = frame.to_delayed()
        lengths = dask.compute(*(dask.delayed(len)(part) for part in parts))
        parts = [part for part, n in zip(parts, lengths) if n]
        super().__init__(parts, partial(_pairs_here, self.dtype), device, np.cumsum([0, *(n for n in lengths if n)]))
        self.shape = (len(self), first.shape[1] - 2)


class Pairs(NamedTuple):
    """Pairs of one partition: identifiers and further columns, values, and where to compute."""

    X: np.ndarray
    y: np.ndarray
    ws: Any

    @property
    def shape(self):
        return self.X.shape


def _validated(part):
    """Return pairs of a partition as an array, with scikit-learn's errors for what cannot be some."""
    with explained(part, dtype=None):
        return check_array(readable(part), dtype=None, ensure_min_samples=0)


def _common_type(types):
    """Return one type for all partitions, so that equal identifiers are equal: that of numbers, or objects."""
    return np.result_type(*types) if all(t.kind in "biuf" for t in types) else np.dtype(object)


def _with_value(part, y, dtype):
    """Return a frame of pairs, values, and keys by which rows find together."""
    import pandas as pd

    X = _validated(part).astype(dtype, copy=False)
    frame = pd.DataFrame(X)
    frame["value"] = y
    frame["key"] = X[:, 0] if dtype.kind != "O" else [_key(identifier) for identifier in X[:, 0]]
    frame.columns = frame.columns.map(str)
    return frame


def _key(identifier):
    """Return a text that is the same for equal identifiers, such as 1, 1.0 and True."""
    return str(float(identifier) if isinstance(identifier, Real | np.bool_) else identifier)


def _pairs_here(dtype, frame, device):
    y = np.ascontiguousarray(frame["value"].to_numpy(), dtype=dtype)
    ws = open_workspace(y, device=device)
    return Pairs(frame.iloc[:, :-2].to_numpy(), y, ws), ws.device
