"""Lists of pairs on a cluster, brought into partitions that have all values of their rows."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_consistent_length

from .._core.partitions import FIRST_ROWS, Partitions, load_dask, partitions_of, to_local
from .._core.workspace import open_workspace


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
        lengths = dask.compute(*(dask.delayed(len)(part) for part in parts))
        y = to_local(y)
        check_consistent_length(range(sum(lengths)), y)
        ends = np.cumsum([0, *lengths])
        frames = [dask.delayed(_with_value)(part, y[i:j]) for part, i, j in zip(parts, ends, ends[1:])]
        self.source, self.dtype = X, np.dtype(np.float32 if y.dtype == np.float32 else np.float64)
        first = frames[0].compute()
        self.head = (parts[0][:FIRST_ROWS].compute(), y[:FIRST_ROWS])
        with dask.config.set({"dataframe.convert-string": False}):
            frame = dd.from_delayed(frames, meta=first.iloc[:0], verify_meta=False)
            frame = frame.shuffle(frame.columns[0]).persist()
        parts = frame.to_delayed()
        lengths = dask.compute(*(dask.delayed(len)(part) for part in parts))
        parts = [part for part, n in zip(parts, lengths) if n]
        super().__init__(parts, partial(_pairs_here, self.dtype), device, np.cumsum([0, *(n for n in lengths if n)]))
        self.shape = (len(self), first.shape[1] - 1)


class Pairs(NamedTuple):
    """Pairs of one partition: identifiers and further columns, values, and where to compute."""

    X: np.ndarray
    y: np.ndarray
    ws: Any

    @property
    def shape(self):
        return self.X.shape


def _with_value(part, y):
    import pandas as pd

    frame = pd.DataFrame(np.asarray(part))
    frame["value"] = y
    frame.columns = frame.columns.map(str)
    return frame


def _pairs_here(dtype, frame, device):
    y = np.ascontiguousarray(frame["value"].to_numpy(), dtype=dtype)
    ws = open_workspace(y, device=device)
    return Pairs(frame.iloc[:, :-1].to_numpy(), y, ws), ws.device
