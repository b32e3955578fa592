"""Supervised dictionary learning: dimension reduction and regression in one problem, with covariates."""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.metrics import r2_score
from sklearn.utils import assert_all_finite

from .._core.annotations import RandomState
from .._core.compat import _fit_context
from .._core.fitted import options
from .._core.rows import row_weights, rows_of
from .._core.validation import check_fit_rows
from .._core.workspace import open_workspace
from ._sdl.objective import squared
from ._sdl.problem import DictionaryOptions, Targets, dictionary_problem
from ._sdl.shared_methods import (
    CONSTRAINTS,
    DictionaryMethods,
    covariate_attributes,
    covariate_indices,
    documented,
    split_columns,
)


@documented
class SupervisedDictionaryRegressor(DictionaryMethods, CallbackSupportMixin, RegressorMixin, BaseEstimator):
    """Learn a dictionary of few components that reconstructs the features and predicts a number, with covariates.

    The objective is that of :class:`SupervisedDictionaryLearning`, with half the squared error of y divided by its
    standard deviation in place of the cross-entropy. Unlike principal component regression it finds directions of low
    variance that predict y; unlike :class:`~sklearn.cross_decomposition.PLSRegression` it weighs reconstruction and
    prediction by `xi`, and has covariates, sign constraints and sparse input. Where only the prediction is wanted,
    :class:`~sklearn.linear_model.Ridge` is simpler.

    Parameters
    ----------
    <shared parameters>
    <shared last parameters>

    Attributes
    ----------
    <shared attributes>

    See Also
    --------
    SupervisedDictionaryLearning : The same method for classification; its notes give the objective and the cost.
    sklearn.cross_decomposition.PLSRegression : Directions of large covariance with y.

    References
    ----------
    .. [1] J. Lee, H. Lyu, W. Yao, "Supervised dictionary learning with auxiliary covariates", arXiv:2206.06774, 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from sklowrank.decomposition import SupervisedDictionaryRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = SupervisedDictionaryRegressor(2, random_state=0).fit(scale(X), y)
    >>> model.transform(scale(X)).shape
    (442, 2)
    >>> bool(model.score(scale(X), y) > 0.5)
    True
    """

    _parameter_constraints = CONSTRAINTS

    # Set by fit
    components_: np.ndarray
    coef_: np.ndarray
    covariate_coef_: np.ndarray
    intercept_: np.ndarray
    feature_coef_: np.ndarray
    mean_: np.ndarray
    reconstruction_error_: float
    loss_curve_: list[float]
    n_iter_: int
    covariate_indices_: np.ndarray
    covariate_names_in_: np.ndarray
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int = 5,
        *,
        model: Literal["filter", "feature"] = "filter",
        xi: float = 0.1,
        C: float = 1.0,
        solver: Literal["auto", "lbfgs", "lpgd", "bcd"] = "auto",
        nonnegative: bool | Literal["components", "codes"] = False,
        center: bool | Literal["auto"] = "auto",
        fit_intercept: bool = True,
        covariate_columns: ArrayLike | slice | Callable[..., Any] | None = None,
        init: ArrayLike | Literal["auto", "svd", "nmf"] = "auto",
        max_iter: int = 1000,
        tol: float = 1e-7,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.model = model
        self.xi = xi
        self.C = C
        self.solver = solver
        self.nonnegative = nonnegative
        self.center = center
        self.fit_intercept = fit_intercept
        self.covariate_columns = covariate_columns
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, covariates=None) -> Self:
        """Learn the dictionary and the regression.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,)
            Their targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, at least 0, in the regression and in the reconstruction.
        covariates : array-like of shape (n_samples, n_covariates), default=None
            Covariates, where they are not columns of X. `predict` and `score` need them, too.

        Returns
        -------
        self : SupervisedDictionaryRegressor
        """
        indices = covariate_indices(self.covariate_columns, X)
        X, y = check_fit_rows(self, X, y, accept_sparse="csr", y_numeric=True, ensure_min_samples=2)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows = rows_of(X, ws)
        weight = row_weights(sample_weight, rows, ws)
        features, Z = split_columns(rows, indices, covariates, ws)
        targets = _targets(ws.load(_finite(y)).double(), weight, centred=self.fit_intercept)
        problem = dictionary_problem(features, Z, targets, weight, options(self, DictionaryOptions), ws)
        return self._solve(problem, X, y, ws, **covariate_attributes(covariates, indices, ws))

    def predict(self, X, covariates=None):
        """Predict y.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        covariates : array-like of shape (n_samples, n_covariates), default=None
            Their covariates, where `fit` was given some.

        Returns
        -------
        y : array of shape (n_samples,)
        """
        scores, ws = self._scores(X, covariates, "predict")
        return ws.store(scores[:, 0])

    def score(self, X, y, sample_weight=None, covariates=None):
        """Return the coefficient of determination, R².

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,)
            Their targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        covariates : array-like of shape (n_samples, n_covariates), default=None
            Their covariates, where `fit` was given some.

        Returns
        -------
        score : float
        """
        return r2_score(y, self.predict(X, covariates=covariates), sample_weight=sample_weight)


def _finite(y):
    """Return targets as finite floats.

    Scikit-learn leaves text, dates and wide floats as they come, and looks for NaN before it converts objects.
    """
    if isinstance(y, np.ndarray):
        try:
            y = y.astype(np.float64)
        except ValueError:
            raise ValueError("y could not be converted to numeric values: it has text in it. Pass numbers.") from None
        assert_all_finite(y, input_name="y")
    return y


def _targets(y, weight, *, centred):
    """Return y as a column of mean square one; "centred" subtracts its mean."""
    size = float(y.abs().amax()) or 1.0
    y = y / size
    share = torch.full_like(y, 1 / len(y)) if weight is None else weight / weight.sum()
    mean = float(share @ y) if centred else 0.0
    y = y - mean
    unit = float((share @ y.square()).sqrt())
    unit = unit if unit > 1e-14 * abs(mean) else 1.0
    return Targets(y[:, None] / unit, squared, mean=mean * size, unit=unit * size)
