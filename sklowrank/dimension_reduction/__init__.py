"""Sufficient dimension reduction: few features that keep what X says about a response, of any metric space."""

from ._cumulative_covariance import frechet_cumulative_covariance
from ._frechet_sdr import FrechetSDR
from ._kernel_frechet_sdr import KernelFrechetSDR
from ._linear_frechet_sdr import LinearFrechetSDR

__all__ = ["FrechetSDR", "KernelFrechetSDR", "LinearFrechetSDR", "frechet_cumulative_covariance"]
