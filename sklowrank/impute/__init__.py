"""Imputation of missing values in tables."""

from ._matrix_completion import MatrixCompletionImputer

__all__ = ["MatrixCompletionImputer"]
