"""Averages of targets over similar rows, with a learnt similarity, in time linear in rows."""

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    MultiOutputMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.callback import CallbackSupportMixin
from torch.nn.functional import one_hot

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.docs import documented
from .._core.fitted import fitted_attributes, keep, options, recall
from .._core.iterate import Run, drive
from .._core.standardize import standardized
from .._core.validation import check_classes, check_fit_data, check_new_data, on_host
from .._core.warn import warn
from .._core.workspace import open_workspace
from .._math.attention import count_monomials
from .._nets.targets import chosen_classes, in_units, labels_head, values_head
from . import _polynomial_attention_solver as solver
from ._linear_attention import check_even

MOST_COMPONENTS = 12
_CONSTRAINTS = {
    "n_components": [Interval(Integral, 1, MOST_COMPONENTS, closed="both"), None],
    "adapter_rank": [Interval(Integral, 1, None, closed="left"), None],
    "tie": ["boolean"],
    "norm_bound": [Interval(Real, 0, None, closed="neither")],
    "degree": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
    "error_tol": [Interval(Real, 0, None, closed="neither")],
    "max_features": [Interval(Integral, 1, None, closed="left")],
    "method": [StrOptions({"auto", "polynomial", "exact"})],
    "key_bias": [StrOptions({"gaussian", "none"})],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "on_violation": [StrOptions({"warn", "raise", "exact"})],
    "standardize": ["boolean"],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}

_NOT_CONVERGED = "Raise max_iter, tol or learning_rate."
_documented = documented(
    attention_parameters="""
        n_components : int or None, default=None
            Number of components. The width of queries and keys, from 1 to 12; None is 6, or the number of features
            where that is smaller. There are ``comb(n_components + degree, degree)`` features.
        adapter_rank : int or None, default=None
            Rank of what is learnt and added to the projection of the start, at least 1; None is `n_components`.
        tie : bool, default=True
            Whether keys share the learnt projection of the queries. If False, they keep that of the start.
        norm_bound : float, default=4.0
            Bound of the inner products of queries and keys, above 0: longer ones are shortened to its root. Higher
            values make narrower neighbourhoods, and take higher degrees for the same error.
        degree : int or "auto", default="auto"
            Degree of the polynomial, even. "auto" takes, at the start, the smallest one whose guaranteed error is at
            most `error_tol`, or else whose probed error is, or else the largest one that `max_features` allows.
        error_tol : float, default=1e-2
            Wanted bound on the difference of predictions from those of exact attention, above 0, as a share of the
            range of the targets; probabilities have the range 1.
        max_features : int, default=2000
            Largest number of polynomial features.
        method : {"auto", "polynomial", "exact"}, default="auto"
            "exact" computes softmax attention to all rows in time quadratic in rows, and keeps the projected rows for
            predictions. "auto" is "exact" for so few rows that it takes fewer multiplications.
        key_bias : {"gaussian", "none"}, default="gaussian"
            "gaussian" subtracts half of the squared norm of a key from its logits, so that the similarity is a Gaussian
            kernel of the distance. The factor is exact and no part of the polynomial.
        max_iter : int, default=200
            Maximum number of iterations. These are steps of Adam with the gradient of all rows; 0 keeps the start.
        learning_rate : float, default=3e-2
            Step size of the optimizer.
        tol : float, default=1e-4
            Tolerance of the stopping criterion. The relative fall of the loss in 20 steps.
        batch_size : int or "auto", default="auto"
            Number of rows processed at once; it bounds memory and does not change the result. "auto" bounds a block of
            features to 32 MiB.
        on_violation : {"warn", "raise", "exact"}, default="warn"
            What is done where `error_tol` is neither guaranteed nor met by probed rows after the training: a warning, a
            ValueError, or exact attention for predictions, with the projection as it was learnt.
        standardize : bool, default=True
            Whether to centre each column and divide it by its standard deviation. If False, all columns are divided by
            one number.
        device : str, default="auto"
            Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
            "cuda:1".
        random_state : int, RandomState instance or None, default=None
            Seed or generator of random numbers; pass an int for reproducible results. They make the start of the
            adapter.
        verbose : int, default=0
            0 prints nothing, 1 prints a line per iteration.
    """,
    attention_attributes="""
        components_ : array of shape (n_components, n_features)
            The projection of standardised rows: ``base_components_ + adapter_B_ @ adapter_A_``.
        base_components_ : array of shape (n_components, n_features)
            The projection at the start: principal components of unit variance.
        adapter_A_, adapter_B_ : arrays of shape (rank, n_features) and (n_components, rank)
            What is learnt.
        key_features_sum_ : array of shape (n_features_map_,) or None
            Sum of the features of the keys; None where attention is exact.
        value_features_ : array of shape (n_features_map_, n_outputs) or None
            Sums of the features times the keys' values; None where attention is exact.
        degree_, n_features_map_ : int or None
            Degree of the polynomial and number of features; None where attention is exact.
        max_logit_ : float
            Bound of the logits between training rows.
        certificate_ : dict
            "B", the bound of the logits of every row; "relative_error", that of weights; "output_bound", which no
            prediction, also for new rows, differs by from exact attention with the same projection; "probed_error", the
            largest such difference among 256 training rows; "probed_gradient_error", the relative error of their
            gradient; "satisfied", which is "guaranteed" or "probed" where the bound or the probed error is at most
            `error_tol`, else "no". Differences are in units of y, or of probabilities.
        loss_curve_ : list of float
            Losses before each step; each row is predicted by all others.
        n_iter_ : int
            Number of steps.
        n_features_in_ : int
            Number of features.
        feature_names_in_ : array of shape (n_features_in_,)
            Names of the columns of X, where all are strings.
    """,
    attention_notes="""
        With standardised rows :math:`z`, the projection :math:`W = W_0 + B A`, :math:`q` and :math:`k` the rows
        :math:`W z` shortened to the norm :math:`\\sqrt{c}` with c the `norm_bound`, and :math:`\\bar k` the mean key,
        the prediction is

        .. math:: \\frac{\\sum_j e^{-\\lVert k_j \\rVert^2 / 2}\\, p_g(q^\\top (k_j - \\bar k))\\, v_j}
            {\\sum_j e^{-\\lVert k_j \\rVert^2 / 2}\\, p_g(q^\\top (k_j - \\bar k))}, \\qquad
            p_g(t) = \\sum_{l=0}^{g} \\frac{t^l}{l!} = \\phi(q)^\\top \\phi(k_j - \\bar k)

        with values v, and :math:`\\phi` the m monomials up to the even degree g, weighted. Sums over j are made once.
        A step costs O(n m (c + 1)) for c outputs, and the gradient is that of the polynomial model [1]_. The guaranteed
        bound is sharp for logits at both ends of [-B, B], and real errors are smaller by orders of magnitude; with the
        default `norm_bound` it is not met, and `satisfied` says "probed" or "no". Everything is in float64. Choices do
        not depend on the order of rows.
    """,
    references="""
        References
        ----------
        .. [1] J. Y.-C. Hu, M. Su, E.-J. Kuo, Z. Song, H. Liu, "Computational limits of low-rank adaptation (LoRA)
           fine-tuning for transformer models", ICLR 2025.
        .. [2] J. Goldberger, S. Roweis, G. Hinton, R. Salakhutdinov, "Neighbourhood components analysis", NeurIPS 2004.
    """,
)


class _PolynomialAttention(ClassNamePrefixFeaturesOutMixin, CallbackSupportMixin, TransformerMixin):
    """What classifier and regressor share: the fit of values that are averaged, and answers to new rows."""

    components_: np.ndarray
    base_components_: np.ndarray
    adapter_A_: np.ndarray
    adapter_B_: np.ndarray
    key_features_sum_: np.ndarray | None
    value_features_: np.ndarray | None
    degree_: int | None
    n_features_map_: int | None
    max_logit_: float
    certificate_: dict[str, Any]
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def transform(self, X):
        """Return the learnt projection of rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        components : array of shape (n_samples, n_components)
            Standardised rows times `components_`; rows are not shortened to the norm of queries.
        """
        X = check_new_data(self, X, like="components_", method="transform")
        ws = open_workspace(X, device=self.device)
        model = recall(self, solver.Model, ws.exact())
        return ws.answer(standardized(ws.load(X), model.mean, model.scale, torch.float64) @ model.components.T)

    @property
    def _n_features_out(self):
        return self.components_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _averaging(self, X, y, ws, problem, **public):
        """Learn the similarity by which values are averaged, and keep it."""

        def attributes(adapter):
            found = solver.fitted(problem, adapter)
            return fitted_attributes(ws, found.model, **found.attributes, **public)

        run = Run(problem.adapter, 0, [])
        if self.max_iter:
            run = drive(self, solver.training(problem), attributes=attributes, X=X, y=y, advice=_NOT_CONVERGED)
        certificate = solver.certificate(problem, run.state)
        exact = certificate["satisfied"] == "no" and self._violated(certificate)
        found = solver.fitted(problem, run.state, exact=exact)
        public["certificate_"] = solver.exactly(certificate) if exact else certificate
        progress = {"loss_curve_": run.loss_curve, "n_iter_": run.n_iter}
        return keep(self, ws, found.model, **found.attributes, **public, **progress)

    def _violated(self, certificate):
        """Warn or raise where the wanted error is neither guaranteed nor found; return whether to be exact instead."""
        text = (
            f"The certificate does not meet error_tol={self.error_tol:.1e}: the largest error of probed predictions is "
            f"{certificate['probed_error']:.1e}, and at most {certificate['output_bound']:.1e} is guaranteed for all. "
            "Raise degree or max_features, lower norm_bound, or use method='exact'."
        )
        if self.on_violation == "raise":
            raise ValueError(text)
        if self.on_violation == "warn":
            warn(text, UserWarning)
        return self.on_violation == "exact"

    def _chosen(self, n_features):
        """Return the solver's options, checked against the number of features."""
        h = min(6, n_features) if self.n_components is None else self.n_components
        if h > n_features:
            raise ValueError(
                f"n_components={h} is too large for X with n_features={n_features}. Pass at most {n_features}, or None."
            )
        check_even(self.degree)
        degree = 2 if self.degree == "auto" else self.degree
        needed = count_monomials(h, degree)
        if self.method != "exact" and needed > self.max_features:
            raise ValueError(
                f"max_features={self.max_features} is too small for the {needed} features of n_components={h} and "
                f"degree={degree}. Raise it, or lower n_components or degree."
            )
        rank = h if self.adapter_rank is None else self.adapter_rank
        return options(self, solver.AttentionOptions, n_components=h, adapter_rank=rank)

    def _averages(self, X, method):
        """Return the workspace of new rows, and the averages (n, c) of values that they get."""
        X = check_new_data(self, X, like="components_", method=method)
        ws = open_workspace(X, device=self.device)
        return ws, solver.predicted(recall(self, solver.Model, ws.exact()), ws.load(X), self.batch_size)


@_documented
class PolynomialAttentionClassifier(_PolynomialAttention, ClassifierMixin, BaseEstimator):
    """Classify rows by the labels of similar rows, with a learnt similarity, in time linear in rows.

    Probabilities are averages of the training labels, weighted by softmax attention between a row and all training rows
    in a learnt projection. Attention is computed by polynomials: fits are linear in rows, the model is some kilobytes
    of sums and keeps no rows, predictions are fast, and each fit says how far they can be from exact attention. It is
    no more accurate than :class:`~sklearn.neighbors.KNeighborsClassifier` after
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
    >>> model = PolynomialAttentionClassifier(3, degree=4, tol=1e-2, random_state=0).fit(X_train, y_train)
    >>> model.score(X_test, y_test) > 0.93
    True
    >>> model.value_features_.shape  # the model: sums over the rows, and none of them
    (35, 2)
    """

    _parameter_constraints = _CONSTRAINTS

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
        on_violation: Literal["warn", "raise", "exact"] = "warn",
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


@_documented
class PolynomialAttentionRegressor(_PolynomialAttention, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Predict numbers by averages over similar rows, with a learnt similarity, in time linear in rows.

    Predictions are averages of the training targets, weighted by softmax attention between a row and all training rows
    in a learnt projection: the estimator of Nadaraya and Watson with a learnt kernel. Attention is computed by
    polynomials: fits are linear in rows, the model is some kilobytes of sums and keeps no rows, predictions are fast,
    and each fit says how far they can be from exact attention. It is no more accurate than
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

    _parameter_constraints = _CONSTRAINTS

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
        on_violation: Literal["warn", "raise", "exact"] = "warn",
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
