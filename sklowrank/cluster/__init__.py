"""Clusterers that find flat pieces (lines, planes, subspaces) instead of round blobs."""

from ._k_subspaces import KSubspaces

__all__ = ["KSubspaces"]
