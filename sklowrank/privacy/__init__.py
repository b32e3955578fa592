"""Densities, distances and classifiers with differential privacy for every row."""

from ._accountant import BudgetError, PrivacyAccountant, PrivacyLeakWarning, PrivacySpent, PrivacyWarning
from ._private_distance_sum import PrivateDistanceSum
from ._private_kernel_density import PrivateKernelDensity
from ._private_similarity_classifier import PrivateSimilarityClassifier

__all__ = [
    "BudgetError",
    "PrivacyAccountant",
    "PrivacyLeakWarning",
    "PrivacySpent",
    "PrivacyWarning",
    "PrivateDistanceSum",
    "PrivateKernelDensity",
    "PrivateSimilarityClassifier",
]
