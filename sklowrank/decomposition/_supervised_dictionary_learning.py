"""Supervised dictionary learning: dimension reduction and classification in one problem, with covariates."""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from .._core.annotations import RandomState
from .._core.compat import StrOptions, _fit_context, move_to
from .._core.fitted import options
from .._core.rows import row_weights, rows_of
from .._core.validation import check_fit_rows
from .._core.workspace import open_workspace
from ._sdl.objective import logistic, softmax
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
class SupervisedDictionaryLearning(DictionaryMethods, CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Learn a dictionary of few components that both reconstructs the features and classifies, with covariates.

    PCA or NMF followed by a classifier misses class signal in directions of low variance. Here reconstruction and
    classification are one problem, and `xi` weighs them. Covariates (age, site, length of a message) enter the
    classifier directly and take no component. Use it for wide tables whose components shall be interpreted:
    measurements, omics, words. Where only the class is wanted, :class:`~sklearn.linear_model.LogisticRegression` on all
    features is simpler and as accurate.

    Parameters
    ----------
    <shared parameters>
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss. They do not enter the reconstruction.
    <shared last parameters>

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    <shared attributes>

    See Also
    --------
    SupervisedDictionaryRegressor : The same method for regression.
    sklearn.decomposition.PCA, sklearn.decomposition.NMF : Unsupervised dictionaries.
    sklearn.discriminant_analysis.LinearDiscriminantAnalysis : Directions that separate classes alone.

    Notes
    -----
    With weights A = W B on the features (filter) the objective is

    .. math:: \\frac1n \\sum_i \\operatorname{CE}(y_i, A^\\top x_i + \\Gamma^\\top z_i)
              + \\xi \\frac{\\|X - H W^\\top\\|^2}{\\|X\\|^2} + \\frac{1}{2Cn} \\|A\\|^2
              + \\frac{0.005}{Cn} \\|\\Gamma\\|^2.

    CE is the cross-entropy of the softmax. For two classes, A stands for the columns -A/2 and A/2, whose squares are
    half of A's, so that C is 2 C of LogisticRegression; for three classes and more it is the same C. The feature model
    has H B in place of X A, and its penalty is on B. Least-squares codes are eliminated, so an evaluation costs
    O(n_samples n_features n_classes + n_features² n_components) and codes are never stored. A cycle of "bcd" costs
    O(n_samples n_features (n_components + n_classes)) and keeps codes. The problem is not convex. Its lifted form is,
    up to the rank, and "lbfgs" and "lpgd" reach the same optimum on the data sets of the benchmark. "lpgd" eliminates
    the reconstruction from its steps, which is exact, so that a projection decomposes moments of
    (n_features, n_features). "bcd" reaches a local optimum. A sample weight of k equals k copies of the row, for
    "lbfgs" to 1e-7. Rows of float32 are fitted in float64, to the parameters of the same rows in float64.

    References
    ----------
    .. [1] J. Lee, H. Lyu, W. Yao, "Supervised dictionary learning with auxiliary covariates", arXiv:2206.06774, 2022.
    .. [2] J. Lee, H. Lyu, W. Yao, "Exponentially convergent algorithms for supervised matrix factorization", NeurIPS
       2023.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.preprocessing import scale
    >>> from sklowrank.decomposition import SupervisedDictionaryLearning
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = SupervisedDictionaryLearning(2, random_state=0).fit(scale(X), y)
    >>> model.transform(scale(X)).shape
    (569, 2)
    >>> bool(model.score(scale(X), y) > 0.96)
    True
    """

    _parameter_constraints = {**CONSTRAINTS, "class_weight": [dict, StrOptions({"balanced"}), None]}

    # Set by fit
    components_: np.ndarray
    coef_: np.ndarray
    covariate_coef_: np.ndarray
    intercept_: np.ndarray
    feature_coef_: np.ndarray
    mean_: np.ndarray
    classes_: np.ndarray
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
        class_weight: dict[Any, Any] | Literal["balanced"] | None = None,
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
        self.class_weight = class_weight
        self.covariate_columns = covariate_columns
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, covariates=None) -> Self:
        """Learn the dictionary and the classifier.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,)
            Their classes, two at least.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, at least 0, in the classification and in the reconstruction.
        covariates : array-like of shape (n_samples, n_covariates), default=None
            Covariates, where they are not columns of X. All methods that classify need them, too.

        Returns
        -------
        self : SupervisedDictionaryLearning
        """
        indices = covariate_indices(self.covariate_columns, X)
        X, y = check_fit_rows(self, X, y, accept_sparse="csr")
        check_classification_targets(y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows = rows_of(X, ws)
        weight = row_weights(sample_weight, rows, ws)
        features, Z = split_columns(rows, indices, covariates, ws)
        classes, codes = _encode(y)
        targets = _targets(classes, codes, self.class_weight, weight, ws.device)
        problem = dictionary_problem(features, Z, targets, weight, options(self, DictionaryOptions), ws)
        labels = classes if isinstance(y, np.ndarray) else torch.from_numpy(classes).to(ws.device)
        return self._solve(problem, X, y, ws, classes_=labels, **covariate_attributes(covariates, indices, ws))

    def decision_function(self, X, covariates=None):
        """Return the scores of the classes.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        covariates : array-like of shape (n_samples, n_covariates), default=None
            Their covariates, where `fit` was given some.

        Returns
        -------
        scores : array of shape (n_samples,) or (n_samples, n_classes)
            For two classes the log-odds of the second.
        """
        scores, ws = self._scores(X, covariates, "decision_function")
        return ws.store(scores[:, 0] if scores.shape[1] == 1 else scores)

    def predict(self, X, covariates=None):
        """Return the likeliest class of each row.

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
        index = (scores[:, 0] > 0).to(torch.int64) if scores.shape[1] == 1 else scores.argmax(1)
        if isinstance(self.classes_, np.ndarray):
            return self.classes_[index.cpu().numpy()]
        return ws.store(ws.load(self.classes_)[index])

    def predict_proba(self, X, covariates=None):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        covariates : array-like of shape (n_samples, n_covariates), default=None
            Their covariates, where `fit` was given some.

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        scores, ws = self._scores(X, covariates, "predict_proba")
        return ws.store(_with_both(scores).softmax(1))

    def predict_log_proba(self, X, covariates=None):
        """Return the logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        covariates : array-like of shape (n_samples, n_covariates), default=None
            Their covariates, where `fit` was given some.

        Returns
        -------
        log_probabilities : array of shape (n_samples, n_classes)
        """
        scores, ws = self._scores(X, covariates, "predict_log_proba")
        return ws.store(_with_both(scores).log_softmax(1))

    def score(self, X, y, sample_weight=None, covariates=None):
        """Return the accuracy.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,)
            Their classes.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        covariates : array-like of shape (n_samples, n_covariates), default=None
            Their covariates, where `fit` was given some.

        Returns
        -------
        accuracy : float
        """
        return accuracy_score(y, self.predict(X, covariates=covariates), sample_weight=sample_weight)


def _encode(y):
    """Return the classes and the position of each row's class among them, as numpy arrays."""
    if not isinstance(y, np.ndarray):
        y = move_to(y, xp=np, device="cpu")
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
            f"{classes[0]!r}"
        )
    return classes, codes


def _targets(classes, codes, class_weight, weight, device):
    """Return indicators of the class of each row, of the second one for two classes, and their loss."""
    factor = None
    if class_weight is not None:
        weight = None if weight is None else weight.cpu().numpy()
        factors = compute_class_weight(class_weight, classes=classes, y=classes[codes], sample_weight=weight)
        factor = torch.from_numpy(factors.astype(np.float64)[codes]).to(device)
    codes = torch.from_numpy(codes.astype(np.int64)).to(device)
    if len(classes) == 2:
        return Targets(codes[:, None].double(), logistic, factor)
    return Targets(torch.nn.functional.one_hot(codes, len(classes)).double(), softmax, factor)


def _with_both(scores):
    """Return the scores of all classes: of two, that of the first is zero."""
    return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores
