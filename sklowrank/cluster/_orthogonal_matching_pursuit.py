"""Sparse subspace clustering by orthogonal matching pursuit."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from .._core.annotations import RandomState
from .._core.compat import Interval, _fit_context
from .._core.fitted import fitted_matrix, keep, options
from .._core.validation import check_fit_data
from .._math.graphs import csr_from, drawn_seed
from ._row_products import norms, products, residuals, row_blocks, small_grams, take
from ._self_expression import LEAST_SHAPE, SpectralOptions, cluster_model, coding_problem, described, warn_of_graph
from ._shared_parameters import CONSTRAINTS, documented_clusterer
from ._subspace_predictions import SubspacePredictions

_DEPENDENT = 1e-10  # share of an atom's squared norm outside the span of the support, below which it is dependent
_HALVES = 20  # random halves of the rows over which codes are averaged in few dimensions


@documented_clusterer(sparse=True)
class SparseSubspaceClusteringOMP(SubspacePredictions, BaseEstimator):
    """Cluster rows by subspaces, coding each row by a few others with orthogonal matching pursuit.

    Greedy and fast; most accurate where clusters are linear subspaces with many rows near them, such as faces under
    changing light or motion tracks. Where rows are not near subspaces, such as images of digits, the same few rows are
    selected for many codes, and :class:`ThresholdedSubspaceClustering` is more accurate.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    n_nonzero_coefs : int, default=5
        Maximum number of nonzero coefficients of a code. The dimension of the subspaces or less is a good choice.
    tol : float, default=1e-6
        Tolerance of the stopping criterion. The code of a row is complete when its squared residual is at most this
        share of its squared norm.
    <shared_parameters>
    <last_parameters>

    Attributes
    ----------
    representation_ : sparse array of shape (n_samples, n_samples)
        Row i is the code of training row i over the others. CSR, with an empty diagonal.
    <shared_attributes>

    See Also
    --------
    ElasticNetSubspaceClustering : Codes by a convex problem: denser graphs, slower.
    ThresholdedSubspaceClustering : Nearest neighbours by angle.

    Notes
    -----
    Each step selects the row with the largest absolute inner product with the residual and solves least squares on all
    rows selected. Time O(n_samples² n_features n_nonzero_coefs), in blocks; memory O(n_samples n_nonzero_coefs). With
    ``n_features <= n_nonzero_coefs`` any independent rows code any row exactly: there a row is coded by at most
    ``n_features // 2`` rows, and codes are averaged over 20 random halves of the rows.

    References
    ----------
    .. [1] C. You, D. Robinson, R. Vidal, "Scalable sparse subspace clustering by orthogonal matching pursuit", CVPR
       2016.

    Examples
    --------
    >>> from sklowrank.cluster import SparseSubspaceClusteringOMP
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.metrics import clustering_accuracy
    >>> X, y, _ = make_union_of_subspaces(300, 20, n_dims=3, n_clusters=3, random_state=0)
    >>> model = SparseSubspaceClusteringOMP(3, n_nonzero_coefs=3, random_state=0).fit(X)
    >>> clustering_accuracy(y, model.labels_)
    1.0
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "n_nonzero_coefs": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
    }

    representation_ = fitted_matrix("representation")

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_nonzero_coefs: int = 5,
        tol: float = 1e-6,
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
        self.n_nonzero_coefs = n_nonzero_coefs
        self.tol = tol
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
        X = check_fit_data(self, X, accept_sparse="csr", **LEAST_SHAPE)
        problem = coding_problem(X, options(self, SpectralOptions))
        codes = self._code_rows(problem.rows, None, None, problem.ws)
        model = cluster_model(codes, problem)
        warn_of_graph(model, problem, "raise n_nonzero_coefs")
        return keep(self, problem.ws, model, **described(model, problem))

    def _code_rows(self, atoms, rows, model, ws):
        seed = drawn_seed(ws.generator)
        limits = {"random_state": seed, "batch_size": self.batch_size}
        return matching_pursuit_codes(atoms, self.n_nonzero_coefs, self.tol, targets=rows, **limits)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


# The codes


def matching_pursuit_codes(X, n_nonzero_coefs, tol, *, random_state=None, targets=None, batch_size="auto"):
    """Return the CSR codes by orthogonal matching pursuit of the rows of X over the others, or of `targets` over X.

    At most `n_nonzero_coefs` atoms a row, fewer where the squared residual falls below `tol` times the squared norm. In
    D <= n_nonzero_coefs dimensions any D independent rows code any row exactly, so that codes do not tell clusters
    apart: there at most ``max(1, D // 2)`` atoms, and the mean of the codes over 20 random halves of X.
    """
    n, D = X.shape
    Y = X if targets is None else targets
    own = np.arange(n) if targets is None else np.full(Y.shape[0], -1)
    if n_nonzero_coefs < D or n < 4:
        return _pursue(Y, X, own, min(n_nonzero_coefs, n), tol, batch_size)
    rng = check_random_state(random_state)
    total = sp.csr_array((Y.shape[0], n))
    for _ in range(_HALVES):
        half = np.sort(rng.permutation(n)[: n // 2])
        place = np.full(n + 1, -1)  # the last is the place of a row that is no atom
        place[half] = np.arange(len(half))
        codes = _pursue(Y, X[half], place[own], max(1, D // 2), tol, batch_size)
        total = total + sp.csr_array((codes.data, half[codes.indices], codes.indptr), shape=total.shape)
    return total / _HALVES


def _pursue(Y, X, own, n_nonzero_coefs, tol, batch_size):
    """Return the codes (CSR) of the rows of Y over the rows of X, of row i without row ``own[i]`` unless negative."""

    def code(rows):
        return _pursue_block(Y[rows], X, own[rows], n_nonzero_coefs, tol)

    columns, values = (torch.cat(part) for part in zip(*row_blocks(code, Y, X.shape[0], batch_size)))
    return csr_from(columns, values, X.shape[0])


def _pursue_block(Y, X, own, n_nonzero_coefs, tol):
    """Return atoms (b, n_nonzero_coefs) and coefficients, 0 for those not needed, of one block of rows.

    The normal equations of the atoms chosen are solved by a Cholesky factor that grows by a row with each atom.
    """
    first, enough = products(Y, X), tol * norms(Y).square()
    b, device = len(first), first.device
    S = torch.zeros(b, n_nonzero_coefs, dtype=torch.int64, device=device)
    codes, rhs, L = (first.new_zeros(b, n_nonzero_coefs, *more) for more in ((), (), (n_nonzero_coefs,)))
    own, live, corr = torch.from_numpy(own).to(device), torch.arange(b, device=device), first.abs()
    for t in range(n_nonzero_coefs):
        barred = torch.cat([own[live, None], S[live, :t]], 1)
        best, j = _mask(corr, barred).max(1)
        S[live, t] = j
        G = small_grams(X, S[live, : t + 1], None)
        w = torch.linalg.solve_triangular(L[live, :t, :t], G[:, :t, t:], upper=False)[:, :, 0]
        pivot = G[:, t, t] - w.square().sum(1)
        fine = (best > 0) & (pivot > _DEPENDENT * G[:, t, t])
        live = live[fine]
        L[live, t, :t], L[live, t, t] = w[fine], pivot[fine].sqrt()
        rhs[live, t] = first[live, S[live, t]]
        codes[live, : t + 1] = torch.cholesky_solve(rhs[live, : t + 1, None], L[live, : t + 1, : t + 1])[:, :, 0]
        if t + 1 == n_nonzero_coefs or not len(live):
            break
        R = residuals(take(Y, live), X, S[live, : t + 1], codes[live, : t + 1])
        going = (norms(R).square() > enough[live]).nonzero()[:, 0]
        live = live[going]
        if not len(live):
            break
        corr = products(take(R, going), X).abs_()
    return S, codes


def _mask(corr, barred):
    """Write -1 in each row at the columns `barred`, where these are not negative."""
    row, k = (barred >= 0).nonzero(as_tuple=True)
    corr[row, barred[row, k]] = -1.0
    return corr
