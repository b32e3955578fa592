"""Separability of unlabelled rows and features of shapes, from persistent homology."""

from ._multiparameter_persistence import MultiparameterPersistence

__all__ = ["MultiparameterPersistence"]
