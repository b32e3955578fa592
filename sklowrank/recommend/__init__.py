"""Prediction of values of (row, column) pairs, and of rows of identifiers that come in streams."""

from ._matrix_factorization import MatrixFactorizationRegressor
from ._online_embedding import OnlineEmbeddingClassifier, OnlineEmbeddingRegressor

__all__ = ["MatrixFactorizationRegressor", "OnlineEmbeddingClassifier", "OnlineEmbeddingRegressor"]
