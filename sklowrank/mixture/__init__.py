"""Mixture densities of low-rank components."""

from ._low_rank_gaussian_mixture import LowRankGaussianMixture

__all__ = ["LowRankGaussianMixture"]
