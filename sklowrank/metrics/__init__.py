"""Scores for clusterings and for subspaces, and other plain functions that measure."""

from ._clustering import clustering_accuracy, subspace_preserving_error, subspace_recovery_error

__all__ = ["clustering_accuracy", "subspace_preserving_error", "subspace_recovery_error"]
