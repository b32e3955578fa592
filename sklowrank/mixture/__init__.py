"""Mixtures of low-rank Gaussians."""

from ._low_rank_gaussian_mixture import LowRankGaussianMixture

__all__ = ["LowRankGaussianMixture"]
