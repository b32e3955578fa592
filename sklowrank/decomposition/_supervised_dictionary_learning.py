"""Supervised dictionary learning: a dimension reduction and a classifier at once, with covariates beside it."""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from .._core.annotations import RandomState
from .._core.compat import StrOptions, _fit_context, move_to
from .._core.rows import row_weights, rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_rows, check_new_data
from .._core.workspace import open_workspace
from ._losses import logistic, softmax
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


class SupervisedDictionaryLearning(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """Learn a few directions that rebuild the features and separate the classes, beside covariates.

    PCA or NMF followed by a classifier misses what lies in directions of low variance; here the dictionary is chosen
    for both ends at once, and `xi` says how much each counts. Covariates (age, site, length of a message) enter the
    classifier as they are and cost no component. For wide tables of which few directions shall be read: measurements,
    omics, words. Where only the class is wanted, :class:`~sklearn.linear_model.LogisticRegression` on all features is
    simpler and as accurate.

    Parameters
    ----------
    n_components : int, default=5
        Number of components. Above min(n_samples, n_features) it is cut, with a warning.
    model : {"filter", "feature"}, default="filter"
        What the classifier reads: "filter" the projections of the features on the components, "feature" the codes,
        which in `fit` have seen the classes; its weights are refitted at the end on codes that have not. "feature"
        overfits where the codes can follow the classes at little cost: it wants a smaller `C`, 0.1 or less, and under
        strong directions without a class signal a smaller `xi` as well, such as 0.01 for both.
    xi : float, default=0.1
        Weight of the relative reconstruction error, at least 0. 0 is classification alone, 0.03 to 1 is useful, from 3
        on the components are nearly those of PCA (or NMF).
    C : float, default=1.0
        Inverse strength of the L2 penalty, above 0. It is in units of X: scale the features. For three classes and more
        it is that of LogisticRegression. Two classes are penalised as two opposite columns of weights, as more classes
        are: C here is 2 C there.
    solver : {"auto", "lbfgs", "lpgd", "bcd"}, default="auto"
        "lbfgs": codes eliminated, fifty iterations of L-BFGS and then Newton's method; for the filter model without
        signs. "lpgd": the same problem by projected gradients on a lifted convex one, to fewer digits. "bcd": block
        descent, for `nonnegative` and the feature model. "auto" is "bcd" for these and "lbfgs" otherwise.
    nonnegative : bool, "components" or "codes", default=False
        What may not be negative; True is both. The weights of the classifier keep both signs.
    center : bool or "auto", default="auto"
        Subtract the means of the features. "auto" does for dense X without `nonnegative`. Sparse X stays sparse.
    fit_intercept : bool, default=True
        Whether the classifier has an intercept.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss of the classifier; the reconstruction is not weighted by them.
    covariate_columns : None, list of int or str, slice, mask of bool or callable, default=None
        Columns of X that are covariates: they enter the classifier and not the dictionary. A callable gets X.
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
    coef_ : array of shape (1, n_components) or (n_classes, n_components)
        Weights of the classifier on what it reads; one row for two classes.
    covariate_coef_ : array of shape (1, n_covariates) or (n_classes, n_covariates)
        Weights of the covariates.
    intercept_ : array of shape (1,) or (n_classes,)
        Intercepts.
    feature_coef_ : array of shape (1, n_features_dictionary) or (n_classes, n_features_dictionary)
        ``coef_ @ components_``, for the filter model the linear rule on the features.
    mean_ : array of shape (n_features_dictionary,)
        What was subtracted; zeros without centring.
    classes_ : array of shape (n_classes,)
        The classes.
    reconstruction_error_ : float
        Squared error of the training rows rebuilt from their codes, as a share of their squares about `mean_`.
    loss_curve_ : list of float
        The objective after each iteration.
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
    SupervisedDictionaryRegressor : The same for numbers as targets.
    sklearn.decomposition.PCA, sklearn.decomposition.NMF : Dictionaries that do not look at classes.
    sklearn.discriminant_analysis.LinearDiscriminantAnalysis : Directions for the classes alone.

    Notes
    -----
    With weights A = W B on the features (filter) the objective is

    .. math:: \\frac1n \\sum_i \\operatorname{CE}(y_i, A^\\top x_i + \\Gamma^\\top z_i)
              + \\xi \\frac{\\|X - H W^\\top\\|^2}{\\|X\\|^2} + \\frac{1}{2Cn} \\|A\\|^2
              + \\frac{0.005}{Cn} \\|\\Gamma\\|^2.

    CE is the cross-entropy of the softmax; for two classes, A stands for the columns -A/2 and A/2, whose squares are
    half of A's. The feature model has H B in place of X A, and its penalty is on B. Least-squares codes are eliminated,
    so an evaluation costs O(n_samples n_features n_classes + n_features² n_components) and codes are never stored. A
    cycle of "bcd" costs O(n_samples n_features (n_components + n_classes)) and keeps codes. The problem is not convex;
    its lifted form is, up to the rank, and "lbfgs" and "lpgd" reach the same optimum on the data we measured. "lpgd"
    eliminates the reconstruction from its steps, which is exact, so that a projection decomposes moments of
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
        options = resolve(self, X)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows, beside = rows_and_covariates(X, indices, covariates, ws)
        classes, codes = _encode(y)
        weight = row_weights(sample_weight, rows_of(X, ws), ws)

        task, steps, attributes = learn(
            self,
            rows,
            beside,
            _targets(codes, len(classes)).to(ws.device),
            logistic if len(classes) == 2 else softmax,
            options=options,
            sample_weight=weight,
            class_factor=self._class_factor(classes, codes, weight, ws),
            ws=ws,
        )
        labels = classes if isinstance(y, np.ndarray) else ws.store(torch.from_numpy(classes).to(ws.device))

        def all_attributes(state):
            places = ws.store(torch.from_numpy(indices).to(ws.device))
            names = covariate_names(covariates)
            return {**attributes(state), **names, "classes_": labels, "covariate_indices_": places}

        finish(self, task, steps, all_attributes, options=options, X=X, y=y, ws=ws)
        return self

    def transform(self, X):
        """Return codes: coordinates of the rows in the dictionary, by least squares; classes play no part.

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

    def _scores(self, X, covariates, method):
        X, ws = self._open(X, method)
        return scores_of(self, X, covariates, ws), ws

    def _class_factor(self, classes, codes, weight, ws):
        if self.class_weight is None:
            return None
        weight = None if weight is None else weight.cpu().numpy()
        factors = compute_class_weight(self.class_weight, classes=classes, y=classes[codes], sample_weight=weight)
        return torch.from_numpy(factors.astype(np.float64)[codes]).to(ws.device)


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


def _targets(codes, n_classes):
    codes = torch.from_numpy(codes.astype(np.int64))
    if n_classes == 2:
        return codes[:, None].to(torch.float64)
    return torch.nn.functional.one_hot(codes, n_classes).to(torch.float64)


def _with_both(scores):
    """Return the scores of all classes: of two, that of the first is zero."""
    return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores
