"""Averages of targets over similar rows, with a learnt similarity, in time linear in rows."""

from typing import Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from torch.nn.functional import one_hot

from .._core.annotations import RandomState
from .._core.compat import _fit_context
from .._core.validation import check_classes, check_fit_data, on_host
from .._core.workspace import open_workspace
from .._nets.targets import chosen_classes, in_units, labels_head, values_head
from . import _polynomial_attention_solver as solver
from ._attention_methods import ATTENTION_CONSTRAINTS, PolynomialAttention, documented_attention


@documented_attention
class PolynomialAttentionClassifier(PolynomialAttention, ClassifierMixin, BaseEstimator):
    """Classify rows by the labels of similar rows, with a learnt similarity, in time linear in rows.

    Probabilities are averages of the training labels, weighted by softmax attention between a row and all training rows
    in a learnt projection. Attention is computed by polynomials: fits are linear in rows, the model is some kilobytes
    of sums and keeps no rows, predictions are fast, and each fit says how far they can be from exact attention. On
    small tables `method="auto"` computes exact attention, and the model then keeps the projected rows. It is no more
    accurate than :class:`~sklearn.neighbors.KNeighborsClassifier` after
    :class:`~sklearn.neighbors.NeighborhoodComponentsAnalysis`, which are to be preferred for some thousand rows: its
    neighbourhoods are wide, so that probabilities of many classes are blurred. It is for tables for which these are too
    slow, and for models that must not hold rows.

    Parameters
    ----------
    <attention_parameters>

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    <attention_attributes>

    See Also
    --------
    PolynomialAttentionRegressor : The same for numbers.
    linear_attention : The attention alone.
    sklowrank.inspection.attention_report : The bound for queries and keys of any origin.
    sklearn.neighbors.NeighborhoodComponentsAnalysis : A projection for neighbours, exact and quadratic in rows.

    Notes
    -----
    The loss is the mean of minus the logarithms of the probabilities of the labels.

    <attention_notes>

    <references>

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.model_selection import train_test_split
    >>> from sklowrank.neural import PolynomialAttentionClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> model = PolynomialAttentionClassifier(3, norm_bound=2.0, tol=1e-2, random_state=0).fit(X_train, y_train)
    >>> model.score(X_test, y_test) > 0.93
    True
    >>> model.value_features_.shape  # the model: sums over the rows, and none of them
    (165, 2)
    >>> model.certificate_["satisfied"], model.certificate_["probed_error"] < 0.01
    ('probed', True)
    """

    _parameter_constraints = ATTENTION_CONSTRAINTS

    # Set by fit
    classes_: np.ndarray

    def __init__(
        self,
        n_components: int | None = None,
        *,
        adapter_rank: int | None = None,
        tie: bool = True,
        norm_bound: float = 4.0,
        degree: int | Literal["auto"] = "auto",
        error_tol: float = 1e-2,
        max_features: int = 2000,
        method: Literal["auto", "polynomial", "exact"] = "auto",
        key_bias: Literal["gaussian", "none"] = "gaussian",
        max_iter: int = 200,
        learning_rate: float = 3e-2,
        tol: float = 1e-4,
        batch_size: int | Literal["auto"] = "auto",
        on_violation: Literal["auto", "warn", "raise", "exact"] = "auto",
        standardize: bool = True,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.adapter_rank = adapter_rank
        self.tie = tie
        self.norm_bound = norm_bound
        self.degree = degree
        self.error_tol = error_tol
        self.max_features = max_features
        self.method = method
        self.key_bias = key_bias
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.tol = tol
        self.batch_size = batch_size
        self.on_violation = on_violation
        self.standardize = standardize
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Learn the similarity, and sum up the rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, finite, two at least.
        y : array-like of shape (n_samples,)
            Their classes, two at least.

        Returns
        -------
        self : PolynomialAttentionClassifier

        Raises
        ------
        ValueError
            If a parameter does not fit the features, or `on_violation="raise"` and the wanted error is not met.
        """
        X, y = check_fit_data(self, X, y, ensure_min_samples=2)
        check_classes(on_host(y))
        chosen = self._chosen(X.shape[1])
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        head, classes = labels_head(y)
        if head.n_out < 2:
            raise ValueError("y has only one class. Pass rows of two classes at least.")
        codes = head.encode(on_host(y))
        problem = solver.attention_problem(ws.load(X), one_hot(codes, head.n_out), 1.0, codes, chosen, ws.exact())
        return self._averaging(X, y, ws, problem, **classes)

    def predict(self, X):
        """Return the most probable class of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : array of shape (n_samples,)
        """
        ws, averages = self._averages(X, "predict")
        return chosen_classes(self.classes_, averages.argmax(1), ws)

    def predict_proba(self, X):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        ws, averages = self._averages(X, "predict_proba")
        positive = averages.clamp(min=0)  # below are roundings
        return ws.answer(positive / positive.sum(1, keepdim=True))


@documented_attention
class PolynomialAttentionRegressor(PolynomialAttention, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Predict numbers by averages over similar rows, with a learnt similarity, in time linear in rows.

    Predictions are averages of the training targets, weighted by softmax attention between a row and all training rows
    in a learnt projection: the estimator of Nadaraya and Watson with a learnt kernel. Attention is computed by
    polynomials: fits are linear in rows, the model is some kilobytes of sums and keeps no rows, predictions are fast,
    and each fit says how far they can be from exact attention. On small tables `method="auto"` computes exact
    attention, and the model then keeps the projected rows. It is no more accurate than
    :class:`~sklearn.neighbors.KNeighborsRegressor`, which is to be preferred for some thousand rows, and much smoother:
    neighbourhoods are wide.

    Parameters
    ----------
    <attention_parameters>

    Attributes
    ----------
    y_mean_, y_scale_ : float or arrays of shape (n_targets,)
        What the targets are centred with and divided by; numbers where y was a vector.
    <attention_attributes>

    See Also
    --------
    PolynomialAttentionClassifier : The same for classes.
    linear_attention : The attention alone.
    sklowrank.inspection.attention_report : The bound for queries and keys of any origin.
    sklearn.neighbors.KNeighborsRegressor : Averages over few neighbours.

    Notes
    -----
    The loss is the mean over targets of the squared errors in units of their standard deviations.

    <attention_notes>

    <references>

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklowrank.neural import PolynomialAttentionRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = PolynomialAttentionRegressor(2, degree=4, tol=1e-2, random_state=0).fit(X[:300], y[:300])
    >>> model.score(X[300:], y[300:]) > 0.4
    True
    """

    _parameter_constraints = ATTENTION_CONSTRAINTS

    # Set by fit
    y_mean_: float | np.ndarray
    y_scale_: float | np.ndarray

    def __init__(
        self,
        n_components: int | None = None,
        *,
        adapter_rank: int | None = None,
        tie: bool = True,
        norm_bound: float = 4.0,
        degree: int | Literal["auto"] = "auto",
        error_tol: float = 1e-2,
        max_features: int = 2000,
        method: Literal["auto", "polynomial", "exact"] = "auto",
        key_bias: Literal["gaussian", "none"] = "gaussian",
        max_iter: int = 200,
        learning_rate: float = 3e-2,
        tol: float = 1e-4,
        batch_size: int | Literal["auto"] = "auto",
        on_violation: Literal["auto", "warn", "raise", "exact"] = "auto",
        standardize: bool = True,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.adapter_rank = adapter_rank
        self.tie = tie
        self.norm_bound = norm_bound
        self.degree = degree
        self.error_tol = error_tol
        self.max_features = max_features
        self.method = method
        self.key_bias = key_bias
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.tol = tol
        self.batch_size = batch_size
        self.on_violation = on_violation
        self.standardize = standardize
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Learn the similarity, and sum up the rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, finite, two at least.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their targets.

        Returns
        -------
        self : PolynomialAttentionRegressor

        Raises
        ------
        ValueError
            If a parameter does not fit the features, or `on_violation="raise"` and the wanted error is not met.
        """
        X, y = check_fit_data(self, X, y, y_numeric=True, multi_output=True, ensure_min_samples=2)
        chosen = self._chosen(X.shape[1])
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        head, units = values_head(on_host(y))
        values = head.encode(on_host(y))
        problem = solver.attention_problem(ws.load(X), values, units["y_scale_"], None, chosen, ws.exact())
        return self._averaging(X, y, ws, problem, **units)

    def predict(self, X):
        """Return the averages of the targets.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : array of shape (n_samples,) or (n_samples, n_targets)
        """
        ws, averages = self._averages(X, "predict")
        return ws.answer(in_units(averages, self.y_mean_, self.y_scale_))
