"""Fits on Dask collections: rows are read where they lie, and only statistics of them travel.

What an estimator collects from a block of rows in this process it collects here from the blocks of each partition, with
the same functions, so the answer is that of ``estimator.fit`` on all rows up to rounding. A partition that is lost with
its worker is read again. Needs the extra `dask`.
"""

import warnings
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_consistent_length, check_is_fitted

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
    _check_collection(X)
    if estimator._sums_over_rows == "pairs":
        return estimator.fit(PartitionedPairs(X, y, device=estimator.device), None)
    rows = PartitionedRows(X, device=estimator.device, allow_nan=estimator.__sklearn_tags__().input_tags.allow_nan)
    given = {} if sample_weight is None else {"sample_weight": _local(sample_weight)}
    return estimator.fit(rows, **given) if y is None else estimator.fit(rows, _local(y), **given)


def predict(estimator, X):
    """Return the predictions for a Dask collection, lazily, partition by partition.

    Parameters
    ----------
    estimator : estimator
        Fitted, here or by :func:`fit`.
    X : dask array of shape (n_samples, n_features), or dask data frame
        The rows.

    Returns
    -------
    answers : dask array of shape (n_samples,), or dask series
        What ``estimator.predict`` returns; for a data frame with its index.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from sklowrank import distributed
    >>> from sklowrank.mixture import LowRankGaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 1, 0.1]
    >>> flat = LowRankGaussianMixture(1, n_dims=2).fit(X)
    >>> distributed.predict(flat, da.from_array(X, chunks=(50, 3))).compute().shape
    (100,)
    """
    return _lazily(estimator, X, "predict")


def predict_proba(estimator, X):
    """Return the probabilities of classes or components for a Dask collection, lazily, partition by partition.

    Parameters
    ----------
    estimator : estimator
        Fitted, here or by :func:`fit`.
    X : dask array of shape (n_samples, n_features), or dask data frame
        The rows.

    Returns
    -------
    answers : dask array of shape (n_samples, n_classes), or dask data frame
        What ``estimator.predict_proba`` returns; for a data frame with its index.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from sklowrank import distributed
    >>> from sklowrank.mixture import LowRankGaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 1, 0.1]
    >>> flat = LowRankGaussianMixture(1, n_dims=2).fit(X)
    >>> distributed.predict_proba(flat, da.from_array(X, chunks=(50, 3))).compute().shape
    (100, 1)
    """
    return _lazily(estimator, X, "predict_proba")


def transform(estimator, X):
    """Return the features for a Dask collection, lazily, partition by partition.

    Parameters
    ----------
    estimator : estimator
        Fitted, here or by :func:`fit`.
    X : dask array of shape (n_samples, n_features), or dask data frame
        The rows.

    Returns
    -------
    answers : dask array of shape (n_samples, n_components), or dask data frame
        What ``estimator.transform`` returns; for a data frame with its index.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from sklowrank import distributed
    >>> from sklowrank.mixture import LowRankGaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 1, 0.1]
    >>> flat = LowRankGaussianMixture(1, n_dims=2).fit(X)
    >>> distributed.transform(flat, da.from_array(X, chunks=(50, 3))).compute().shape
    (100, 2)
    """
    return _lazily(estimator, X, "transform")


def score_samples(estimator, X):
    """Return the log densities for a Dask collection, lazily, partition by partition.

    Parameters
    ----------
    estimator : estimator
        Fitted, here or by :func:`fit`.
    X : dask array of shape (n_samples, n_features), or dask data frame
        The rows.

    Returns
    -------
    answers : dask array of shape (n_samples,), or dask series
        What ``estimator.score_samples`` returns; for a data frame with its index.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from sklowrank import distributed
    >>> from sklowrank.mixture import LowRankGaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 1, 0.1]
    >>> flat = LowRankGaussianMixture(1, n_dims=2).fit(X)
    >>> distributed.score_samples(flat, da.from_array(X, chunks=(50, 3))).compute().shape
    (100,)
    """
    return _lazily(estimator, X, "score_samples")


# Rows on a cluster


class Partitions:
    """What is built of the partitions of a collection, one by one, where they lie.

    Parameters
    ----------
    parts : list of delayed objects
        The partitions, none of them empty.
    build : callable
        From a partition and a device to an object with the method `gather`: rows, or cells of a matrix.
    device : str
        Where workers compute.
    starts : array of shape (n_partitions + 1,) or None
        Where the rows of each partition start; None where they are yet to be counted.
    """

    remote, sparse, at_hand = True, False, False

    def __init__(self, parts, build, device, starts=None):
        self._parts, self._build, self._device, self._starts = parts, build, device, starts
        if starts is None:
            self._starts = np.cumsum([0, *self.reduce(_length)[0]])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def reduce(self, collect, *beside, merge=added):
        """Return the merged results of ``collect(what was built, *parts of beside)`` over partitions."""
        dask = _dask()
        task, join = dask.delayed(_on_partition, pure=False), dask.delayed(merge, pure=False)
        build, collect = (dask.delayed(f, pure=False, traverse=False) for f in (self._build, collect))
        results = []
        for i, part in enumerate(self._parts):
            pieces = [_own(b, slice(*self._starts[i : i + 2])) for b in beside]
            results.append(task(part, build, self._device, collect, pieces))
        while len(results) > 1:  # neighbours are merged, so that what belongs to rows stays in their order
            pairs = [join(*results[i : i + 2]) for i in range(0, len(results) - 1, 2)]
            results = pairs + results[len(results) - len(results) % 2 :]
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": _LARGE_GRAPH}):
            return results[0].compute()

    def gather(self, compute, *beside, merge=added, **options):
        """Return the merged results of ``compute(block, *parts)`` over blocks of rows, as `Rows.gather` does."""
        return self.reduce(partial(_gathered, compute, merge, options), *beside, merge=merge)

    def rebuilt(self, make):
        """Return partitions of which ``make(what was built)`` is built."""
        return Partitions(self._parts, partial(_built_of_built, make, self._build), self._device)

    def kept(self):
        """Return the same, with what was built kept by the workers; what is lost with a worker is built again."""
        dask = _dask()
        built = [dask.delayed(self._build, traverse=False)(part, self._device) for part in self._parts]
        return Partitions(list(dask.persist(*built)), _as_built, self._device, self._starts)

    def fit_in_one_block(self, size: int) -> bool:
        """False: no block holds several partitions."""
        return False


def _as_built(built, device):
    return built


def _on_partition(part, build, device, collect, pieces):
    """Run on a worker, on its device: collect from what is built of one partition."""
    built, here = build(part, device)
    collect, pieces = _moved(collect, here), _moved(pieces, here)
    return _moved(collect(built, *pieces), torch.device("cpu"))


def _gathered(compute, merge, options, built, *pieces):
    return built.gather(compute, *pieces, merge=merge, **options)


def _built_of_built(make, build, part, device):
    built, here = build(part, device)
    return _moved(make, here)(built), here


def _length(built):
    return ([built.shape[0]],)


def _own(values, rows):
    """Return some rows of what lies beside X, in memory of their own: a slice of a tensor is sent as a whole."""
    part = values if values is None else values[rows]
    return part.clone() if isinstance(part, torch.Tensor) else part


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


class PartitionedRows(Partitions):
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

    def __init__(self, X, *, device="auto", allow_nan=False):
        dask = _dask()
        parts = _partitions(X)
        facts = [dask.delayed(_facts)(part, _FIRST_ROWS * (i == 0), allow_nan) for i, part in enumerate(parts)]
        lengths, types, heads = zip(*dask.compute(*facts))
        if "NaN" in types:
            raise ValueError("Input X contains NaN or infinity. Fill or drop the rows that have them.")
        self.source, self.head = X, heads[0]
        self.dtype = np.dtype(np.float32 if set(types) == {"float32"} else np.float64)
        starts = np.cumsum([0, *(n for n in lengths if n)])
        parts = [part for part, n in zip(parts, lengths) if n]
        super().__init__(parts, partial(_rows_here, self.dtype), device, starts)
        self.shape = (len(self), self.head.shape[1])
        self.outline = np.broadcast_to(self.dtype.type(0), self.shape)

    def take(self, at) -> torch.Tensor:
        """Return some rows, a slice or positions (m,)."""
        positions = np.arange(len(self))[at if isinstance(at, slice) else np.asarray(at)]
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        owners = np.unique(owner)
        pick = _dask().delayed(_picked)
        picked = [pick(self._parts[i], positions[owner == i] - self._starts[i], self.dtype) for i in owners]
        rows = np.empty((len(positions), self.shape[1]), dtype=self.dtype)
        for i, part in zip(owners, _dask().compute(*picked)):
            rows[owner == i] = part
        return torch.from_numpy(rows)


def _facts(part, n_head, allow_nan):
    """Return the number of rows, the name of their type ("NaN" where they are not finite), and the first of them."""
    values = np.asarray(part)
    name = str(values.dtype)
    if values.dtype.kind == "f" and not (~np.isinf(values) if allow_nan else np.isfinite(values)).all():
        name = "NaN"
    return len(values), name, part[:n_head]


def _picked(part, at, dtype):
    return np.asarray(part)[at].astype(dtype, copy=False)


def _rows_here(dtype, part, device):
    """Return the rows of a partition, and the device on which they are computed with."""
    X = np.require(np.asarray(part), dtype=dtype, requirements=["C", "W"])
    ws = open_workspace(X, device=device)
    return Rows(X, ws), ws.device


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
        import dask.dataframe as dd

        dask = _dask()
        parts = _partitions(X)
        lengths = dask.compute(*(dask.delayed(len)(part) for part in parts))
        y = _local(y)
        check_consistent_length(range(sum(lengths)), y)
        ends = np.cumsum([0, *lengths])
        frames = [dask.delayed(_with_value)(part, y[i:j]) for part, i, j in zip(parts, ends, ends[1:])]
        self.source, self.dtype = X, np.dtype(np.float32 if y.dtype == np.float32 else np.float64)
        first = frames[0].compute()
        self.head = (parts[0][:_FIRST_ROWS].compute(), y[:_FIRST_ROWS])
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


# Collections


def _dask():
    try:
        import dask
    except ImportError as error:
        raise ImportError("sklowrank.distributed needs Dask. Install it with: pip install 'sklowrank[dask]'") from error
    return dask


def _partitions(X) -> list[Any]:
    """Return the partitions of X, each of them all columns of some rows, as delayed objects."""
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


def _lazily(estimator, X, method):
    check_is_fitted(estimator)
    _check_collection(X)
    framed = hasattr(X, "divisions")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a row that stands for the type and the width of the answer
        row = X._meta_nonempty.iloc[:1] if framed else np.zeros((1, X.shape[1]), dtype=X.dtype)
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
