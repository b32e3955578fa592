"""Subspace clustering, and clustering of nonlinear manifolds."""

from ._elastic_net import ElasticNetSubspaceClustering
from ._k_subspaces import KSubspaces
from ._least_squares import LeastSquaresSubspaceClustering
from ._low_rank_representation import LowRankRepresentationClustering
from ._manifold_linearizing import ManifoldLinearizingClustering
from ._orthogonal_matching_pursuit import SparseSubspaceClusteringOMP
from ._sparse import SparseSubspaceClustering
from ._thresholded import ThresholdedSubspaceClustering

__all__ = [
    "ElasticNetSubspaceClustering",
    "KSubspaces",
    "LeastSquaresSubspaceClustering",
    "LowRankRepresentationClustering",
    "ManifoldLinearizingClustering",
    "SparseSubspaceClustering",
    "SparseSubspaceClusteringOMP",
    "ThresholdedSubspaceClustering",
]
