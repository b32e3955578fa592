"""Fitted networks made smaller."""

from ._feature_mimicking_compressor import FeatureMimickingCompressor
from ._low_rank_compensator import LowRankCompensator
from ._low_rank_compressor import LowRankCompressor
from ._second_order_pruner import SecondOrderPruner

__all__ = ["LowRankCompensator", "LowRankCompressor", "SecondOrderPruner"]
from ._kv_cache_compressor import KVCacheCompressor

__all__ = ["KVCacheCompressor", "LowRankCompressor", "SecondOrderPruner"]
__all__ = ["FeatureMimickingCompressor", "LowRankCompensator", "LowRankCompressor", "SecondOrderPruner"]
