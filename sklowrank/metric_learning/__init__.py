"""Metric learning: representations and metrics in which rows of embeddings can be compared."""

from ._dynamic_subspace import DynamicSubspaceMetricLearner
from ._relative_distance import relative_distance
from ._relative_representation import RelativeRepresentation
from ._stitched_classifier import StitchedClassifier

__all__ = ["DynamicSubspaceMetricLearner", "RelativeRepresentation", "StitchedClassifier", "relative_distance"]
