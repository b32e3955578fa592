"""Imputation of missing values by low-rank models."""

from ._matrix_completion import MatrixCompletionImputer

__all__ = ["MatrixCompletionImputer"]
