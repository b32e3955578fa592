"""How well unlabelled rows fall into groups, from the lengths of their minimum spanning tree."""

from collections.abc import Callable
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.neighbors import VALID_METRICS
from sklearn.utils.validation import check_is_fitted

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options
from .._core.validation import check_fit_data, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._persistence_separability_solver import SeparabilityOptions, check_distances, check_metric, separability

_WITH_PARAMETERS = {"mahalanobis", "nan_euclidean", "seuclidean"}  # of the whole table, or of cells that are missing
METRICS = {*VALID_METRICS["brute"], "precomputed"} - _WITH_PARAMETERS


class PersistenceSeparability(BaseEstimator):
    r"""Score how well unlabelled rows fall into separate groups, by persistent homology.

    The score is between 0 and 1 and needs neither labels nor a number of groups. It ranks versions of the same rows,
    such as scalings, embeddings or states of a network in training. It is not comparable across data sets, and says
    little of fewer than five columns. Columns of different units have to be standardized before. Where the number of
    round groups is known, :func:`~sklearn.metrics.silhouette_score` of the labels of :class:`~sklearn.cluster.KMeans`
    is at least as good.

    Parameters
    ----------
    statistic : {"mean", "gap", "components"}, default="mean"
        What is computed of the bars :math:`p_1 \ge p_2 \ge \cdots`, the edge lengths of the minimum spanning tree.
        "mean" is one minus their mean over the longest. "gap" is the largest of the first 20 drops from one bar to the
        next, over the longest. "components" is the same for the bars that join two parts of at least 1 % of the rows
        each: for tables with outliers.
    normalize : bool, default=True
        Whether to scale rows to unit norm, so that only the angles between them count. The columns are centred before.
        Metrics of single cells need False: "hamming", "haversine" and those of true and false, such as "jaccard".
        Not used for `metric="precomputed"`.
    metric : str or callable, default="euclidean"
        Distance between rows: a name that :func:`~sklearn.metrics.pairwise_distances` takes and that needs no
        parameters, a function of two rows, or "precomputed", where X is the matrix of the distances.
    max_samples : int or None, default=4000
        Number of rows that are drawn where there are more; None takes all. Scores of samples of different size are not
        comparable: more rows have shorter bars.
    n_repeats : int, default=1
        Number of draws of rows, and of permutations for `calibrate`; the score is the mean over them.
    calibrate : bool or "auto", default="auto"
        Whether to compare with the score of a table whose columns are permuted one by one, which has the same columns
        and no groups. Without it, scores depend on the number of columns. "auto" is True but for
        `metric="precomputed"`, which has no columns.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1". Sparse rows and metrics other than "euclidean" are computed on the CPU.
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It decides which rows are drawn and
        how columns are permuted.

    Attributes
    ----------
    score_ : float
        The score; larger is better separated.
    persistence_ : array of shape (n_rows - 1,)
        The bars of the first draw, in descending order: heights of the single linkage of its rows.
    n_components_estimate_ : int or None
        Number of groups by the largest drop of the bars; None where no drop stands out. It tells well separated groups
        from noise in ten columns or more; in two or three columns noise often has such a drop as well.
    threshold_ : float
        Middle of the largest drop. Cutting the single linkage there gives the groups.
    baseline_ : float
        Score of the first permuted table; 0 without calibration.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where it has them.

    See Also
    --------
    SeparabilityMonitor : Says when the score of an embedding in training stops rising.
    persistence_separability_score : The score alone.
    sklearn.metrics.silhouette_score : Separation of groups that are given.

    Notes
    -----
    Components of the Vietoris-Rips filtration of n rows are born at zero and die at the :math:`n - 1` lengths of the
    minimum spanning tree, which Borůvka's algorithm finds exactly. With :math:`S` for the statistic of the table and
    :math:`B` for that of the permuted one, the score is

    .. math:: S = 1 - \frac{1}{n - 1} \sum_k \frac{p_k}{p_1}, \qquad
        \mathrm{score} = \max\left(0, \frac{S - B}{1 - B}\right)

    for "mean". Time O(n² n_features) for the n rows that are drawn, less in few dimensions; memory O(n n_features). An
    outlier lengthens one bar and so raises "mean" and "gap": with `normalize` hardly, as it is moved to the sphere of
    all rows. Everything is computed in float64. The bars are those of [1]_; statistics and calibration are
    not part of it.

    References
    ----------
    .. [1] N. Ghalyan, K. Gourgoulias, Y. Satsangi, S. Moran, M. Labonne, J. Sabelja, "An unsupervised method for
       estimating class separability of datasets with application to LLMs fine-tuning", arXiv:2305.15016, 2023.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from sklowrank.topology import PersistenceSeparability
    >>> X, _ = make_blobs(300, n_features=8, centers=4, random_state=0)
    >>> model = PersistenceSeparability(random_state=0).fit(X)
    >>> model.n_components_estimate_
    4
    >>> noise, _ = make_blobs(300, n_features=8, centers=1, random_state=0)
    >>> model.score_ > 0.5 > 0.1 > model.score(noise)
    True
    """

    _parameter_constraints = {
        "statistic": [StrOptions({"mean", "gap", "components"})],
        "normalize": ["boolean"],
        "metric": [StrOptions(METRICS), callable],
        "max_samples": [Interval(Integral, 2, None, closed="left"), None],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "calibrate": ["boolean", StrOptions({"auto"})],
        "device": [str],
        "random_state": ["random_state"],
    }

    # Set by fit
    score_: float
    persistence_: np.ndarray
    n_components_estimate_: int | None
    threshold_: float
    baseline_: float
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        statistic: Literal["mean", "gap", "components"] = "mean",
        *,
        normalize: bool = True,
        metric: str | Callable[..., Any] = "euclidean",
        max_samples: int | None = 4000,
        n_repeats: int = 1,
        calibrate: bool | Literal["auto"] = "auto",
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.statistic = statistic
        self.normalize = normalize
        self.metric = metric
        self.max_samples = max_samples
        self.n_repeats = n_repeats
        self.calibrate = calibrate
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Score the rows.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, two at least; a matrix (n_samples, n_samples) of distances for `metric="precomputed"`.
        y : object, default=None
            Not used.

        Returns
        -------
        self : PersistenceSeparability
        """
        X = check_fit_data(self, X, **self._accepted())
        given = self.metric == "precomputed"
        calibrate = not given if self.calibrate == "auto" else self.calibrate
        if given:
            check_distances(X, calibrate)
        else:
            check_metric(X, self.metric, self.normalize)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        found = separability(X, options(self, SeparabilityOptions, calibrate=calibrate), ws.exact())
        if not found.persistence[0]:
            warn("All rows are equal: there is nothing to separate, and the score is 0.", UserWarning)
        return keep(
            self,
            ws,
            score_=found.score,
            persistence_=ws.answer(found.persistence),
            n_components_estimate_=found.n_components,
            threshold_=found.threshold,
            baseline_=found.baseline,
        )

    def score(self, X=None, y=None) -> float:
        """Return the score of the rows that were fitted, or of others by themselves.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features), default=None
            The rows, two at least; None are those of `fit`.
        y : object, default=None
            Not used.

        Returns
        -------
        score : float
            Between 0 and 1; larger is better separated.
        """
        check_is_fitted(self)
        if X is None:
            return self.score_
        if self.metric != "precomputed":
            X = check_new_data(self, X, like="persistence_", method="score", **self._accepted())
        return clone(self).fit(X).score_

    def _accepted(self):
        return {"accept_sparse": False if self.metric == "precomputed" else "csr", "ensure_min_samples": 2}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.metric != "precomputed"
        tags.input_tags.pairwise = self.metric == "precomputed"
        tags.array_api_support = True
        return tags


def persistence_separability_score(X, **parameters) -> float:
    """Return how well unlabelled rows fall into separate groups, by persistent homology.

    Parameters
    ----------
    X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
        The rows, two at least; a matrix (n_samples, n_samples) of distances for `metric="precomputed"`.
    **parameters : object
        Parameters of :class:`PersistenceSeparability`.

    Returns
    -------
    score : float
        Between 0 and 1; larger is better separated.

    See Also
    --------
    PersistenceSeparability : The same with the bars and the number of groups.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklowrank.topology import persistence_separability_score
    >>> X = load_iris().data
    >>> score = persistence_separability_score(X, random_state=0)
    >>> score > persistence_separability_score(X[:50], random_state=0)  # of one species alone
    True
    """
    return PersistenceSeparability(**parameters).fit(X).score_
