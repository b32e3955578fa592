"""Low-rank representation clustering: codes of low rank, in closed form or robust to rows that are outliers."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options
from .._core.validation import check_fit_data
from .._math.prox import row_threshold, singular_value_threshold
from ._self_expression import LEAST_SHAPE, SpectralOptions, cluster_model, coding_problem, described, warn_of_graph
from ._shared_parameters import CONSTRAINTS, documented_clusterer
from ._subspace_predictions import SubspacePredictions

_MOST_STEPS, _TOLERANCE = 500, 1e-6  # of the augmented Lagrangian, for rows of unit length


@documented_clusterer(affinity="max")
class LowRankRepresentationClustering(SubspacePredictions, BaseEstimator):
    """Cluster rows by subspaces, with a matrix of codes that has low rank.

    The codes are dense and in closed form, by one singular value decomposition, for up to some thousands of rows. With
    ``error="l21"`` they are robust to rows that are outliers. Where the dimensions of the subspaces sum to more than
    `n_features`, sparse codes are more accurate.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    tau : float, default=10.0
        Weight of the squared error against the nuclear norm, above 0: singular values below ``1 / sqrt(tau)`` are
        dropped.
    n_dims_total : int or None, default=None
        Number of singular vectors to keep, with equal weights, instead of the choice by `tau`.
    error : {"frobenius", "l21"}, default="frobenius"
        Norm of the error: "frobenius" is the sum of squares, "l21" the sum of the norms of rows, under which few rows
        have a large error.
    error_weight : float, default=0.1
        Weight of the error for "l21", above 0. Higher values treat fewer rows as outliers. "frobenius" uses `tau`.
    power : float, default=4
        Exponent, at least 1: edges are weighted by the absolute cosine between rows of the weighted singular vectors to
        this power.
    <shared_parameters>
    <last_parameters>

    Attributes
    ----------
    representation_ : ndarray of shape (n_samples, n_samples)
        Row i is the code of training row i, over all rows including itself.
    <shared_attributes>

    See Also
    --------
    LeastSquaresSubspaceClustering : Ridge regression instead of low rank.

    Notes
    -----
    With :math:`X = U S V^\\top` the codes that minimise :math:`\\|C\\|_* + \\frac{\\tau}{2} \\|X - C X\\|_F^2` are
    :math:`U \\operatorname{diag}(\\max(0, 1 - 1 / (\\tau s_j^2))) U^\\top`. "l21" minimises
    :math:`\\|C\\|_* + \\lambda \\|E\\|_{2,1}`, where :math:`\\lambda` is `error_weight`, subject to
    :math:`X = C X + E` by an augmented Lagrangian, to a residual of 1e-6. Memory O(n_samples²).

    References
    ----------
    .. [1] G. Liu, Z. Lin, S. Yan, J. Sun, Y. Yu, Y. Ma, "Robust recovery of subspace structures by low-rank
       representation", IEEE Transactions on Pattern Analysis and Machine Intelligence, 2013.
    .. [2] P. Favaro, R. Vidal, A. Ravichandran, "A closed form solution to robust subspace estimation and clustering",
       CVPR 2011.
    .. [3] R. Vidal, P. Favaro, "Low rank subspace clustering", Pattern Recognition Letters, 2014.

    Examples
    --------
    >>> from sklowrank.cluster import LowRankRepresentationClustering
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.metrics import clustering_accuracy
    >>> X, y, _ = make_union_of_subspaces(150, 20, n_dims=3, n_clusters=3, noise=0.01, random_state=0)
    >>> model = LowRankRepresentationClustering(3, n_dims_total=9, random_state=0).fit(X)
    >>> clustering_accuracy(y, model.labels_)
    1.0
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "tau": [Interval(Real, 0, None, closed="neither")],
        "n_dims_total": [None, Interval(Integral, 1, None, closed="left")],
        "error": [StrOptions({"frobenius", "l21"})],
        "error_weight": [Interval(Real, 0, None, closed="neither")],
        "power": [Interval(Real, 1, None, closed="left")],
    }

    # Set by fit
    representation_: np.ndarray

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        tau: float = 10.0,
        n_dims_total: int | None = None,
        error: Literal["frobenius", "l21"] = "frobenius",
        error_weight: float = 0.1,
        power: float = 4,
        normalize: bool = True,
        center: bool = False,
        n_pca: int | float | None = None,
        affinity: Literal["auto", "max", "sum", "doubly_stochastic", "nearest_neighbors"] = "auto",
        n_init: int = 10,
        assign_labels: Literal["kmeans", "cluster_qr"] = "kmeans",
        refine: Literal["none", "k-subspaces", "mixture"] = "none",
        predict_method: Literal["residual", "code"] = "residual",
        n_dims: int | Literal["auto"] = "auto",
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.n_clusters = n_clusters
        self.tau = tau
        self.n_dims_total = n_dims_total
        self.error = error
        self.error_weight = error_weight
        self.power = power
        self.normalize = normalize
        self.center = center
        self.n_pca = n_pca
        self.affinity = affinity
        self.n_init = n_init
        self.assign_labels = assign_labels
        self.refine = refine
        self.predict_method = predict_method
        self.n_dims = n_dims
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Cluster the rows.

        <fit_parameters>
        """
        X = check_fit_data(self, X, **LEAST_SHAPE)
        problem = coding_problem(X, options(self, SpectralOptions))
        if self.error == "l21":
            codes, factor = codes_with_outliers(problem.rows, self.error_weight)
        else:
            U, _, w = low_rank_factors(problem.rows, self.tau, self.n_dims_total)
            codes, factor = (U * w) @ U.mT, U * w.sqrt()
        strengths, rank = cosines(factor, self.power), factor.shape[1]
        model = cluster_model(codes, problem, strengths=strengths, default_affinity="max", rank=rank)
        warn_of_graph(model, problem, "take affinity='max'")
        return keep(self, problem.ws, model, **described(model, problem))

    def _code_rows(self, atoms, rows, model, ws):
        rank = model.rank if self.error == "l21" else self.n_dims_total
        return low_rank_codes_of(rows, *low_rank_factors(atoms, self.tau, rank), atoms)


# The codes


def low_rank_factors(X, tau, rank):
    """Return left singular vectors U (n, r), singular values s (r,) and weights w (r,): the codes are U diag(w) U'.

    The weights are ``1 - 1 / (tau s²)`` where that is positive, or 1 for the `rank` leading ones. Singular values of
    rounding are dropped, and at least one is kept.
    """
    U, s, _ = torch.linalg.svd(X, full_matrices=False)
    real = int((s > torch.finfo(s.dtype).eps * max(X.shape) * s[0]).sum())
    if rank is not None:
        w = torch.ones_like(s)
        kept = min(rank, real)
    else:
        w = 1 - 1 / (tau * s.square().clamp(min=torch.finfo(s.dtype).tiny))
        kept = min(int((w > 0).sum()), real)
    kept = max(1, kept)
    return U[:, :kept], s[:kept].clamp(min=torch.finfo(s.dtype).tiny), w[:kept].clamp(min=0)


def low_rank_codes_of(Y, U, s, w, X):
    """Return ``Y V S^-1 diag(w) U'``, the codes over X = U S V' by the same weights on its singular vectors."""
    V = X.mT @ U / s
    return (Y @ V / s * w) @ U.mT


def cosines(A, power):
    """Return the absolute cosines between the rows of A to a power, zero on the diagonal."""
    A = torch.nn.functional.normalize(A, dim=1, eps=torch.finfo(A.dtype).tiny)
    return (A @ A.mT).abs_().pow_(power).fill_diagonal_(0)


def codes_with_outliers(X, lam):
    """Return the codes C (n, n) that minimise ``|C|_* + lam |E|_2,1`` under ``X = C X + E``, and C's left factor.

    Inexact augmented Lagrangian with the auxiliary J = C. The optimal codes vanish outside the span of the left
    singular vectors U of X, so that with X = U A and C = Z U' all is done on Z (n, r), r at most n_features. The factor
    is that of the singular value decomposition of C, columns times the roots of the singular values.
    """
    U, s, Vh = torch.linalg.svd(X, full_matrices=False)
    r = max(1, int((s > torch.finfo(s.dtype).eps * max(X.shape) * s[0]).sum()))
    U, A = U[:, :r], s[:r, None] * Vh[:r]
    Z, E, Y1, Y2 = torch.zeros_like(U), torch.zeros_like(X), torch.zeros_like(X), torch.zeros_like(U)
    inner = torch.linalg.cholesky(A @ A.mT + torch.eye(r, dtype=X.dtype, device=X.device))
    mu = 1e-2
    for _ in range(_MOST_STEPS):
        J = singular_value_threshold(Z + Y2 / mu, 1 / mu)
        Z = torch.cholesky_solve(((X - E + Y1 / mu) @ A.mT + J - Y2 / mu).mT, inner).mT
        E = row_threshold(X - Z @ A + Y1 / mu, lam / mu)
        left, apart = X - Z @ A - E, Z - J
        Y1, Y2 = Y1 + mu * left, Y2 + mu * apart
        if float(torch.maximum(left.abs().max(), apart.abs().max())) < _TOLERANCE:
            break
        mu = min(1e6, 1.1 * mu)
    P, strength, _ = torch.linalg.svd(J, full_matrices=False)
    kept = max(1, int((strength > 0).sum()))
    return J @ U.mT, P[:, :kept] * strength[:kept].sqrt()
