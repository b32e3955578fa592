"""Supervised dictionary learning for numbers: a dimension reduction and a linear regression at once."""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, RegressorMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.metrics import r2_score
from sklearn.utils import assert_all_finite

from .._core.annotations import RandomState
from .._core.compat import _fit_context
from .._core.rows import row_weights, rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_rows, check_new_data
from .._core.workspace import open_workspace
from ._losses import squared
from ._supervised_dictionary_data import covariate_indices, covariate_names, rows_and_covariates
from ._supervised_dictionary_engine import (
    CONSTRAINTS,
    codes_of,
    features_of,
    finish,
    learn,
    rebuild,
    resolve,
    scores_of,
)


class SupervisedDictionaryRegressor(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, RegressorMixin, BaseEstimator
):
    """Learn a few directions that rebuild the features and predict a number, beside covariates.

    The same as :class:`SupervisedDictionaryLearning` with half the squared error, in units of the variance of y, in
    place of the cross-entropy. Unlike principal component regression it finds directions of low variance that matter
    to y; unlike :class:`~sklearn.cross_decomposition.PLSRegression` it has a dial between both ends, covariates, signs
    and sparse input. Where only the prediction is wanted, :class:`~sklearn.linear_model.Ridge` is simpler.

    Parameters
    ----------
    n_components : int, default=5
        Number of components. Above min(n_samples, n_features) it is cut, with a warning.
    model : {"filter", "feature"}, default="filter"
        What the regression reads: "filter" the projections of the features on the components, "feature" the codes,
        which in `fit` have seen y; its weights are refitted at the end on codes that have not. "feature" overfits where
        the codes can follow y at little cost: it wants a smaller `C`, 0.1 or less, and under strong directions that
        say nothing of y a smaller `xi` as well.
    xi : float, default=0.1
        Weight of the relative reconstruction error, at least 0. 0 is prediction alone, 0.03 to 1 is useful.
    C : float, default=1.0
        Inverse strength of the L2 penalty, above 0. It is in units of X: scale the features.
    solver : {"auto", "lbfgs", "lpgd", "bcd"}, default="auto"
        "lbfgs": codes eliminated, fifty iterations of L-BFGS and then Newton's method; for the filter model without
        signs. "lpgd": the same problem by projected gradients on a lifted convex one, to fewer digits. "bcd": block
        descent, for `nonnegative` and the feature model. "auto" is "bcd" for these and "lbfgs" otherwise.
    nonnegative : bool, "components" or "codes", default=False
        What may not be negative; True is both. The weights of the regression keep both signs.
    center : bool or "auto", default="auto"
        Subtract the means of the features. "auto" does for dense X without `nonnegative`. Sparse X stays sparse.
    fit_intercept : bool, default=True
        Whether the regression has an intercept. Where False, y is not centred either.
    covariate_columns : None, list of int or str, slice, mask of bool or callable, default=None
        Columns of X that are covariates: they enter the regression and not the dictionary. A callable gets X.
        Standardise them. Their penalty is a hundredth of that of the features.
    init : {"auto", "svd", "nmf"} or array of shape (n_components, n_features), default="auto"
        Start of the components: leading singular vectors, or a non-negative start made of them. "auto" is "nmf" where
        components may not be negative.
    max_iter : int, default=1000
        Iterations at most.
    tol : float, default=1e-7
        Stop when four iterations, or a step of Newton's method, lower the objective by this share at most. What "lbfgs"
        has found is then refined until a step is worth about tol² of the objective, which leaves the parameters about
        `tol` from the optimum.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seeds the start.
    verbose : int, default=0
        1 prints a line per iteration.

    Attributes
    ----------
    components_ : array of shape (n_components, n_features_dictionary)
        The dictionary: orthonormal rows, or rows of length one where signs are bound, by descending sum of squares of
        their codes. Largest entries are positive, unless only codes may not be negative. Features without covariates.
    coef_ : array of shape (1, n_components)
        Weights of the regression on what it reads, in units of y over those of X.
    covariate_coef_ : array of shape (1, n_covariates)
        Weights of the covariates.
    intercept_ : array of shape (1,)
        Intercept.
    feature_coef_ : array of shape (1, n_features_dictionary)
        ``coef_ @ components_``, for the filter model the linear rule on the features.
    mean_ : array of shape (n_features_dictionary,)
        What was subtracted; zeros without centring.
    reconstruction_error_ : float
        Squared error of the training rows rebuilt from their codes, as a share of their squares about `mean_`.
    loss_curve_ : list of float
        The objective after each iteration, for y of variance one.
    n_iter_ : int
        Iterations run.
    covariate_indices_ : ndarray of shape (n_covariates,)
        Positions of the covariates among the columns of X; empty where they came by ``covariates=`` or not at all.
    covariate_names_in_ : ndarray of shape (n_covariates,)
        Names of the columns of ``covariates=``, where all are strings. Later calls need them in the same order.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X, where they are strings.

    See Also
    --------
    SupervisedDictionaryLearning : The same for classes; its notes give the objective and the cost.
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
        options = resolve(self, X)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows, beside = rows_and_covariates(X, indices, covariates, ws)
        weight = row_weights(sample_weight, rows_of(X, ws), ws)
        targets, mean, unit = _standardised(ws.load(_finite(y)).double(), weight, centred=self.fit_intercept)

        scales = {"y_mean": mean, "y_unit": unit}
        task, steps, attributes = learn(
            self, rows, beside, targets, squared, options=options, sample_weight=weight, ws=ws, **scales
        )

        def all_attributes(state):
            places = ws.store(torch.from_numpy(indices).to(ws.device))
            return {**attributes(state), **covariate_names(covariates), "covariate_indices_": places}

        finish(self, task, steps, all_attributes, options=options, X=X, y=y, ws=ws)
        return self

    def transform(self, X):
        """Return codes: coordinates of the rows in the dictionary, by least squares; y plays no part.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, columns of covariates included where `covariate_columns` names some.

        Returns
        -------
        H : array of shape (n_samples, n_components)
        """
        X, ws = self._open(X, "transform")
        return ws.store(codes_of(self, features_of(self, X, ws), ws))

    def inverse_transform(self, X):
        """Return the rows that codes stand for.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        rows : array of shape (n_samples, n_features_dictionary)
            Without the columns of covariates.
        """
        return rebuild(self, X)

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
        X, ws = self._open(X, "predict")
        return ws.store(scores_of(self, X, covariates, ws)[:, 0])

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

    @property
    def _n_features_out(self):
        return self.components_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = self.nonnegative is True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)

    def _open(self, X, method):
        X = check_new_data(self, X, like="components_", method=method, accept_sparse="csr")
        return X, open_workspace(X, device=self.device)


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


def _standardised(y, weight, *, centred):
    """Return y as a column of mean square one, and the mean and the unit that were taken off."""
    size = float(y.abs().amax()) or 1.0
    y = y / size
    share = torch.full_like(y, 1 / len(y)) if weight is None else weight / weight.sum()
    mean = float(share @ y) if centred else 0.0
    y = y - mean
    unit = float((share @ y.square()).sqrt())
    unit = unit if unit > 1e-14 * abs(mean) else 1.0
    return y[:, None] / unit, mean * size, unit * size
