"""Prediction of values of (row, column) pairs, and of rows of identifiers that come in streams."""

from ._matrix_factorization import MatrixFactorizationRegressor
from ._online_embedding_classifier import OnlineEmbeddingClassifier
from ._online_embedding_regressor import OnlineEmbeddingRegressor

__all__ = ["MatrixFactorizationRegressor", "OnlineEmbeddingClassifier", "OnlineEmbeddingRegressor"]
