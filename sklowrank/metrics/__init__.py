"""Metrics of clusterings, of subspaces, of dependence and of networks."""

from ._clustering import clustering_accuracy, subspace_preserving_error, subspace_recovery_error
from ._coding_rates import coding_rate, rate_reduction
from ._dependence import distance_correlation
from ._networks import effective_rank, kernel_alignment
from ._tangent_kernel import tangent_kernel

__all__ = [
    "clustering_accuracy",
    "coding_rate",
    "distance_correlation",
    "effective_rank",
    "kernel_alignment",
    "rate_reduction",
    "subspace_preserving_error",
    "subspace_recovery_error",
    "tangent_kernel",
]
