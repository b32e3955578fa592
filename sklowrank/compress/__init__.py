"""Fitted networks made smaller."""

from ._low_rank_compensator import LowRankCompensator
from ._low_rank_compressor import LowRankCompressor
from ._second_order_pruner import SecondOrderPruner

__all__ = ["LowRankCompensator", "LowRankCompressor", "SecondOrderPruner"]
