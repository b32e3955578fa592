"""What the estimators by polynomial attention share: parameters, their descriptions, the fit and answers."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin

from .._core.compat import Interval, StrOptions
from .._core.docs import documented
from .._core.fitted import fitted_attributes, keep, options, recall
from .._core.iterate import Run, drive
from .._core.standardize import standardized
from .._core.validation import check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from .._math.attention import count_monomials
from . import _polynomial_attention_solver as solver
from ._linear_attention import check_even

MOST_COMPONENTS = 12
_MUCH_WORSE = 1.1  # times the loss of exact attention
ATTENTION_CONSTRAINTS = {
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
    "on_violation": [StrOptions({"auto", "warn", "raise", "exact"})],
    "standardize": ["boolean"],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}

documented_attention = documented(
    attention_parameters="""
        n_components : int or None, default=None
            Number of components. The width of queries and keys, from 1 to 12; None is 6, or the number of features
            where that is smaller. There are ``comb(n_components + degree, degree)`` features.
        adapter_rank : int or None, default=None
            Rank of what is learnt and added to the projection of the start, at least 1; None is `n_components`.
        tie : bool, default=True
            Whether keys share the learnt projection of the queries. If False, they keep that of the start.
        norm_bound : float, default=4.0
            Bound of the inner products of queries and keys, above 0. Queries and keys longer than its square root are
            shortened to that length. Higher values make narrower neighbourhoods, and take higher degrees for the same
            error.
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
            predictions. "auto" is "exact" where ``n_samples * n_components`` is below the number of features times one
            more than that of outputs. Pass "polynomial" for a model that must not hold rows.
        key_bias : {"gaussian", "none"}, default="gaussian"
            "gaussian" subtracts half of the squared norm of a key from its logits, so that the similarity is a Gaussian
            kernel of the distance. The factor is exact and no part of the polynomial.
        max_iter : int, default=200
            Maximum number of iterations. These are steps of Adam with the gradient of all rows; 0 keeps the start. A
            fit that reaches it does not warn.
        learning_rate : float, default=3e-2
            Step size of the optimizer.
        tol : float, default=1e-4
            Tolerance of the stopping criterion. The relative fall of the loss in 20 steps.
        batch_size : int or "auto", default="auto"
            Number of rows processed at once; it bounds memory and does not change the result. "auto" bounds a block of
            features to 32 MiB.
        on_violation : {"auto", "warn", "raise", "exact"}, default="auto"
            What is done where `error_tol` is neither guaranteed nor met by probed rows after the training: a warning, a
            ValueError, or exact attention for predictions, with the projection as it was learnt. "auto" is "warn" where
            the loss of the probed rows is, moreover, at least a tenth higher than with exact attention; otherwise
            `certificate_` alone says so.
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
            Sum of the features of the keys times their masses, the largest of which is 1; None where attention is
            exact.
        value_features_ : array of shape (n_features_map_, n_outputs) or None
            Sums of the features times masses and values of the keys, which are indicators of classes or standardised
            targets; None where attention is exact.
        degree_, n_features_map_ : int or None
            Degree of the polynomial and number of features; None where attention is exact.
        max_logit_ : float
            Bound of the logits between training rows.
        certificate_ : dict
            "B", the bound of the logits of every row; "relative_error", that of weights; "output_bound", the guaranteed
            bound of the difference of predictions, also of new rows, from those of exact attention with the same
            projection; "probed_error", the largest difference among 256 training rows; "probed_gradient_error", the
            relative error of the gradient of their loss; "probed_loss_ratio", their loss over that by exact attention,
            each predicted by all other rows; "satisfied", which is "guaranteed" or "probed" where the bound or the
            probed error is at most `error_tol`, else "no". Differences are in units of y, or of probabilities, and
            bounds hold apart from rounding.
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


class PolynomialAttention(ClassNamePrefixFeaturesOutMixin, CallbackSupportMixin, TransformerMixin):
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
            run = drive(self, solver.training(problem), attributes=attributes, X=X, y=y)
        certificate = solver.certificate(problem, run.state)
        exact = certificate.public["satisfied"] == "no" and self._violated(certificate)
        found = solver.fitted(problem, run.state, exact=exact)
        public["certificate_"] = solver.exactly(certificate.public) if exact else certificate.public
        progress = {"loss_curve_": run.loss_curve, "n_iter_": run.n_iter}
        return keep(self, ws, found.model, **found.attributes, **public, **progress)

    def _violated(self, certificate):
        """Warn or raise where the wanted error is neither guaranteed nor found; return whether to be exact instead."""
        ratio = certificate.public["probed_loss_ratio"]
        text = (
            f"The certificate does not meet error_tol={self.error_tol:.1e}: probed predictions differ from those of "
            f"exact attention by {certificate.probed:.1e} of the range of the targets, and {certificate.bound:.1e} is "
            f"guaranteed for all; the loss is {ratio:.2f} times that of exact attention. "
            "Raise degree or max_features, lower norm_bound, or use method='exact'."
        )
        if self.on_violation == "raise":
            raise ValueError(text)
        if self.on_violation == "warn" or (self.on_violation == "auto" and ratio > _MUCH_WORSE):
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
