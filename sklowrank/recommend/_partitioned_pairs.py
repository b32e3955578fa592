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
from ._identifiers import key_of, values_of
from ._reading import Observations, pairs_of, separate


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
        forms = forms_of(parts, _types_only)
        y = to_local(y)
        with explained(None, y):
            y = check_y(y, y_numeric=True, estimator="MatrixFactorizationRegressor")
        ends = np.cumsum([0, *(form.n_rows for form in forms)])
        check_consistent_length(range(ends[-1]), y)
        weights = check_sample_weight(
            None if sample_weight is None else to_local(sample_weight), y[:, None], ensure_non_negative=True
        )
        framed, types = dask.delayed(_framed), {form.dtype for form in forms if form.n_rows}
        alike = len(types) < 2
        frames = [framed(part, y[i:j], weights[i:j], alike) for part, i, j in zip(parts, ends, ends[1:])]
        objects = not alike or any(t[name].kind == "O" for t in types for name in t.names)
        self.source, self.dtype = X, np.dtype(np.float32 if y.dtype == np.float32 else np.float64)
        first = frames[0].compute()
        head = head_of(parts, forms)
        self.head = (head, y[: len(head)])
        how = {"dataframe.convert-string": False}
        if objects:  # peer-to-peer shuffles need columns of a type that Arrow knows
            how["dataframe.shuffle.method"] = "tasks"
        with dask.config.set(how):
            frame = dd.from_delayed(frames, meta=first.iloc[:0], verify_meta=False)
            frame = frame[frame["weight"] > 0].shuffle("key").persist()
        parts = frame.to_delayed()
        lengths = dask.compute(*(dask.delayed(len)(part) for part in parts))
        parts = [part for part, n in zip(parts, lengths) if n]
        super().__init__(parts, partial(_pairs_here, self.dtype), device, np.cumsum([0, *(n for n in lengths if n)]))
        self.shape = (len(self), first.shape[1] - 2)


class Partition(NamedTuple):
    """The observations of one partition, and where to compute."""

    observations: Observations
    ws: Any

    @property
    def shape(self):
        """Number of observations."""
        return (len(self.observations.y),)


def _validated(part):
    """Return a partition as a frame or an array, with the errors that a fit to it would raise."""
    if not hasattr(part, "iloc"):
        with explained(part, dtype=None):
            part = check_array(part, dtype=None, ensure_all_finite=False, ensure_min_samples=0)
    if len(part):
        pairs_of(part)
    return part


def _types_only(part):
    """Return an array of a partition's shape that has the types of its columns."""
    columns = [values_of(column) for column in separate(_validated(part))]
    types = np.dtype([(str(i), column.dtype) for i, column in enumerate(columns)])
    return np.broadcast_to(np.zeros((), types), part.shape)


def _framed(part, y, weights, alike):
    """Return a frame of the columns of pairs, values, weights, and keys by which rows find together.

    Columns whose types are not `alike` in all partitions hold objects, each identifier as it is.
    """
    import pandas as pd

    columns = [values_of(column) for column in separate(_validated(part))]
    named = {str(i): column if alike else column.astype(object) for i, column in enumerate(columns)}
    return pd.DataFrame({**named, "value": y, "weight": weights, "key": _keys(columns[0])})


def _keys(identifiers):
    """Return integers (n,) that are the same for equal identifiers, whatever the type of the array they stand in."""
    from pandas.util import hash_array

    if identifiers.dtype.kind in "biuf":
        return hash_array(identifiers.astype(np.float64) + 0.0)  # of -0.0 it makes 0.0
    keys = [key_of(value) for value in identifiers]
    hashes = hash_array(np.array([str(key) for key in keys], dtype=object), categorize=False)
    is_number = np.array([isinstance(key, Real) for key in keys], dtype=bool)
    numbers = [
        float(key) + 0.0 if abs(key) < np.finfo(np.float64).max else 0.0 for key in keys if isinstance(key, Real)
    ]
    hashes[is_number] = hash_array(np.array(numbers, dtype=np.float64))
    return hashes


def _pairs_here(dtype, frame, device):
    y, weights = (np.array(frame[name], dtype=t) for name, t in (("value", dtype), ("weight", np.float64)))
    ws = open_workspace(y, device=device)
    return Partition(Observations(*pairs_of(frame.iloc[:, :-3]), y, weights), ws), ws.device
