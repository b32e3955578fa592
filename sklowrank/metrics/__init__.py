"""Metrics of clusterings, subspaces, coding rates and statistical dependence."""

from ._clustering import clustering_accuracy, subspace_preserving_error, subspace_recovery_error
from ._coding_rates import coding_rate, rate_reduction
from ._dependence import distance_correlation

__all__ = [
    "clustering_accuracy",
    "coding_rate",
    "distance_correlation",
    "rate_reduction",
    "subspace_preserving_error",
    "subspace_recovery_error",
]
