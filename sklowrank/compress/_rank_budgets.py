"""Ranks of layers for a number of parameters: what each rank costs and loses, and what a budget allows."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch


class Ladder(NamedTuple):
    """What the ranks of a layer cost, in parameters, and lose, in shares of its variance."""

    n_dense: int
    n_per_rank: int
    n_fixed: int  # at any rank: the bias
    lost: torch.Tensor  # (k + 1,), at ranks 0 to k

    def size(self, rank: int | None) -> int:
        """Return the number of parameters at a rank; None is the layer as it was."""
        return self.n_dense if rank is None else self.n_fixed + rank * self.n_per_rank

    @property
    def top(self) -> int:
        """The largest rank at which the pair is smaller than the layer; 0 where there is none."""
        return max(0, min(len(self.lost) - 1, (self.n_dense - self.n_fixed - 1) // self.n_per_rank))

    @property
    def least(self) -> int:
        """The smallest number of parameters."""
        return min(self.n_dense, self.size(1)) if self.top else self.n_dense

    def paying(self, rank: int) -> int | None:
        """Return the rank, or None where the pair would not be smaller."""
        return rank if rank <= self.top else None


def ranks_by_number(ladders: Mapping[str, Ladder], rank: int | float) -> dict[str, int | None]:
    """Return one rank for all layers: a number, or a share of the largest rank that each can have."""
    return {name: ladder.paying(_rank_at(ladder, rank)) for name, ladder in ladders.items()}


def _rank_at(ladder, rank):
    largest = len(ladder.lost) - 1
    return max(1, round(rank * largest)) if isinstance(rank, float) else int(rank)


def ranks_by_budget(ladders: Mapping[str, Ladder], budget: float, allocation: str) -> dict[str, int | None]:
    """Return ranks with which the layers have at most `budget` parameters; None keeps a layer dense.

    "greedy" minimises the sum over layers of the lost share of the variance; "energy" has one explained share for all
    layers and "uniform" one share of the largest ranks. The budget has to be reachable, see :func:`least_size`.
    """
    if allocation == "greedy":
        return _greedy(ladders, budget)
    return _common(ladders, budget, _explaining if allocation == "energy" else _sharing)


def size_of(ladders: Mapping[str, Ladder], ranks: Mapping[str, int | None]) -> int:
    """Return the number of parameters of the layers at some ranks."""
    return sum(ladder.size(ranks[name]) for name, ladder in ladders.items())


def least_size(ladders: Mapping[str, Ladder]) -> int:
    """Return the smallest number of parameters that the layers can have."""
    return sum(ladder.least for ladder in ladders.values())


def budget_of(ladders: Mapping[str, Ladder], n_before: int, compression: float, left: str) -> float:
    """Return how many parameters the layers may have, where the network had `n_before` and `left` says what stays.

    Raises
    ------
    ValueError
        If the share `compression` of them cannot be reached.
    """
    n_others = n_before - sum(ladder.n_dense for ladder in ladders.values())
    least = (least_size(ladders) + n_others) / n_before
    if compression < least:
        raise ValueError(
            f"compression={compression} cannot be reached: with rank 1 in all layers that are taken it is "
            f"{math.ceil(1e4 * least) / 1e4:.4f}. Pass at least that, or take more layers by modules and exclude. "
            f"Left as they are: {left or 'none'}."
        )
    return compression * n_before - n_others


def _greedy(ladders, budget):
    """Walk down the convex hulls of lost share against size, where the slope is lowest, until the budget is met.

    What a step has saved beyond the budget is then given to the ranks that gain most.
    """
    steps = sorted(step for name, ladder in ladders.items() for step in _hull(name, ladder))
    ranks: dict[str, int | None] = dict.fromkeys(ladders)
    left = size_of(ladders, ranks) - budget
    for _, _, name, rank, saved in steps:
        if left <= 0:
            break
        ranks[name], left = rank, left - saved
    while True:
        gains = [
            (float(ladder.lost[rank] - ladder.lost[rank + 1]) / ladder.n_per_rank, name)
            for name, ladder in ladders.items()
            if (rank := ranks[name]) is not None and rank < ladder.top and left + ladder.n_per_rank <= 0
        ]
        gain, name = max(gains, default=(0.0, ""))
        if gain <= 0:
            return ranks
        ranks[name] += 1  # type: ignore[operator]
        left += ladders[name].n_per_rank


def _hull(name, ladder):
    """Yield (slope, number, name, rank, parameters saved) of the steps from the dense layer down to rank 1."""
    if not ladder.top:
        return
    lost = ladder.lost.tolist()
    saved = [ladder.n_dense - ladder.size(rank) for rank in range(ladder.top + 1)]
    start = min(range(ladder.top, 0, -1), key=lambda rank: lost[rank] / saved[rank])
    slope = lost[start] / saved[start]
    yield slope, 0, name, start, saved[start]
    for i, rank in enumerate(range(start - 1, 0, -1)):
        slope = max(slope, (lost[rank] - lost[rank + 1]) / ladder.n_per_rank)  # never less, by rounding
        yield slope, i + 1, name, rank, ladder.n_per_rank


def _common(ladders, budget, rank_at):
    """Return the ranks at the largest common level, of those at which a rank changes, that keeps the budget."""
    levels = sorted({level for ladder in ladders.values() for level in _levels(ladder, rank_at)})

    def ranks(level):
        return {name: ladder.paying(rank_at(ladder, level)) if ladder.top else None for name, ladder in ladders.items()}

    low, high = 0, len(levels)  # levels[low] keeps the budget, levels[high] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size_of(ladders, ranks(levels[middle])) <= budget else (low, middle)
    return ranks(levels[low] if levels else 0.0)


def _levels(ladder, rank_at):
    if rank_at is _explaining:
        return [0.0, *(1 - ladder.lost[1:]).tolist()]
    return [rank / (len(ladder.lost) - 1) for rank in range(len(ladder.lost))]


def _explaining(ladder, level):
    """Return the smallest rank that explains a share of the variance."""
    return max(1, int(((1 - ladder.lost) < level).sum()))


def _sharing(ladder, level):
    """Return the rank at a share of the largest one, rounded up."""
    return max(1, -int(-(level * (len(ladder.lost) - 1) - 1e-9) // 1))
