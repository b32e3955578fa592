"""Generators of synthetic data with known low-rank structure."""

from ._frechet_regression import make_frechet_regression
from ._unions_of_subspaces import make_union_of_subspaces

__all__ = ["make_frechet_regression", "make_union_of_subspaces"]
