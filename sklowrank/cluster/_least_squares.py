"""Least squares regression subspace clustering: dense codes in closed form."""

from numbers import Real
from typing import Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, _fit_context
from .._math.graphs import packed_attribute
from ._self_expression import conclude, make_ready, outcome, predict, read
from ._shared_parameters import CONSTRAINTS, documented


@documented("max")
class LeastSquaresSubspaceClustering(ClusterMixin, BaseEstimator):
    """Cluster rows by subspaces, coding each row by all others with ridge regression.

    One linear solve; the codes are dense, so it is for some thousands of rows. It groups rows that are alike and stands
    noise well; on faces it is among the best of the family.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    alpha : float, default=0.1
        Penalty on the squares of the codes, above 0. Raising it spreads codes over more rows. With `normalize` 0.1 to 1
        is a usual range.
    zero_diagonal : bool, default=True
        Whether no row may code itself.
    <shared parameters>
    <last parameters>

    Attributes
    ----------
    representation_ : ndarray of shape (n_samples, n_samples)
        Row i codes training row i by all rows.
    <shared attributes>

    See Also
    --------
    LowRankRepresentationClustering : Codes of low rank.
    ThresholdedSubspaceClustering : Sparse, for more rows.

    Notes
    -----
    The codes minimise :math:`\\|X - C X\\|_F^2 + \\alpha \\|C\\|_F^2`, with :math:`C_{ii} = 0` if asked for: with
    :math:`B = (X X^\\top + \\alpha I)^{-1}` they are :math:`-B_{ij} / B_{ii}`. Where rows are more than features the
    inverse is that of a matrix of n_features columns. Memory O(n_samples²).

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

    affinity_matrix_ = packed_attribute("_affinity")

    # Set by fit
    representation_: np.ndarray
    labels_: np.ndarray
    bases_: list[np.ndarray]
    means_: np.ndarray
    n_dims_: np.ndarray
    n_components_graph_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

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

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : LeastSquaresSubspaceClustering
        """
        ready = make_ready(self, read(self, X))
        codes = least_squares_codes(ready.rows, self.alpha, self.zero_diagonal)
        conclude(self, ready, outcome(self, ready, codes, affinity_by_default="max"))
        return self

    def predict(self, X):
        """Return the cluster of each row, by the subspaces that the training rows span.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        return predict(self, X, _code_new_rows)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags


def _code_new_rows(estimator, atoms, rows, ws):
    """Return ``Y X' (X X' + alpha I)^-1``, of the smaller of the two matrices that give it."""
    n, D = atoms.shape
    if n > D:
        return torch.cholesky_solve(rows.T, _cholesky(atoms.T @ atoms, estimator.alpha)).T @ atoms.T
    return torch.cholesky_solve(atoms @ rows.T, _cholesky(atoms @ atoms.T, estimator.alpha)).T


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


def _cholesky(S, alpha):
    """Return the Cholesky factor of S + alpha I, with at least as much added as rounding takes away."""
    least = torch.finfo(S.dtype).eps * len(S) * S.diagonal().max()
    return torch.linalg.cholesky(S + least.clamp(min=alpha) * torch.eye(len(S), dtype=S.dtype, device=S.device))
