"""Lists of pairs on a cluster, brought into partitions that have all values of their rows."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_consistent_length

from .._core.compat import check_sample_weight
from .._core.partitions import FIRST_ROWS, Partitions, load_dask, partitions_of, to_local
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
        lengths = dask.compute(*(dask.delayed(len)(part) for part in parts))
        y = to_local(y)
        check_consistent_length(range(sum(lengths)), y)
        outline = np.broadcast_to(y.dtype.type(0), (len(y), 1))
        weights = check_sample_weight(
            None if sample_weight is None else to_local(sample_weight), outline, ensure_non_negative=True
        )
        ends = np.cumsum([0, *lengths])
        frames = [dask.delayed(_framed)(part, y[i:j], weights[i:j]) for part, i, j in zip(parts, ends, ends[1:])]
        self.source, self.dtype = X, np.dtype(np.float32 if y.dtype == np.float32 else np.float64)
        first = frames[0].compute()
        self.head = (parts[0][:FIRST_ROWS].compute(), y[:FIRST_ROWS])
        with dask.config.set({"dataframe.convert-string": False}):
            frame = dd.from_delayed(frames, meta=first.iloc[:0], verify_meta=False)
            frame = frame[frame["weight"] > 0].shuffle(frame.columns[0]).persist()
        parts = frame.to_delayed()
        lengths = dask.compute(*(dask.delayed(len)(part) for part in parts))
        parts = [part for part, n in zip(parts, lengths) if n]
        super().__init__(parts, partial(_pairs_here, self.dtype), device, np.cumsum([0, *(n for n in lengths if n)]))
        self.shape = (len(self), first.shape[1] - 2)


class Pairs(NamedTuple):
    """Pairs of one partition, their values, and where to compute."""

    columns: Columns
    y: np.ndarray
    weights: np.ndarray
    ws: Any

    @property
    def shape(self):
        return (len(self.y),)


def _framed(part, y, weights):
    """Return a frame of the columns of pairs, of their values and weights; identifiers keep their types."""
    import pandas as pd

    part = part if hasattr(part, "iloc") else np.asarray(part)
    columns = {str(i): values_of(column) for i, column in enumerate(separate(part))}
    return pd.DataFrame({**columns, "value": y, "weight": weights})


def _pairs_here(dtype, frame, device):
    y, weights = (np.array(frame[name], dtype=t) for name, t in (("value", dtype), ("weight", np.float64)))
    ws = open_workspace(y, device=device)
    return Pairs(columns_of(frame.iloc[:, :-2]), y, weights, ws), ws.device
