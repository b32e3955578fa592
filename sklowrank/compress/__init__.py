"""Fitted networks made smaller."""

from ._feature_mimicking_compressor import FeatureMimickingCompressor
from ._kv_cache_compressor import KVCacheCompressor
from ._low_rank_compensator import LowRankCompensator
from ._low_rank_compressor import LowRankCompressor
from ._second_order_pruner import SecondOrderPruner

__all__ = [
    "FeatureMimickingCompressor",
    "KVCacheCompressor",
    "LowRankCompensator",
    "LowRankCompressor",
    "SecondOrderPruner",
]
