"""Prediction of values of (row, column) pairs: ratings, sensor by time, product by store."""

from ._matrix_factorization import MatrixFactorizationRegressor

__all__ = ["MatrixFactorizationRegressor"]
