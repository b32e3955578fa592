"""Classifiers that use distances between labels."""

from ._loki import LokiClassifier

__all__ = ["LokiClassifier"]
