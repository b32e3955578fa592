"""Regression on coordinates by low-rank tensors of smooth functions."""

from ._functional_tucker import FunctionalTuckerRegressor

__all__ = ["FunctionalTuckerRegressor"]
