"""Metric learning: representations and metrics in which rows of embeddings can be compared."""

from ._relative_distance import relative_distance
from ._relative_representation import RelativeRepresentation
from ._stitched_classifier import StitchedClassifier

__all__ = ["RelativeRepresentation", "StitchedClassifier", "relative_distance"]
