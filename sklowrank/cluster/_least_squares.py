"""Least squares regression subspace clustering: dense codes by ridge regression, in closed form."""

from numbers import Real
from typing import Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator

from .._core.annotations import RandomState
from .._core.compat import Interval, _fit_context
from .._core.fitted import keep, options
from .._core.validation import check_fit_data
from ._self_expression import LEAST_SHAPE, SpectralOptions, cluster_model, coding_problem, described, warn_of_graph
from ._shared_parameters import CONSTRAINTS, documented_clusterer
from ._subspace_predictions import SubspacePredictions


@documented_clusterer(affinity="max")
class LeastSquaresSubspaceClustering(SubspacePredictions, BaseEstimator):
    """Cluster rows by subspaces, coding each row by all others with ridge regression.

    The codes are dense and in closed form, for up to some thousands of rows. Correlated rows get similar codes, and
    the method is robust to noise; on images of faces it is among the most accurate of the family.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    alpha : float, default=0.1
        Strength of the penalty. It is on the squares of the codes, and above 0; higher values spread a code over more
        rows. With `normalize` the usual range is 0.1 to 1.
    zero_diagonal : bool, default=True
        Whether to exclude each row from its own code.
    <shared_parameters>
    <last_parameters>

    Attributes
    ----------
    representation_ : ndarray of shape (n_samples, n_samples)
        Row i is the code of training row i.
    <shared_attributes>

    See Also
    --------
    LowRankRepresentationClustering : Codes of low rank.
    ThresholdedSubspaceClustering : Sparse codes, for more rows.

    Notes
    -----
    The codes minimise :math:`\\|X - C X\\|_F^2 + \\alpha \\|C\\|_F^2`, with `zero_diagonal` under
    :math:`C_{ii} = 0`: with :math:`B = (X X^\\top + \\alpha I)^{-1}` they are then :math:`-B_{ij} / B_{ii}`. Time
    O(n_samples² d + d³) with ``d = min(n_samples, n_features)``, memory O(n_samples²).

    References
    ----------
    .. [1] C. Lu, H. Min, Z. Zhao, L. Zhu, D. Huang, S. Yan, "Robust and efficient subspace segmentation via least
       squares regression", ECCV 2012.

    Examples
    --------
    >>> from sklowrank.cluster import LeastSquaresSubspaceClustering
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.metrics import clustering_accuracy
    >>> X, y, _ = make_union_of_subspaces(150, 20, n_dims=3, n_clusters=3, noise=0.01, random_state=0)
    >>> model = LeastSquaresSubspaceClustering(3, random_state=0).fit(X)
    >>> clustering_accuracy(y, model.labels_)
    1.0
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "zero_diagonal": ["boolean"],
    }

    # Set by fit
    representation_: np.ndarray

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        alpha: float = 0.1,
        zero_diagonal: bool = True,
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
        self.alpha = alpha
        self.zero_diagonal = zero_diagonal
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
        codes = least_squares_codes(problem.rows, self.alpha, self.zero_diagonal)
        model = cluster_model(codes, problem, default_affinity="max")
        warn_of_graph(model, problem, "take affinity='max'")
        return keep(self, problem.ws, model, **described(model, problem))

    def _code_rows(self, atoms, rows, model, ws):
        return least_squares_codes_of(rows, atoms, self.alpha)


# The codes


def least_squares_codes(X, alpha, zero_diagonal):
    """Return the codes C (n, n) that minimise |X - C X|² + alpha |C|², with a zero diagonal where that is asked for.

    With ``B = (X X' + alpha I)^-1`` they are ``-B_ij / B_ii``, and ``I - alpha B`` without the constraint; where n > D
    the inverse is that of a D x D matrix.
    """
    n, D = X.shape
    if n > D:
        Z = torch.linalg.solve_triangular(_cholesky(X.T @ X, alpha), X.T, upper=False)
        C = Z.T @ Z
        left = 1 - C.diagonal()
    else:
        C = torch.cholesky_inverse(_cholesky(X @ X.T, alpha)).mul_(-alpha)
        left = -C.diagonal()
        C = C + torch.eye(n, dtype=C.dtype, device=C.device)
    if not zero_diagonal:
        return C
    C = C / left.clamp(min=torch.finfo(C.dtype).tiny)[:, None]
    C.diagonal().zero_()
    return C


def least_squares_codes_of(Y, X, alpha):
    """Return ``Y X' (X X' + alpha I)^-1``, by the smaller of the two matrices that give it."""
    n, D = X.shape
    if n > D:
        return torch.cholesky_solve(Y.T, _cholesky(X.T @ X, alpha)).T @ X.T
    return torch.cholesky_solve(X @ Y.T, _cholesky(X @ X.T, alpha)).T


def _cholesky(S, alpha):
    """Return the Cholesky factor of S + alpha I, with at least as much added as rounding takes away."""
    least = torch.finfo(S.dtype).eps * len(S) * S.diagonal().max()
    return torch.linalg.cholesky(S + least.clamp(min=alpha) * torch.eye(len(S), dtype=S.dtype, device=S.device))
