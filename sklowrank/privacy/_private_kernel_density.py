"""Differentially private kernel density: sums of kernels to private rows, for any number of queries."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, DensityMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.rows import rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_rows, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._accountant import PrivacyAccountant
from ._cosine_features import (
    KERNELS,
    CosineFeatures,
    KernelOptions,
    cosine_features,
    kernel_answers,
    move_into_bounds,
    wave_sums,
)
from ._mechanism import release
from ._mixin import PrivateMixin
from ._options import CONSTRAINTS, documented_release
from ._private_rows import check_hiding_cells, without_cells
from ._public_parameters import read_bandwidth, read_bounds
from ._sketch import MOSTLY_NOISE, Sketch, described, is_mostly_noise, merge_sketches

_BANDWIDTH = 1.0  # the default, which says nothing about units
_FLOOR = 0.1  # of the noise, below which a mean is not trusted


@documented_release
class PrivateKernelDensity(PrivateMixin, DensityMixin, BaseEstimator):
    """Estimate a density from private rows once, and let anyone query it without limit.

    One release answers every later question about sums of kernels: the density at a point, its similarity to the rows,
    outliers. For some thousand rows and more; with fewer the noise dominates. Without privacy
    :class:`~sklearn.neighbors.KernelDensity` is exact. Privacy is per row: a person who contributes k rows is protected
    at k epsilon. Preprocessing fitted on the same rows (scaling, bounds, bandwidth, labels) is not covered.

    Parameters
    ----------
    <budget_parameters>
    kernel : str, default="gaussian"
        With the Euclidean distance r, the sum of absolute differences s, and bandwidth h: "gaussian"
        ``exp(-r²/(2h²))``, "exponential" ``exp(-r/h)``, "laplacian" ``exp(-s/h)``, "cauchy" ``1/(1+r²/h²)``, "inverse"
        ``1/(1+r/h)``, "inverse_l1" ``1/(1+s/h)``.
    bandwidth : float or array-like of shape (n_features,), default=1.0
        Width of the kernel in units of X, for all columns or for each, chosen without looking at X. Pass one for
        each column where units differ. It limits the accuracy as epsilon does: where the release shows that rows are
        rarely within it of one another, `fit` warns.
    bounds : (lowest, highest) or None, default=None
        Ends of each column, numbers or arrays of shape (n_features,), known without looking at X; rows are moved into
        them. Only `feature_map="fourier"` needs them; not for sparse X.
    feature_map : {"auto", "fourier", "rff"}, default="auto"
        "fourier" is a grid of frequencies, exact for few columns with bounds and the Gaussian kernel; "rff" draws
        frequencies, for any kernel and any number of columns. "auto" takes the grid where it is small.
    n_components : int or "auto", default="auto"
        Number of components. They are random frequencies: under Gaussian noise more of them cost no privacy, only
        time, and "auto" is 1024. Under Laplace noise they do, and "auto" is 0.35 epsilon `n_samples_hint`, between 64
        and 4096, or 256 without a hint.
    <mechanism_parameters>
    count_weight : float, default=0.25
        Weight of the noisy counts of rows in a release with Gaussian noise, at least 2^-20. Raising it makes the
        counts more exact and all else less.
    n_samples_hint : int or None, default=None
        Rough number of rows that is public. Only for `n_components="auto"`.
    query_margin : float, default=0.0
        How far outside of the bounds queries may lie, in bandwidths. Only for the grid.
    <release_parameters>

    Attributes
    ----------
    sketch_ : array of shape (2 * n_frequencies,)
        Noisy sums of cosines, then of sines, over the rows: whole multiples of 2^-20.
    frequencies_ : array of shape (n_frequencies, n_features)
        In radians per unit of X.
    amplitudes_ : array of shape (n_frequencies,)
        Of the cosines and sines.
    noise_scale_ : float
        Standard deviation of the Gaussian noise in `sketch_`, or scale of the Laplace noise; for several releases
        times the root of their number.
    noise_std_ : float
        Standard deviation of the noise in one sum of kernels.
    sensitivity_ : float
        How much one row can change the release, in the norm of the mechanism.
    mechanism_, noise_backend_, adjacency_ : str
        Those used.
    noise_secure_ : bool
        False where the noise can be reproduced.
    n_samples_ : float
        Number of rows: noisy and at least 1, or exact with `adjacency="substitute"`.
    bounds_ : tuple of two arrays, or None
        Those used.
    privacy_spent_ : named tuple (epsilon, delta, mechanism, adjacency, n_releases)
        The guarantee to each row.
    floor_ : float
        Means below this are raised to it before a logarithm is taken.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    PrivateSimilarityClassifier : One sketch for each class.
    PrivateDistanceSum : Sums of distances instead of kernels.
    sklearn.neighbors.KernelDensity : Exact, without privacy.

    Notes
    -----
    A kernel is written as :math:`\\sum_k c_k \\cos(w_k^\\top (x - y))`. What is released is
    :math:`\\sum_x a_k \\cos(w_k^\\top x), \\sum_x a_k \\sin(w_k^\\top x)` for all k, in whole steps of 2^-20, plus
    whole numbers of noise. With :math:`a_k = \\sqrt{c_k}` the noise of an answer has the standard deviation
    :math:`\\sigma \\sum_k c_k`, whatever the number of frequencies. Fitting takes O(n_samples n_features n_frequencies)
    time, in blocks; afterwards nothing depends on n_samples. Two calls of `partial_fit` must never see the same row,
    and cost no more than one. That an exception is raised, for NaN or text, says something about the rows; its text
    shows no cell.

    References
    ----------
    .. [1] A. Backurs, Z. Lin, S. Mahabadi, S. Silwal, J. Tarnawski, "Efficiently computing similarities to private
       datasets", ICLR 2024.
    .. [2] T. Wagner, Y. Naamad, N. Mishra, "Fast private kernel density estimation via locality sensitive
       quantization", ICML 2023.
    .. [3] C. Canonne, G. Kamath, T. Steinke, "The discrete Gaussian for differential privacy", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.privacy import PrivateKernelDensity
    >>> X = np.random.default_rng(0).normal(0.5, 0.1, size=(5000, 2))
    >>> density = PrivateKernelDensity(epsilon=1.0, bandwidth=0.1, bounds=(0, 1)).fit(X)
    >>> centre, corner = density.kernel_means([[0.5, 0.5], [0.05, 0.05]])
    >>> bool(centre > 0.4 > 0.1 > corner)
    True
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "kernel": [StrOptions(set(KERNELS))],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), "array-like", str],
        "feature_map": [StrOptions({"auto", "fourier", "rff"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "count_weight": [Interval(Real, 0, None, closed="neither")],
        "n_samples_hint": [Interval(Integral, 1, None, closed="left"), None],
        "query_margin": [Interval(Real, 0, None, closed="left")],
    }

    # Set by fit
    sketch_: np.ndarray
    frequencies_: np.ndarray
    amplitudes_: np.ndarray
    noise_scale_: float
    noise_std_: float
    sensitivity_: float
    mechanism_: str
    noise_backend_: str
    adjacency_: str
    noise_secure_: bool
    n_samples_: float
    bounds_: tuple[np.ndarray, np.ndarray] | None
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        *,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        kernel: Literal["gaussian", "exponential", "laplacian", "cauchy", "inverse", "inverse_l1"] = "gaussian",
        bandwidth: float | ArrayLike | str = _BANDWIDTH,
        bounds: ArrayLike | None = None,
        feature_map: Literal["auto", "fourier", "rff"] = "auto",
        n_components: int | Literal["auto"] = "auto",
        mechanism: Literal["auto", "gaussian", "laplace"] = "auto",
        adjacency: Literal["add_remove", "substitute"] = "add_remove",
        count_weight: float = 0.25,
        n_samples_hint: int | None = None,
        query_margin: float = 0.0,
        accountant: PrivacyAccountant | None = None,
        noise_backend: Literal["auto", "opendp", "builtin"] = "auto",
        feature_random_state: RandomState = None,
        random_state: RandomState = None,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
    ):
        self.epsilon = epsilon
        self.delta = delta
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.bounds = bounds
        self.feature_map = feature_map
        self.n_components = n_components
        self.mechanism = mechanism
        self.adjacency = adjacency
        self.count_weight = count_weight
        self.n_samples_hint = n_samples_hint
        self.query_margin = query_margin
        self.accountant = accountant
        self.noise_backend = noise_backend
        self.feature_random_state = feature_random_state
        self.random_state = random_state
        self.device = device
        self.batch_size = batch_size

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Release a sketch of the rows.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_samples, n_features)
            The private rows; sparse without `bounds` only.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : PrivateKernelDensity

        Raises
        ------
        BudgetError
            If the accountant has too little left; nothing is released.
        """
        privacy = self._privacy_options()
        X = check_hiding_cells(check_fit_rows, self, X, accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        rows, label = rows_of(X, ws), f"{type(self).__name__}, {self.kernel} kernel"
        bandwidth = read_bandwidth(self.bandwidth, rows.shape[1])
        bounds = read_bounds(self.bounds, rows, self.feature_map == "fourier", "feature_map='fourier'")
        kernel = options(self, KernelOptions, bandwidth=bandwidth, bounds=bounds)
        features, noise = cosine_features(kernel, privacy, sparse=issparse(X))
        sums = without_cells(wave_sums, rows, features.waves(), None, 1, self.batch_size, ws.device)[0]
        sketch = release(privacy, noise, sums, len(rows), features.count, features.gain, label)
        unknown_units = self.bounds is None and np.ndim(self.bandwidth) == 0 and self.bandwidth == _BANDWIDTH
        if is_mostly_noise(sketch, features, doubted=unknown_units):
            warn(MOSTLY_NOISE.format(self.bandwidth, self.epsilon), UserWarning)
        return keep(self, ws, sketch, features, **described(sketch, features))

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None) -> Self:
        """Release a sketch of further rows and add it: no more is spent, because no row was seen before.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_samples, n_features)
            Private rows, none of them in an earlier call.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : PrivateKernelDensity
        """
        if not hasattr(self, "sketch_"):
            return self.fit(X)
        former, features = recall(self, Sketch, None), self._features()
        privacy = self._privacy_options(former)
        X = check_hiding_cells(check_fit_rows, self, X, accept_sparse="csr", reset=False)
        ws = open_workspace(X, device=self.device)
        rows, label = rows_of(X, ws), f"{type(self).__name__}, {self.kernel} kernel"
        sums = without_cells(wave_sums, rows, features.waves(), None, 1, self.batch_size, ws.device)[0]
        added = release(privacy, former.noise(), sums, len(rows), features.count, features.gain, label)
        sketch = merge_sketches(added, former)
        return keep(self, ws, sketch, features, **described(sketch, features))

    def kernel_sums(self, Y):
        """Return the sums of kernels between queries and all private rows.

        Parameters
        ----------
        Y : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        sums : array of shape (n_queries,)
            Unbiased, and so sometimes below zero.
        """
        ws, sums, _ = self._sums(Y, "kernel_sums")
        return ws.store(sums.to(ws.dtype))

    def kernel_means(self, Y):
        """Return the mean kernels between queries and the private rows.

        Parameters
        ----------
        Y : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        means : array of shape (n_queries,)
        """
        ws, sums, _ = self._sums(Y, "kernel_means")
        return ws.store((sums / self.n_samples_).to(ws.dtype))

    def score_samples(self, Y):
        """Return the log density at queries.

        Parameters
        ----------
        Y : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        log_density : array of shape (n_queries,)
            For the kernels "cauchy", "inverse" and "inverse_l1", which have no finite integral, the logarithm of the
            mean kernel.
        """
        ws, found = self._log_density(Y, "score_samples")
        return ws.store(found.to(ws.dtype))

    def score(self, Y, y=None):
        """Return the sum of the log densities, as :class:`~sklearn.neighbors.KernelDensity` does.

        Parameters
        ----------
        Y : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The queries. A score on private rows is not private.
        y : ignored
            Present for pipelines.

        Returns
        -------
        score : float
        """
        return float(self._log_density(Y, "score")[1].sum())

    def standard_error(self, Y):
        """Return the standard deviations of the noise in `kernel_sums`: the same for all queries, and free of data.

        Parameters
        ----------
        Y : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        errors : array of shape (n_queries,)
            The error of random frequencies is not in it.
        """
        ws, rows, _ = self._queries(Y, "standard_error")
        return ws.store(torch.full((rows.shape[0],), self.noise_std_, dtype=ws.dtype, device=ws.device))

    @property
    def floor_(self):
        """Means below this are raised to it before a logarithm is taken."""
        return _FLOOR * self.noise_std_ / self.n_samples_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.sparse = True
        tags.non_deterministic = True
        return partitioned(tags)

    def _features(self):
        return recall(self, CosineFeatures, None).on_host()

    def _queries(self, Y, method):
        """Return the workspace of queries, the queries in float64, and the features."""
        Y = check_hiding_cells(check_new_data, self, Y, like="sketch_", method=method, accept_sparse="csr")
        ws, features = open_workspace(Y, device=self.device), self._features()
        return ws, Y if issparse(Y) else move_into_bounds(ws.exact().load(Y), features), features

    def _sums(self, Y, method):
        """Return the workspace of queries, their sums of kernels in float64, and the features."""
        ws, rows, features = self._queries(Y, method)
        return ws, kernel_answers(rows, features, ws.exact().load(self.sketch_)[None])[:, 0], features

    def _log_density(self, Y, method):
        ws, sums, features = self._sums(Y, method)
        means = (sums / self.n_samples_).clamp(min=self.floor_)
        return ws, means.log() - features.log_integral
