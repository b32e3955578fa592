"""Thresholded subspace clustering: a graph of nearest neighbours by angle."""

import math
from numbers import Integral
from typing import Literal, Self

import torch
from sklearn.base import BaseEstimator

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_matrix, keep, options
from .._core.validation import check_fit_data
from .._math.graphs import csr_from
from ._row_products import magnitude_blocks, norms
from ._self_expression import LEAST_SHAPE, SpectralOptions, cluster_model, coding_problem, described, warn_of_graph
from ._shared_parameters import CONSTRAINTS, documented_clusterer
from ._subspace_predictions import SubspacePredictions


@documented_clusterer(sparse=True)
class ThresholdedSubspaceClustering(SubspacePredictions, BaseEstimator):
    """Cluster rows by subspaces, with a graph of nearest neighbours by angle.

    The simplest self-expressive method and a safe default for tables: one Gram matrix, no penalty to tune, robust to
    noise. Where subspaces are close to one another, :class:`SparseSubspaceClusteringOMP` and
    :class:`ElasticNetSubspaceClustering` are more accurate.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    n_neighbors : int or "auto", default="auto"
        Number of nearest neighbours. "auto" is ``max(3, ceil(2 log(n_samples) / 3))``. More neighbours connect the rows
        of a cluster better, and add more edges between clusters. At most ``n_samples - 1`` are used.
    <shared_parameters>
    <last_parameters>

    Attributes
    ----------
    representation_ : sparse array of shape (n_samples, n_samples)
        Entry (i, j) is ``exp(-2 angle)`` of rows i and j, where j is a neighbour of i. CSR, with an empty diagonal.
    <shared_attributes>

    See Also
    --------
    KSubspaces : For millions of rows.
    sklearn.cluster.SpectralClustering : Neighbours by distance, for well separated clusters of any shape.

    Notes
    -----
    Angles are between lines: a row and its negative have angle 0. Time O(n_samples² n_features), in blocks; memory
    O(n_samples n_neighbors).

    References
    ----------
    .. [1] R. Heckel, H. Bölcskei, "Robust subspace clustering via thresholding", IEEE Transactions on Information
       Theory, 2015.

    Examples
    --------
    >>> from sklowrank.cluster import ThresholdedSubspaceClustering
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.metrics import clustering_accuracy
    >>> X, y, _ = make_union_of_subspaces(150, 20, n_dims=3, n_clusters=3, noise=0.01, random_state=0)
    >>> model = ThresholdedSubspaceClustering(3, random_state=0).fit(X)
    >>> clustering_accuracy(y, model.labels_)
    1.0
    >>> model.predict(X[:4]).shape
    (4,)
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    representation_ = fitted_matrix("representation")

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_neighbors: int | Literal["auto"] = "auto",
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
        self.n_neighbors = n_neighbors
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
        codes = thresholded_codes(problem.rows, self.n_neighbors, batch_size=self.batch_size)
        model = cluster_model(codes, problem)
        warn_of_graph(model, problem, "raise n_neighbors")
        return keep(self, problem.ws, model, **described(model, problem))

    def _code_rows(self, atoms, rows, model, ws):
        return thresholded_codes(atoms, self.n_neighbors, targets=rows, batch_size=self.batch_size)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


# The codes


def thresholded_codes(X, n_neighbors, *, targets=None, batch_size="auto"):
    """Return the CSR matrix of ``exp(-2 angle)`` to the `n_neighbors` rows of X with the largest |inner product|.

    Of X (n, D) with itself, no row being its own neighbour, or of other rows `targets` with X. "auto" is
    ``max(3, ceil(2 log(n) / 3))``, and at most n - 1 are used.
    """
    Y, n = X if targets is None else targets, X.shape[0]
    norms_of_atoms, norms_of_rows = norms(X), norms(Y)
    q = min(max(3, math.ceil(2 * math.log(n) / 3)) if n_neighbors == "auto" else n_neighbors, n - 1)

    def nearest(rows, magnitudes):
        value, column = magnitudes.topk(q, dim=1)
        cosine = (value / (norms_of_rows[rows, None] * norms_of_atoms[column])).clamp(max=1.0)
        return column, torch.where(value > 0, torch.exp(-2 * torch.arccos(cosine)), 0.0)  # rows of zeros have no angle

    blocks = magnitude_blocks(nearest, Y, X, batch_size, own=targets is None)
    columns, values = (torch.cat(part) for part in zip(*blocks))
    return csr_from(columns, values, n)
