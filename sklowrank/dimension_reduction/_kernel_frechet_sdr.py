"""Fréchet sufficient dimension reduction by kernel ridge regression: nonlinear features of X in closed form."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.standardize import standardization, standardized
from .._core.validation import check_fit_pairs, check_new_data
from .._core.workspace import open_workspace
from ._ball_features import ball_features, described_balls, fitted_balls
from ._frechet_methods import CONSTRAINTS, FrechetMethods, documented
from ._kernel_frechet_sdr_solver import KernelModel, KernelOptions, kernel_components, kernel_regression


@documented
class KernelFrechetSDR(FrechetMethods, BaseEstimator):
    """Reduce X to a few nonlinear components that predict y, by kernel ridge regression.

    The aim of :class:`FrechetSDR` in closed form: nothing is trained, and up to 1000 rows nothing is random. With few
    columns both are nearly level; where many columns are irrelevant the networks are far better.

    Parameters
    ----------
    <shared n_components>
    <shared metric>
    kernel : {"rbf", "laplacian"}, default="rbf"
        ``exp(-gamma |x - x'|²)`` with Euclidean distances, or ``exp(-gamma |x - x'|)`` with sums of absolute
        differences.
    gamma : float or "cv", default="cv"
        Kernel coefficient; raising it makes components less smooth. "cv" selects the best of 1/4, 1/2, 1, 2, 4 over the
        median distance (for "rbf" its square), by leave-one-out.
    alpha : float or "cv", default="cv"
        Strength of the penalty. It counts per row; raising it makes components smoother. "cv" selects the best of 9
        values from 1e-4 to 1, by leave-one-out.
    <shared balls>
    max_exact : int, default=5000
        Number of rows up to which the solution is exact. Above, it is a combination of the kernels of 1000 random rows
        (Nyström).
    <shared whiten>
    <shared standardize>
    <shared device>
    <shared random_state>

    Attributes
    ----------
    <shared dependence>
    gamma_, alpha_ : float
        Kernel coefficient and penalty of the fit.
    X_fit_ : array of shape (m, n_features)
        Rows whose kernels are combined: all, or 1000.
    dual_coef_ : array of shape (m, n_components_)
        Their coefficients.
    intercept_ : array of shape (n_components_,)
        Intercepts.
    mean_, scale_ : arrays of shape (n_features,)
        Means and standard deviations of the columns of X; zeros and ones without `standardize`.
    <shared fitted balls>

    See Also
    --------
    FrechetSDR : By networks, for many rows and columns.
    sklearn.kernel_ridge.KernelRidge : For responses that are vectors.

    Notes
    -----
    The indicators of balls, as their principal components T that hold 95 % of their variance, are regressed on X with
    coefficients :math:`(K + n \\alpha I)^{-1} T` of the centred kernel matrix K; the features are the principal
    components of the fitted values. Leave-one-out errors follow from one eigendecomposition per gamma, of 1000 rows at
    most. Time: O(n³) exactly, O(1000² n) otherwise; memory O(n²) and O(n). Everything is in float64. `random_state` is
    read by fits of more than 1000 rows only; the order of the rows does not matter.

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
        **CONSTRAINTS,
        "kernel": [StrOptions({"rbf", "laplacian"})],
        "gamma": [Interval(Real, 0, None, closed="neither"), StrOptions({"cv"})],
        "alpha": [Interval(Real, 0, None, closed="neither"), StrOptions({"cv"})],
        "max_exact": [Interval(Integral, 1, None, closed="left")],
        "whiten": ["boolean"],
        "standardize": ["boolean"],
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
        standardize: bool = True,
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
        self.standardize = standardize
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
        X = check_fit_pairs(self, X, y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        balls = {"metric": self.metric, "n_landmarks": self.n_landmarks, "n_thresholds": self.n_thresholds}
        features = ball_features(y, **balls, device=ws.device)
        X = ws.load(X)
        mean, scale = (part.to(ws.dtype) for part in standardization(X, "columns" if self.standardize else False))
        rows = standardized(X, mean.double(), scale.double(), torch.float64)
        found = kernel_regression(rows, features, options(self, KernelOptions), ws)
        model = KernelModel(
            self.kernel, found.gamma, X[found.basis], mean, scale, found.coef, found.intercept, found.loadings
        )
        fitted = fitted_balls(features, y)
        return keep(self, ws, model, fitted, **_described(model, found, ws.dtype), **described_balls(fitted))

    def _components(self, X, method):
        """Return the workspace of new rows and their components, in float64."""
        X = check_new_data(self, X, like="dual_coef_", method=method)
        ws = open_workspace(X, device=self.device)
        return ws, kernel_components(recall(self, KernelModel, ws.exact()), ws.load(X))

    def _regression(self, Z, ws):
        """Return the components as predictors, their loadings, and the number of predictors of the first 1, 2, ..."""
        return Z, recall(self, KernelModel, ws).loadings, range(1, Z.shape[1] + 1)


def _described(model, found, dtype):
    """Return the public attributes; eigenvalues in the precision of X."""
    n_components = len(model.intercept)
    strongest, total = found.eigenvalues[:n_components], found.eigenvalues.sum()
    names = ("gamma", "X_fit", "mean", "scale", "dual_coef", "intercept")
    return {
        **{f"{name}_": getattr(model, name) for name in names},
        "alpha_": found.alpha,
        "components_dependence_": strongest.to(dtype),
        "dependence_ratio_": (strongest / total.clamp(min=torch.finfo(total.dtype).tiny)).to(dtype),
        "n_components_": n_components,
    }
