"""Fits on Dask collections: rows are read where they lie, and only statistics of them travel.

What an estimator collects from a block of rows in this process it collects here from the blocks of each partition, with
the same functions, so the answer is that of ``estimator.fit`` on all rows up to rounding. A partition that is lost with
its worker is read again. Needs the extra `dask`.
"""

import warnings

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._core.partitions import PartitionedRows, check_collection, to_local
from ._core.tags import partitions_of_tags

__all__ = ["fit", "predict", "predict_proba", "score_samples", "transform"]


def fit(estimator, X, y=None, **params):
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
        :class:`~sklowrank.decomposition.MatryoshkaProjection`,
        :class:`~sklowrank.metric_learning.RelativeRepresentation`,
        :class:`~sklowrank.compress.LowRankCompressor`,
        :class:`~sklowrank.compress.LowRankCompensator`,
        :class:`~sklowrank.compress.KVCacheCompressor`,
        :class:`~sklowrank.compress.FeatureMimickingCompressor`,
        :class:`~sklowrank.impute.MatrixCompletionImputer` and
        :class:`~sklowrank.recommend.MatrixFactorizationRegressor`. Its `device` is that of the workers.
    X : dask array of shape (n_samples, n_features), or dask data frame
        The rows, in dense partitions of the same columns. Numbers of any real type; float32 where all partitions are.
        Networks get integers where all partitions have these.
    y : dask or numpy array, of shape (n_samples,) or (n_samples, n_outputs), default=None
        The targets. They are brought to this process, as are labels and weights. Of X only the few thousand rows used
        for initialisation are.
    **params : dask or numpy arrays
        What else ``estimator.fit`` takes for each row: `sample_weight`, `covariates`.

    Returns
    -------
    estimator : estimator
        The same one, fitted; its attributes are those of a fit in this process.

    Raises
    ------
    TypeError
        If the fit of the estimator is no sum over rows, X is no Dask collection, or a partition is sparse.
    ValueError
        If partitions differ in their columns or change between two reads, and where the fit of an array raises it.

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
    partitions = partitions_of_tags(estimator)
    if partitions is None:
        raise TypeError(
            f"{type(estimator).__name__} looks at more than one row at a time, and cannot be fitted to partitions. "
            "Fit it to rows that one machine holds, such as X[:5000].compute()."
        )
    check_collection(X)
    params = {name: _brought(values) for name, values in params.items()}
    if partitions == "pairs":
        from .recommend._partitioned_pairs import PartitionedPairs

        pairs = PartitionedPairs(X, y, params.pop("sample_weight", None), device=estimator.device)
        return estimator.fit(pairs, None, **params)
    tags = estimator.__sklearn_tags__()
    rows = PartitionedRows(
        X,
        device=estimator.device,
        allow_nan=tags.input_tags.allow_nan,
        keep_integers=tags.keep_integers,
    )
    return estimator.fit(rows, **params) if y is None else estimator.fit(rows, to_local(y), **params)


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


def _brought(values):
    """Return what belongs to rows in this process, frames with the names of their columns."""
    values = values.compute() if hasattr(values, "__dask_graph__") else values
    return values if hasattr(values, "columns") else np.asarray(values)


# Answers


def _lazily(estimator, X, method):
    check_is_fitted(estimator)
    check_collection(X)
    framed = hasattr(X, "divisions")
    if not framed and np.isnan(X.shape[1]):
        raise ValueError("The number of columns of X is unknown. Call X.compute_chunk_sizes() first.")
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
    return np.asarray(getattr(estimator, method)(X)) if X.shape[0] else none


def _framed_answer(frame, estimator, method, none=None):
    import pandas as pd

    if not len(frame):
        return none
    values = _answer(frame, estimator, method)
    if values.ndim == 1:
        return pd.Series(values, index=frame.index, name=method)
    names = estimator.get_feature_names_out() if method == "transform" else getattr(estimator, "classes_", None)
    return pd.DataFrame(values, index=frame.index, columns=names)
