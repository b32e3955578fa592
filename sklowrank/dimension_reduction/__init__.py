"""A few features that keep what X says about a response: a number, a class, a distribution, a matrix, a direction."""

from ._cumulative_covariance import frechet_cumulative_covariance

__all__ = ["frechet_cumulative_covariance"]
