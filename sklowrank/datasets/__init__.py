"""Generators of data with known structure."""

from ._unions_of_subspaces import make_union_of_subspaces

__all__ = ["make_union_of_subspaces"]
