"""Fitted networks adapted to new rows by few numbers."""

from ._ldu_adapter import LDUAdapter
from ._tucker_adapter import TuckerAdapter

__all__ = ["LDUAdapter", "TuckerAdapter"]
