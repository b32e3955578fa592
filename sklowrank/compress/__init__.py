"""Fitted networks made smaller."""

from ._kv_cache_compressor import KVCacheCompressor
from ._low_rank_compressor import LowRankCompressor
from ._second_order_pruner import SecondOrderPruner

__all__ = ["KVCacheCompressor", "LowRankCompressor", "SecondOrderPruner"]
