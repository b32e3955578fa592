"""Optimizers for torch with second-order information."""

from ._inverse_fisher import InverseFisher
from ._mfac import MFAC

__all__ = ["MFAC", "InverseFisher"]
