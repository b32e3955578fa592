"""Separability of unlabelled rows and features of shapes, from persistent homology."""

from ._multiparameter_persistence import MultiparameterPersistence
from ._persistence_separability import PersistenceSeparability, persistence_separability_score
from ._separability_monitor import SeparabilityMonitor

__all__ = [
    "MultiparameterPersistence",
    "PersistenceSeparability",
    "SeparabilityMonitor",
    "persistence_separability_score",
]
