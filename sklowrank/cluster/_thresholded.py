"""Thresholded subspace clustering: each row is joined to the rows that point most nearly its way."""

import math
from numbers import Integral
from typing import Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._math.graphs import csr_from, packed_attribute
from ._gram import mask_own, norms_of, products, walk
from ._self_expression import conclude, make_ready, outcome, predict, read
from ._shared_parameters import CONSTRAINTS, documented


@documented("sum")
class ThresholdedSubspaceClustering(ClusterMixin, BaseEstimator):
    """Cluster rows by subspaces, joining each row to those at the smallest angles.

    The plainest self-expressive method and the safe default for tables: one product of the rows with one another, no
    penalty to tune, and it stands noise well. Where subspaces come close to one another,
    :class:`SparseSubspaceClusteringOMP` and :class:`ElasticNetSubspaceClustering` tell them apart better.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    n_neighbors : int or "auto", default="auto"
        Rows that each row is joined to; "auto" is ``max(3, ceil(2 log(n_samples) / 3))``. More of them connect clusters
        better and mix them sooner. At most `n_samples` - 1 are used.
    <shared parameters>
    <last parameters>

    Attributes
    ----------
    representation_ : sparse array of shape (n_samples, n_samples)
        Row i holds ``exp(-2 angle)`` to its neighbours. CSR, with an empty diagonal.
    <shared attributes>

    See Also
    --------
    KSubspaces : Millions of rows, from starts such as this one.
    sklearn.cluster.SpectralClustering : Neighbours by distance: clusters of any shape that are apart.

    Notes
    -----
    Angles are those between lines: a row and its negative are the same. Time O(n_samples² n_features), in blocks;
    memory O(n_samples n_neighbors).

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

    representation_ = packed_attribute("_representation")
    affinity_matrix_ = packed_attribute("_affinity")

    # Set by fit
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

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : ThresholdedSubspaceClustering
        """
        ready = make_ready(self, read(self, X, sparse=True))
        codes = thresholded_codes(ready.rows, _count(self, ready.rows), batch_size=self.batch_size)
        conclude(self, ready, outcome(self, ready, codes, affinity_by_default="sum"))
        return self

    def predict(self, X):
        """Return the cluster of each row, by the subspaces that the training rows span.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        return predict(self, X, _code_new_rows, sparse=True)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.sparse = True
        return tags


def _count(estimator, rows):
    """Return the number of neighbours."""
    n = rows.shape[0]
    wanted = max(3, math.ceil(2 * math.log(n) / 3)) if estimator.n_neighbors == "auto" else estimator.n_neighbors
    return min(wanted, n - 1)


def _code_new_rows(estimator, atoms, rows, ws):
    return thresholded_codes(atoms, _count(estimator, atoms), targets=rows, batch_size=estimator.batch_size)


# The codes


def thresholded_codes(X, n_neighbors, *, targets=None, batch_size="auto"):
    """Return the CSR matrix of ``exp(-2 angle)`` to the `n_neighbors` rows of X with the largest |inner product|.

    Of X (n, D) with itself, no row being its own neighbour, or of other rows `targets` with X.
    """
    Y = X if targets is None else targets
    norms, other = norms_of(X), norms_of(Y)
    q = min(n_neighbors, X.shape[0] - (targets is None))

    def nearest(rows):
        G = products(Y[rows], X).abs_()
        if targets is None:
            mask_own(G, rows, -1.0)
        value, column = G.topk(q, dim=1)
        cosine = (value / (other[rows, None] * norms[column])).clamp(max=1.0)
        return column, torch.where(value > 0, torch.exp(-2 * torch.arccos(cosine)), 0.0)  # rows of zeros have no angle

    columns, values = (torch.cat(part) for part in zip(*walk(nearest, Y, X.shape[0], batch_size)))
    return csr_from(columns, values, X.shape[0])
