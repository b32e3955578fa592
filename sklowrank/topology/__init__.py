"""Separability of unlabelled rows and features of shapes, from persistent homology."""

from ._persistence_separability import PersistenceSeparability, persistence_separability_score
from ._separability_monitor import SeparabilityMonitor

__all__ = ["PersistenceSeparability", "SeparabilityMonitor", "persistence_separability_score"]
