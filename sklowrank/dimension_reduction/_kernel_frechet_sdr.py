"""Fréchet sufficient dimension reduction by kernel ridge regression: nonlinear features of X in closed form."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, RealNotInt, StrOptions, _fit_context
from .._core.standardize import standardization, standardized
from .._core.validation import check_new_data
from .._core.workspace import open_workspace
from .._math.linalg import signs_of_largest
from ._ball_features import (
    ball_features,
    check_pairs,
    checked_components,
    explained_by,
    number_of,
    stored_balls,
)
from ._distance_order import law_of
from ._kernel_frechet_sdr_solver import exact_ridge, kernel_in_blocks, leave_one_out, median_distance, nystrom_ridge
from ._metric_spaces import NAMES

_GAMMAS = (0.25, 0.5, 1.0, 2.0, 4.0)  # over the median distance
_ALPHAS = tuple(float(alpha) for alpha in np.logspace(-4, 0, 9))
_CHOICE_ROWS = 1000  # at most, on which gamma and alpha are chosen
_MEDIAN_ROWS = 1000  # at most, for the median distance
_BASIS_ROWS = 1000  # of X, where there are too many rows for the exact solution


class KernelFrechetSDR(TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Compress X to a few nonlinear features that keep what it says about y, by kernel ridge regression.

    The aim of :class:`FrechetSDR` in closed form: nothing is trained, and up to 1000 rows nothing is random. In few
    columns both are nearly level; where many columns do not matter the networks are far better.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of features; a float in (0, 1) asks for the fewest that have this share of the sum of eigenvalues.
    metric : str or callable, default="auto"
        Distance between responses, as in :class:`FrechetSDR`.
    kernel : {"rbf", "laplacian"}, default="rbf"
        ``exp(-gamma |x - x'|²)`` with Euclidean distances, or ``exp(-gamma |x - x'|)`` with sums of absolute
        differences.
    gamma : float or "cv", default="cv"
        Raising it makes features less smooth. "cv" takes the best of 1/4, 1/2, 1, 2, 4 over the median distance (of
        "rbf" its square), by leave-one-out.
    alpha : float or "cv", default="cv"
        Penalty per row; raising it makes features smoother. "cv" takes the best of 9 values from 1e-4 to 1.
    n_landmarks : int, default=64
        Number of responses around which there are balls.
    n_thresholds : int, default=16
        Number of radii of each, 255 at most.
    max_exact : int, default=5000
        Rows up to which the solution is exact. Above, it is a combination of the kernels of 1000 random rows (Nyström).
    whiten : bool, default=False
        Whether all features have unit variance in training. Otherwise variances are in the proportion of the
        eigenvalues, and the first is one.
    scale : bool, default=True
        Whether columns of X are standardised.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seeds the choice of rows, of more than 1000; the order in which they come does not matter.

    Attributes
    ----------
    components_dependence_ : array of shape (n_components_,)
        Eigenvalues: the variance of the features of responses that each component explains in training, descending.
    dependence_ratio_ : array of shape (n_components_,)
        Their shares of the sum of all eigenvalues.
    gamma_, alpha_ : float
        Those used.
    X_fit_ : array of shape (m, n_features)
        The rows whose kernels are combined: all, or 1000.
    dual_coef_ : array of shape (m, n_components_)
        Their coefficients.
    intercept_ : array of shape (n_components_,)
        Added to the combinations.
    mean_, scale_ : arrays of shape (n_features,)
        What the columns of X are centred with and divided by.
    landmarks_, landmark_objects_, thresholds_, feature_means_ : arrays
        The balls, as in :class:`FrechetSDR`.
    n_components_ : int
        The number of features.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    FrechetSDR : By networks, for many rows and columns.
    sklearn.kernel_ridge.KernelRidge : For responses that are vectors.

    Notes
    -----
    The indicators of balls, as their principal components T that hold 95 % of their variance, are regressed on X with
    coefficients :math:`(K + n \\alpha I)^{-1} T` of the centred kernel matrix K; the features are the principal
    components of the fitted values. Leave-one-out errors follow from one eigendecomposition per gamma, of 1000 rows at
    most. Time: O(n³) exactly, O(1000² n) otherwise; memory O(n²) and O(n). Everything is in float64.

    References
    ----------
    .. [1] Q. Zhang, L. Xue, B. Li, "Dimension reduction for Fréchet regression", JASA, 2023.

    Examples
    --------
    >>> from sklowrank.datasets import make_frechet_regression
    >>> from sklowrank.dimension_reduction import KernelFrechetSDR
    >>> X, y, _ = make_frechet_regression(300, response="direction", random_state=0)
    >>> sdr = KernelFrechetSDR(1, metric="sphere").fit(X[:200], y[:200])
    >>> sdr.score(X[200:], y[200:]) > 0.1  # of the variance of new responses
    True
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither")],
        "metric": [StrOptions({"auto", *NAMES}), callable],
        "kernel": [StrOptions({"rbf", "laplacian"})],
        "gamma": [Interval(Real, 0, None, closed="neither"), StrOptions({"cv"})],
        "alpha": [Interval(Real, 0, None, closed="neither"), StrOptions({"cv"})],
        "n_landmarks": [Interval(Integral, 1, None, closed="left")],
        "n_thresholds": [Interval(Integral, 1, 255, closed="both")],
        "max_exact": [Interval(Integral, 1, None, closed="left")],
        "whiten": ["boolean"],
        "scale": ["boolean"],
        "device": [str],
        "random_state": ["random_state"],
    }

    # Set by fit
    components_dependence_: np.ndarray
    dependence_ratio_: np.ndarray
    gamma_: float
    alpha_: float
    X_fit_: np.ndarray
    dual_coef_: np.ndarray
    intercept_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    landmarks_: np.ndarray
    landmark_objects_: np.ndarray
    thresholds_: np.ndarray
    feature_means_: np.ndarray
    n_components_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int | float = 2,
        *,
        metric: Callable[..., Any] | str = "auto",
        kernel: Literal["rbf", "laplacian"] = "rbf",
        gamma: float | Literal["cv"] = "cv",
        alpha: float | Literal["cv"] = "cv",
        n_landmarks: int = 64,
        n_thresholds: int = 16,
        max_exact: int = 5000,
        whiten: bool = False,
        scale: bool = True,
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.n_components = n_components
        self.metric = metric
        self.kernel = kernel
        self.gamma = gamma
        self.alpha = alpha
        self.n_landmarks = n_landmarks
        self.n_thresholds = n_thresholds
        self.max_exact = max_exact
        self.whiten = whiten
        self.scale = scale
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Choose the kernel and the penalty, and solve.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The features, two rows at least.
        y : array-like of shape (n_samples, ...)
            The responses, in the form that `metric` asks for.

        Returns
        -------
        self : KernelFrechetSDR

        Raises
        ------
        ValueError
            If a response is not what `metric` asks for, or all are equal.
        """
        X = check_pairs(self, X, y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        features = ball_features(
            y, metric=self.metric, n_landmarks=self.n_landmarks, n_thresholds=self.n_thresholds, device=ws.device
        )
        mean, scale = (part.to(ws.dtype) for part in standardization(ws.load(X), "columns" if self.scale else False))
        rows = standardized(ws.load(X), mean.double(), scale.double(), torch.float64)
        T = features.targets
        sequence = _sequence(rows, features.law)
        gamma, alpha = self._choice(rows, T, sequence, ws)
        if len(rows) <= self.max_exact:
            basis, ridge = (
                torch.arange(len(rows), device=ws.device, dtype=torch.int64),
                exact_ridge(rows, T, self.kernel, gamma, alpha),
            )
        else:
            basis = _some(sequence, _BASIS_ROWS, ws)
            ridge = nystrom_ridge(rows, rows[basis], T, self.kernel, gamma, alpha)
        e, Q = torch.linalg.eigh(ridge.moment)
        e, Q = e.flip(0).clamp(min=0), Q.flip(1)
        n_components = self._width(e)
        coef = ridge.coef @ Q[:, :n_components]
        strength = torch.where(e > 0, e, 1.0).sqrt()
        size = (strength[:n_components] if self.whiten else strength[0]) * signs_of_largest(coef.T)
        coef = coef / size

        vars(self).pop("landmark_objects_", None)  # of a former fit
        vars(self).update(stored_balls(features, y, ws))
        self.components_dependence_ = ws.store(e[:n_components].to(ws.dtype))
        total = e.sum().clamp(min=torch.finfo(e.dtype).tiny)
        self.dependence_ratio_ = ws.store((e[:n_components] / total).to(ws.dtype))
        self.gamma_, self.alpha_, self._kernel = gamma, alpha, self.kernel
        self.X_fit_ = ws.store(ws.load(X)[basis])
        self.dual_coef_, self.intercept_ = ws.store(coef), ws.store(-ridge.mean @ coef)
        self.mean_, self.scale_ = ws.store(mean), ws.store(scale)
        self.n_components_ = n_components
        self._loadings = ws.store((size * Q[:, :n_components]).T @ features.basis.T)
        return self

    def transform(self, X):
        """Return the features of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : array of shape (n_samples, n_components_)
            Uncorrelated on the training rows, with mean zero, in descending order of eigenvalues.
        """
        ws, Z = self._features(X, "transform")
        return ws.store(Z.to(ws.dtype))

    def score(self, X, y):
        """Return the share of the variance of the responses' features that is explained, at most 1; higher is better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples, ...)
            Their responses.

        Returns
        -------
        score : float
            Zero for the mean of the training rows; noise in y keeps it far below one. Compare scores of one `metric`
            only.
        """
        return float(self.explained_dependence(X, y).sum())

    def explained_dependence(self, X, y):
        """Return what each component adds to the score.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples, ...)
            Their responses.

        Returns
        -------
        shares : ndarray of shape (n_components_,)
            They sum to the score.
        """
        ws, Z = self._features(X, "score")
        return explained_by(self, y, Z, range(1, Z.shape[1] + 1), ws.exact())

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _features(self, X, method):
        """Return the workspace of new rows and their components, in float64."""
        X = check_new_data(self, X, like="dual_coef_", method=method)
        ws = open_workspace(X, device=self.device)
        exact = ws.exact()
        mean, scale = exact.load(self.mean_), exact.load(self.scale_)
        rows, centres = (standardized(ws.load(part), mean, scale, torch.float64) for part in (X, self.X_fit_))
        coef = exact.load(self.dual_coef_)
        blocks = kernel_in_blocks(rows, centres, self._kernel, self.gamma_)
        return ws, torch.cat([K @ coef for K in blocks]) + exact.load(self.intercept_)

    def _choice(self, rows, T, sequence, ws):
        """Return gamma and alpha: the user's own, or the best by leave-one-out."""
        if "cv" not in (self.gamma, self.alpha):
            return float(self.gamma), float(self.alpha)
        some = _some(sequence, _CHOICE_ROWS, ws)
        rows, T = rows[some], T[some]
        unit = median_distance(rows[:_MEDIAN_ROWS], self.kernel)
        gammas = [gamma / unit for gamma in _GAMMAS] if self.gamma == "cv" else [float(self.gamma)]
        alphas = _ALPHAS if self.alpha == "cv" else (float(self.alpha),)
        errors = np.array([leave_one_out(rows, T, self.kernel, gamma, alphas) for gamma in gammas])
        best = np.unravel_index(errors.argmin(), errors.shape)
        return gammas[best[0]], alphas[best[1]]

    def _width(self, eigenvalues):
        if isinstance(self.n_components, Integral):
            return checked_components(self.n_components, {"distinct features of the responses": len(eigenvalues)})
        return number_of(eigenvalues, self.n_components)


def _sequence(rows, law):
    """Return the rows in an order that their distances make, not the order in which they come."""
    if len(rows) <= min(_CHOICE_ROWS, _BASIS_ROWS):
        return np.arange(len(rows))
    return np.lexsort([law.rank(), law_of(rows, np.ones(len(rows)), "euclidean").rank()])


def _some(sequence, most, ws):
    """Return random rows of a sequence, in ascending order; all where there are few enough."""
    if len(sequence) <= most:
        return torch.arange(len(sequence), device=ws.device, dtype=torch.int64)
    order = torch.randperm(len(sequence), generator=ws.generator, device="cpu", dtype=torch.int64)
    return torch.from_numpy(np.sort(sequence[order[:most].numpy()])).to(ws.device)
