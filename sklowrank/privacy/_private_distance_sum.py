"""Differentially private sums of distances to private rows, for any number of queries."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.rows import rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_rows, check_new_data
from .._core.workspace import open_workspace
from ._accountant import PrivacyAccountant
from ._distance_features import (
    DistanceFeatures,
    DistanceOptions,
    distance_answers,
    distance_errors,
    distance_features,
    distance_sums,
)
from ._mechanism import release
from ._mixin import PrivateMixin
from ._options import CONSTRAINTS, documented_release
from ._private_rows import check_hiding_cells, without_cells
from ._public_parameters import read_bounds
from ._sketch import Sketch, described, merge_sketches


@documented_release
class PrivateDistanceSum(PrivateMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Sum the distances from any point to private rows, from one release.

    The mean distance says how far from the private rows a point is: to rank public or synthetic rows, to find outliers,
    as a feature. The guarantee is that of :class:`PrivateKernelDensity`. Without privacy
    :func:`sklearn.metrics.pairwise_distances` is exact.

    Parameters
    ----------
    metric : {"l1", "lp", "l2", "sqeuclidean"}, default="l1"
        Sum over columns of absolute differences, or of their power `p`, without a root; Euclidean distance; its square.
    p : float, default=1.5
        Power of "lp", at most 2.
    <budget_parameters>
    bounds : (lowest, highest) or None, default=None
        Ends of each column, numbers or arrays of shape (n_features,), known without looking at X; rows are moved into
        them. Queries are moved, too. None reads them from X, which the guarantee does not cover.
    n_frequencies : int, default=128
        Cosines of each column or direction; raising it makes distances more exact. Not for "sqeuclidean".
    n_bins : int, default=1024
        Bins of each column, between whose ends rows are interpolated. Not for "sqeuclidean".
    n_directions : int or "auto", default="auto"
        Directions along which "l2" is averaged. "auto" is 64 or a few more, in whole sets of the number of columns.
    <mechanism_parameters>
    <release_parameters>

    Attributes
    ----------
    sketch_ : array of shape (n_sums,)
        The release: whole multiples of 2^-20, the count aside.
    noise_scale_, noise_std_ : float
        Of the noise in `sketch_`, and its standard deviation in a sum of distances (for "sqeuclidean" from the middle
        of the bounds).
    n_samples_ : float
        Number of rows: noisy and at least 1, or exact with `adjacency="substitute"`.
    sensitivity_, mechanism_, noise_backend_, noise_secure_, adjacency_, bounds_, privacy_spent_
        As in :class:`PrivateKernelDensity`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    PrivateKernelDensity : Sums of kernels: near rows count, far ones do not.

    Notes
    -----
    On [-1, 1] a power of the absolute value is a series of cosines, so a sum of distances is answered as a sum of
    kernels is. All columns share one release: its noise grows with the norm of all amplitudes, not with their number.
    Fitting takes O(n_samples n_features + n_features n_frequencies n_bins) time; "l2" projects on directions first.

    References
    ----------
    .. [1] A. Backurs, Z. Lin, S. Mahabadi, S. Silwal, J. Tarnawski, "Efficiently computing similarities to private
       datasets", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.privacy import PrivateDistanceSum
    >>> X = np.random.default_rng(0).beta(2, 5, size=(3000, 4))
    >>> distances = PrivateDistanceSum(bounds=(0, 1)).fit(X)
    >>> near, far = distances.mean_distances([[0.2, 0.2, 0.3, 0.3], [1.0, 1.0, 1.0, 1.0]])
    >>> bool(near < 1.0 < 2.5 < far)
    True
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "metric": [StrOptions({"l1", "lp", "l2", "sqeuclidean"})],
        "p": [Interval(Real, 0, 2, closed="right")],
        "n_frequencies": [Interval(Integral, 1, 1024, closed="both")],
        "n_bins": [Interval(Integral, 2, 65536, closed="both")],
        "n_directions": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    # Set by fit
    sketch_: np.ndarray
    noise_scale_: float
    noise_std_: float
    n_samples_: float
    sensitivity_: float
    mechanism_: str
    noise_backend_: str
    noise_secure_: bool
    adjacency_: str
    bounds_: tuple[np.ndarray, np.ndarray] | None
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        *,
        metric: Literal["l1", "lp", "l2", "sqeuclidean"] = "l1",
        p: float = 1.5,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        bounds: ArrayLike | None = None,
        n_frequencies: int = 128,
        n_bins: int = 1024,
        n_directions: int | Literal["auto"] = "auto",
        mechanism: Literal["auto", "gaussian", "laplace"] = "auto",
        adjacency: Literal["add_remove", "substitute"] = "add_remove",
        accountant: PrivacyAccountant | None = None,
        noise_backend: Literal["auto", "opendp", "builtin"] = "auto",
        feature_random_state: RandomState = None,
        random_state: RandomState = None,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
    ):
        self.metric = metric
        self.p = p
        self.epsilon = epsilon
        self.delta = delta
        self.bounds = bounds
        self.n_frequencies = n_frequencies
        self.n_bins = n_bins
        self.n_directions = n_directions
        self.mechanism = mechanism
        self.adjacency = adjacency
        self.accountant = accountant
        self.noise_backend = noise_backend
        self.feature_random_state = feature_random_state
        self.random_state = random_state
        self.device = device
        self.batch_size = batch_size

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Release the sums.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The private rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : PrivateDistanceSum

        Raises
        ------
        BudgetError
            If the accountant has too little left; nothing is released.
        """
        privacy = self._privacy_options()
        X = check_hiding_cells(check_fit_rows, self, X)
        ws = open_workspace(X, device=self.device)
        rows, label = rows_of(X, ws), f"{type(self).__name__}, {self.metric}"
        bounds = read_bounds(self.bounds, rows, True, "PrivateDistanceSum")
        features, noise = distance_features(options(self, DistanceOptions, bounds=bounds), privacy)
        sums = without_cells(distance_sums, rows, features, noise.mechanism, self.n_bins, self.batch_size)
        sketch = release(privacy, noise, sums, len(rows), features.count, features.gain, label)
        return keep(self, ws, sketch, features, **described(sketch, features))

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None) -> Self:
        """Release the sums of further rows and add them: no more is spent, because no row was seen before.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Private rows, none of them in an earlier call.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : PrivateDistanceSum
        """
        if not hasattr(self, "sketch_"):
            return self.fit(X)
        former, features = recall(self, Sketch, None), self._features()
        privacy, noise = self._privacy_options(former), former.noise()
        X = check_hiding_cells(check_fit_rows, self, X, reset=False)
        ws = open_workspace(X, device=self.device)
        rows, label = rows_of(X, ws), f"{type(self).__name__}, {self.metric}"
        sums = without_cells(distance_sums, rows, features, noise.mechanism, self.n_bins, self.batch_size)
        added = release(privacy, noise, sums, len(rows), features.count, features.gain, label)
        sketch = merge_sketches(added, former)
        return keep(self, ws, sketch, features, **described(sketch, features))

    def distance_sums(self, Y):
        """Return the sums of distances from queries to all private rows.

        Parameters
        ----------
        Y : array-like or tensor of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        sums : array of shape (n_queries,)
        """
        ws, sums = self._sums(Y, "distance_sums")
        return ws.store(sums.to(ws.dtype))

    def mean_distances(self, Y):
        """Return the mean distances from queries to the private rows.

        Parameters
        ----------
        Y : array-like or tensor of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        means : array of shape (n_queries,)
        """
        ws, sums = self._sums(Y, "mean_distances")
        return ws.store((sums / self.n_samples_).to(ws.dtype))

    def transform(self, Y):
        """Return the mean distances as a column.

        Parameters
        ----------
        Y : array-like or tensor of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        means : array of shape (n_queries, 1)
        """
        ws, sums = self._sums(Y, "transform")
        return ws.store((sums / self.n_samples_).to(ws.dtype)[:, None])

    def score_samples(self, Y):
        """Return minus the mean distances: higher is more like the private rows.

        Parameters
        ----------
        Y : array-like or tensor of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        scores : array of shape (n_queries,)
        """
        ws, sums = self._sums(Y, "score_samples")
        return ws.store((-sums / self.n_samples_).to(ws.dtype))

    def standard_error(self, Y):
        """Return the standard deviations of the noise in `distance_sums`, free of data.

        Parameters
        ----------
        Y : array-like or tensor of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        errors : array of shape (n_queries,)
        """
        ws, Y = self._queries(Y, "standard_error")
        return ws.store(distance_errors(Y, self._features(), self.noise_std_).to(ws.dtype))

    @property
    def _n_features_out(self):
        return 1

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.non_deterministic = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)

    def _features(self):
        return recall(self, DistanceFeatures, None)

    def _queries(self, Y, method):
        """Return the workspace of queries, and the queries in float64."""
        Y = check_hiding_cells(check_new_data, self, Y, like="sketch_", method=method)
        ws = open_workspace(Y, device=self.device)
        return ws, ws.exact().load(Y)

    def _sums(self, Y, method):
        """Return the workspace of queries, and their sums of distances, in float64."""
        ws, Y = self._queries(Y, method)
        sketch = ws.exact().load(self.sketch_)
        return ws, distance_answers(Y, self._features(), sketch, self.mechanism_, self.n_samples_)
