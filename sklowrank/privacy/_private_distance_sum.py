"""Differentially private sums of distances to private rows, for any number of queries."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.rows import rows_of
from .._core.tags import partitioned
from .._core.workspace import open_workspace
from ._accountant import PrivacyAccountant
from ._distances import (
    Box,
    Series,
    along_columns,
    along_directions,
    moment_norms,
    moment_sums,
    series_amplitudes,
    series_answers,
    series_norms,
    series_sums,
)
from ._families import keep_family
from ._lattice import SHRINK
from ._private_rows import check_private_rows, check_queries, without_cells
from ._release import (
    CONSTRAINTS,
    Noise,
    calibrate,
    check_same_promise,
    choose,
    merge_sketches,
    open_terms,
    read_bounds,
    release,
    remember,
    spent_of,
    warn_outside,
    with_count,
)


class PrivateDistanceSum(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Sum the distances from any point to private rows, from one release.

    The mean distance says how far from the private rows a point is: to rank public or synthetic rows, to find outliers,
    as a feature. The promise is that of :class:`PrivateKernelDensity`. Without privacy
    :func:`sklearn.metrics.pairwise_distances` is exact.

    Parameters
    ----------
    metric : {"l1", "lp", "l2", "sqeuclidean"}, default="l1"
        Sum over columns of absolute differences, or of their power `p`, without a root; Euclidean distance; its square.
    p : float, default=1.5
        Power of "lp", at most 2.
    epsilon : float, default=1.0
        The budget of one fit. Lowering it makes the promise stronger and the noise larger.
    delta : float, default=1e-6
        The delta of (epsilon, delta)-differential privacy, far below 1 / n_samples. 0 is pure differential privacy, by
        Laplace noise.
    bounds : (lowest, highest) or None, default=None
        Ends of each column, numbers or arrays of shape (n_features,), known without looking; rows and queries are moved
        into them. None reads them from X, which is outside the promise.
    n_frequencies : int, default=128
        Cosines of each column or direction; raising it makes distances more exact. Not for "sqeuclidean".
    n_bins : int, default=1024
        Bins of each column, between whose ends rows are interpolated. Not for "sqeuclidean".
    n_directions : int or "auto", default="auto"
        Directions along which "l2" is averaged. "auto" is 64 or a few more, in whole sets of the number of columns.
    mechanism : {"auto", "gaussian", "laplace"}, default="auto"
        The noise. "auto" takes, of those that `delta` and the accountant allow, the one with the smaller error.
    neighbors : {"add_remove", "substitute"}, default="add_remove"
        Whether the presence of a row is protected, with a noisy count of rows, or its values, with a public count and
        twice the noise.
    accountant : PrivacyAccountant or None, default=None
        The budget that pays, as in :class:`PrivateKernelDensity`.
    noise_backend : {"auto", "opendp", "builtin"}, default="auto"
        Who draws the noise. "auto" is OpenDP where it is installed and nothing is seeded.
    feature_random_state : int, RandomState instance or None, default=None
        Seeds the directions of "l2", which are public. Sketches with equal seeds can be merged.
    random_state : int, RandomState instance or None, default=None
        None draws noise from the operating system. Anything else makes the noise reproducible: whoever knows the seed
        subtracts it. A small seed need not be known: all 2^31 seeds can be tried, until public directions fit, or the
        sketch less its noise is plausible. For tests only; it warns with `PrivacyLeakWarning`, and `noise_secure_` is
        False.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    batch_size : int or "auto", default="auto"
        Rows handled at once; no result depends on it.

    Attributes
    ----------
    sketch_ : array of shape (n_sums,)
        The release: whole multiples of 2^-20, the count aside.
    noise_scale_, noise_std_ : float
        Of the noise in `sketch_`, and its standard deviation in a sum of distances (for "sqeuclidean" from the middle
        of the bounds).
    n_samples_ : float
        Number of rows: noisy and at least 1, or exact with `neighbors="substitute"`.
    sensitivity_, mechanism_, noise_backend_, noise_secure_, neighbors_, bounds_, privacy_spent_
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
    neighbors_: str
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
        neighbors: Literal["add_remove", "substitute"] = "add_remove",
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
        self.neighbors = neighbors
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
        return self._release(X, first=True)

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
        return self._release(X, first=not hasattr(self, "sketch_"))

    def merge(self, other) -> Self:
        """Add the sums of another holder of rows, none of which are here.

        Parameters
        ----------
        other : PrivateDistanceSum
            Fitted with the same parameters and `feature_random_state`.

        Returns
        -------
        self : PrivateDistanceSum
        """
        merge_sketches(self, other)
        self.n_samples_ = float(self.n_samples_ + other.n_samples_)
        return self

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
        ws, sums, _ = self._sums(Y, "distance_sums")
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
        ws, sums, _ = self._sums(Y, "mean_distances")
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
        ws, sums, _ = self._sums(Y, "transform")
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
        ws, sums, _ = self._sums(Y, "score_samples")
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
        ws, _, errors = self._sums(Y, "standard_error")
        return ws.store(errors.to(ws.dtype))

    @property
    def privacy_spent_(self):
        """What was promised to each row."""
        return spent_of(self)

    @property
    def _n_features_out(self):
        return 1

    def __sklearn_clone__(self):
        return keep_family(self, super().__sklearn_clone__())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.non_deterministic = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)

    def _release(self, X, first):
        terms = open_terms(self, first)
        X = check_private_rows(self, X, reset=first)
        ws = open_workspace(X, device=self.device)
        rows, label = rows_of(X, ws), f"{type(self).__name__}, {self.metric}"
        if first:
            bounds = read_bounds(self.bounds, rows, True, type(self).__name__)
            box = Box((bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2)
            series = self._series(box, terms)
            count, noise = self._noise(series, rows.shape[1], terms)
        else:
            check_same_promise(self, terms)
            bounds, box, series, count, noise = self._former()
        if series is None:
            sums = without_cells(moment_sums, rows, box, self.batch_size)
        else:
            amplitudes = series_amplitudes(series, noise.mechanism)[0]
            sums = without_cells(series_sums, rows, box, series, amplitudes, self.n_bins, self.batch_size).ravel()
        sums, n_samples = release(terms, noise, sums[None], label, count, np.array([len(rows)]))
        n_samples = float(len(rows)) if n_samples is None else max(1.0, float(n_samples[0]))
        gain = 1.25**0.5 * box.radius() ** 2 if series is None else series.unit * _gain(series, noise.mechanism, count)
        kept = [list(box), None if series is None else list(series), count, noise.scale]
        remember(self, terms, noise, sums[0], kept, bounds=bounds, gain=gain, ws=ws, first=first)
        self.n_samples_ = n_samples if first else self.n_samples_ + n_samples
        return self

    def _series(self, box, terms):
        """Return the series of the metric; None where it is a matter of moments."""
        if self.metric == "sqeuclidean":
            return None
        if self.metric == "l2":
            return along_directions(box, self.n_directions, self.n_frequencies, terms.generator)
        return along_columns(box, 1.0 if self.metric == "l1" else float(self.p), self.n_frequencies)

    def _noise(self, series, d, terms):
        """Return what each row adds to the count, and the noise of the better mechanism."""

        def calibrated(mechanism):
            norms, count = moment_norms(d), 1.0
            if series is not None:
                amplitudes, count = series_amplitudes(series, mechanism)
                norms = series_norms(amplitudes)
            count *= terms.neighbors == "add_remove"
            return count, calibrate(terms, mechanism, with_count(norms, count), rounding=1)

        def predicted(mechanism):
            count, noise = calibrated(mechanism)
            return noise.deviation() * (1 if series is None else _gain(series, mechanism, count))

        return calibrated(choose(terms.allowed, predicted))

    def _former(self):
        box, series, count, scale = self._plan
        series = None if series is None else Series(*series)
        return self.bounds_, Box(*box), series, count, Noise(self.mechanism_, scale, self.sensitivity_)

    def _sums(self, Y, method):
        """Return the workspace of queries, their sums of distances, and the noise in these, in float64."""
        Y = check_queries(self, Y, like="sketch_", method=method)
        ws = open_workspace(Y, device=self.device)
        exact = ws.exact()
        _, box, series, count, noise = self._former()
        Y, sketch = exact.load(Y), exact.load(self.sketch_)
        middle, half = (torch.from_numpy(part).to(ws.device) for part in box)
        inside = Y.clamp(middle - half, middle + half)
        if bool((inside != Y).any()):
            warn_outside()
        if series is None:
            z, radius = (inside - middle) / box.radius(), box.radius()
            length, n = z.square().sum(1), self.n_samples_
            sums = (sketch[-1] + n / 2 - 2 * z @ sketch[:-1]) / SHRINK + n * length
            spread = 1 + 4 * length + ((length + 0.5).square() if count else 0)
            errors = noise.deviation() * self._spent[4] ** 0.5 * spread.sqrt()
            return ws, sums * radius**2, errors * radius**2
        ratios = torch.from_numpy(_ratios(series, noise.mechanism)).to(ws.device)
        sums = series_answers(inside, box, series, ratios, sketch) + self.n_samples_ * series.constant
        return ws, sums * series.unit, torch.full_like(sums, self.noise_std_)


def _gain(series, mechanism, count):
    """Return the norm of what an answer multiplies the entries of the sketch with."""
    ratios = np.linalg.norm(_ratios(series, mechanism)) / SHRINK
    return float(np.hypot(ratios, series.constant / count if count else 0.0))


def _ratios(series, mechanism):
    """Return weights over amplitudes; 0 where a column is so much narrower than another that it has neither."""
    weights, amplitudes = np.abs(series.weights), series_amplitudes(series, mechanism)[0]
    return np.divide(weights, amplitudes, out=np.zeros_like(weights), where=amplitudes > 0)
