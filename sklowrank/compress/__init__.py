"""Fitted networks made smaller."""

from ._second_order_pruner import SecondOrderPruner

__all__ = ["SecondOrderPruner"]
