"""Separability of unlabelled rows and features of shapes, from persistent homology."""

__all__ = []
