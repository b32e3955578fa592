"""Fits on Dask collections: rows are read where they lie, and only statistics of them travel.

What an estimator collects from a block of rows in this process it collects here from the blocks of each partition, with
the same functions, so the answer is that of ``estimator.fit`` on all rows up to rounding. A partition that is lost with
its worker is read again. Needs the extra `dask`.
"""

import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ._core.rows import Rows, added
from ._core.workspace import open_workspace

__all__ = ["fit", "predict", "predict_proba", "score_samples", "transform"]

_FIRST_ROWS = 100  # which stand for all where their form is checked
_LARGE_GRAPH = "1GB"  # below it Dask need not warn: what belongs to rows (labels, weights) travels with the tasks


def fit(estimator, X, y=None, *, sample_weight=None):
    """Fit an estimator to a Dask array or data frame.

    Each pass over the rows reads X again: call ``X.persist()`` first where it fits into the memory of the workers.
    Without a client of `dask.distributed` the threads of this process are the workers.

    Parameters
    ----------
    estimator : estimator
        One of :class:`~sklowrank.mixture.LowRankGaussianMixture`, :class:`~sklowrank.cluster.KSubspaces`,
        :class:`~sklowrank.privacy.PrivateKernelDensity`, :class:`~sklowrank.privacy.PrivateDistanceSum`,
        :class:`~sklowrank.privacy.PrivateSimilarityClassifier`,
        :class:`~sklowrank.dimension_reduction.LinearFrechetSDR`,
        :class:`~sklowrank.decomposition.SupervisedDictionaryLearning`,
        :class:`~sklowrank.decomposition.SupervisedDictionaryRegressor`,
        :class:`~sklowrank.impute.MatrixCompletionImputer` and
        :class:`~sklowrank.recommend.MatrixFactorizationRegressor`. Its `device` is that of the workers.
    X : dask array of shape (n_samples, n_features), or dask data frame
        The rows, partitioned.
    y : dask or numpy array, of shape (n_samples,) or (n_samples, n_outputs), default=None
        What belongs to them. It is brought to this process, as are labels and weights: X never is.
    sample_weight : dask or numpy array of shape (n_samples,), default=None
        Weights of the rows, for estimators that take them.

    Returns
    -------
    estimator : estimator
        The same one, fitted; its attributes are those of a fit in this process.

    Raises
    ------
    TypeError
        If the fit of the estimator is no sum over rows, or X is no Dask collection.

    Examples
    --------
    >>> import dask.array as da
    >>> from sklowrank import distributed
    >>> from sklowrank.cluster import KSubspaces
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> X, y, _ = make_union_of_subspaces(6000, n_clusters=3, random_state=0)
    >>> rows = da.from_array(X, chunks=(1500, -1))
    >>> model = distributed.fit(KSubspaces(3, n_dims=3, affine=False, random_state=0), rows)
    >>> distributed.predict(model, rows).compute().shape
    (6000,)
    """
    if not getattr(estimator, "_sums_over_rows", False):
        raise TypeError(
            f"{type(estimator).__name__} looks at more than one row at a time, and cannot be fitted to partitions. "
            "Fit it to rows that one machine holds, such as X[:5000].compute()."
        )
    rows = PartitionedRows(X, device=getattr(estimator, "device", "auto"), allow_nan=_allows_nan(estimator))
    given = {} if sample_weight is None else {"sample_weight": _local(sample_weight)}
    return estimator.fit(rows, **given) if y is None else estimator.fit(rows, _local(y), **given)


def predict(estimator, X):
    """Return the predictions for a Dask collection, lazily, partition by partition.

    Parameters
    ----------
    estimator : estimator
        Fitted, here or anywhere.
    X : dask array of shape (n_samples, n_features), or dask data frame
        The rows.

    Returns
    -------
    answers : dask array, or dask data frame or series
        What ``estimator.predict`` returns.

    Examples
    --------
    See :func:`fit`.
    """
    return _lazily(estimator, X, "predict")


def predict_proba(estimator, X):
    """Return the probabilities of classes or components for a Dask collection, lazily; see :func:`predict`."""
    return _lazily(estimator, X, "predict_proba")


def transform(estimator, X):
    """Return the features of a Dask collection, lazily; see :func:`predict`."""
    return _lazily(estimator, X, "transform")


def score_samples(estimator, X):
    """Return the log densities of a Dask collection, lazily; see :func:`predict`."""
    return _lazily(estimator, X, "score_samples")


# Rows on a cluster


class PartitionedRows:
    """Rows of a Dask collection, with the interface of `sklowrank._core.rows.Rows`.

    Parameters
    ----------
    X : dask array or data frame
        The rows. They are read once, for their number, and to see that they are finite numbers.
    device : str
        Where workers compute.
    allow_nan : bool
        Whether NaN is a value.
    """

    remote, sparse = True, False

    def __init__(self, X, *, device="auto", allow_nan=False):
        dask = _dask()
        parts = _partitions(X)
        facts = [dask.delayed(_facts)(part, _FIRST_ROWS * (i == 0), allow_nan) for i, part in enumerate(parts)]
        lengths, dtypes, heads = zip(*dask.compute(*facts))
        if "NaN" in dtypes:
            raise ValueError("Input X contains NaN or infinity. Fill or drop the rows that have them.")
        self._parts = [part for part, n in zip(parts, lengths) if n]
        self._starts = np.cumsum([0, *(n for n in lengths if n)])
        self._device = device
        self.source, self.head = X, heads[0]
        self.dtype = np.dtype(np.float32 if set(dtypes) == {"float32"} else np.float64)
        self.shape = (int(self._starts[-1]), self.head.shape[1])
        self.outline = np.broadcast_to(self.dtype.type(0), self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def fit_in_one_block(self, size: int) -> bool:
        """False: no block holds several partitions."""
        return False

    def take(self, at) -> torch.Tensor:
        """Return some rows, a slice or positions (m,)."""
        positions = np.arange(len(self))[at if isinstance(at, slice) else np.asarray(at)]
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        owners = np.unique(owner)
        dask = _dask()
        picked = [
            dask.delayed(_picked)(self._parts[i], positions[owner == i] - self._starts[i], self.dtype) for i in owners
        ]
        rows = np.empty((len(positions), self.shape[1]), dtype=self.dtype)
        for i, part in zip(owners, dask.compute(*picked)):
            rows[owner == i] = part
        return torch.from_numpy(rows)

    def gather(self, compute, *beside, size: int, batch_size="auto", merge=added):
        """Return the merged results of ``compute(block, *parts)`` over blocks of rows, as `Rows.gather` does."""
        dask = _dask()
        walk = partial(_over_blocks, dtype=self.dtype, device=self._device, size=size, batch_size=batch_size)
        task, compute = dask.delayed(walk, pure=False), dask.delayed(compute, pure=False, traverse=False)
        results = []
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:]):
            pieces = [_own(b, slice(start, stop)) for b in beside]
            results.append(task(part, pieces, compute, merge))
        join = dask.delayed(merge, pure=False)
        while len(results) > 1:  # neighbours are merged, so that what belongs to rows stays in their order
            pairs = [join(*results[i : i + 2]) for i in range(0, len(results) - 1, 2)]
            results = pairs + results[len(results) - len(results) % 2 :]
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": _LARGE_GRAPH}):
            return results[0].compute()


def _facts(part, n_head, allow_nan):
    """Return the number of rows, the name of their type ("NaN" where they are not finite), and the first of them."""
    values = np.asarray(part)
    name = str(values.dtype)
    if values.dtype.kind == "f" and not (~np.isinf(values) if allow_nan else np.isfinite(values)).all():
        name = "NaN"
    return len(values), name, part[:n_head]


def _picked(part, at, dtype):
    return np.asarray(part)[at].astype(dtype, copy=False)


def _own(values, rows):
    """Return some rows of what lies beside X, in memory of their own: a slice of a tensor is sent as a whole."""
    part = values if values is None else values[rows]
    return part.clone() if isinstance(part, torch.Tensor) else part


def _over_blocks(part, pieces, compute, merge, *, dtype, device, size, batch_size):
    """Run on a worker: gather from the blocks of one partition, on the worker's device."""
    X = np.require(np.asarray(part), dtype=dtype, requirements=["C", "W"])
    ws = open_workspace(X, device=device)
    compute, pieces = _moved(compute, ws.device), _moved(pieces, ws.device)
    result = Rows(X, ws).gather(compute, *pieces, size=size, batch_size=batch_size, merge=merge)
    return _moved(result, torch.device("cpu"))


def _moved(value, device):
    """Return a value with all tensors in it on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, torch.device):
        return device
    if isinstance(value, partial):
        keywords = {name: _moved(v, device) for name, v in value.keywords.items()}
        return partial(value.func, *(_moved(v, device) for v in value.args), **keywords)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(v, device) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(_moved(v, device) for v in value)
    return value


# Collections


def _dask():
    try:
        import dask
    except ImportError as error:
        raise ImportError("sklowrank.distributed needs Dask. Install it with: pip install 'sklowrank[dask]'") from error
    return dask


def _partitions(X) -> list[Any]:
    """Return the partitions of X, each of them all columns of some rows, as delayed objects."""
    _check_collection(X)
    if hasattr(X, "npartitions") and hasattr(X, "divisions"):
        return list(X.to_delayed())
    return list(X.rechunk({1: -1}).to_delayed()[:, 0])


def _check_collection(X):
    if not (hasattr(X, "__dask_graph__") and hasattr(X, "to_delayed") and X.ndim == 2):
        raise TypeError(
            f"X has to be a Dask array of two dimensions or a Dask data frame, got {type(X).__name__}. For arrays of "
            "this process, memmaps included, call fit of the estimator."
        )


def _local(values):
    """Return what belongs to rows as an array of this process."""
    return np.asarray(values.compute() if hasattr(values, "__dask_graph__") else values)


def _allows_nan(estimator):
    return bool(estimator.__sklearn_tags__().input_tags.allow_nan)


def _lazily(estimator, X, method):
    check_is_fitted(estimator)
    _check_collection(X)
    framed = hasattr(X, "divisions")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a row that stands for the type and the width of the answer
        row = X._meta_nonempty.iloc[:1] * 0 if framed else np.zeros((1, X.shape[1]), dtype=X.dtype)
        none = (_framed_answer if framed else _answer)(row, estimator, method)[:0]
    if framed:
        return X.map_partitions(_framed_answer, estimator, method, none=none, meta=none)
    X = X.rechunk({1: -1})
    shape = {"drop_axis": 1} if none.ndim == 1 else {"chunks": (X.chunks[0], none.shape[1:])}
    return X.map_blocks(_answer, estimator, method, none=none, dtype=none.dtype, meta=none, **shape)


def _answer(X, estimator, method, none=None):
    """Return the answer for some rows; for no rows it is known."""
    return np.asarray(getattr(estimator, method)(X)) if len(X) else none


def _framed_answer(frame, estimator, method, none=None):
    import pandas as pd

    if not len(frame):
        return none
    values = _answer(frame, estimator, method)
    if values.ndim == 1:
        return pd.Series(values, index=frame.index, name=method)
    names = estimator.get_feature_names_out() if method == "transform" else getattr(estimator, "classes_", None)
    return pd.DataFrame(values, index=frame.index, columns=names)
