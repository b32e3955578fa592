"""Networks as estimators, and rules that train them with few parameters or in flat minima."""

from ._sharpness_aware import SharpnessAware

__all__ = ["SharpnessAware"]
