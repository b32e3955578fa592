"""Rows as the mixture sees them: in float64, moved so that their middle is near the origin, with their weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from .._core.rows import merge_sum
from ._low_rank_gaussian import Model, log_joint


@dataclass(frozen=True)
class Data:
    """The data: float64 blocks of rows, moved by `shift` so that their middle is near the origin."""

    rows: Any  # of `_core.rows`, or of a cluster
    weights: torch.Tensor | None
    shift: torch.Tensor
    size: int  # bytes of a row at work
    randn: Callable[..., torch.Tensor]

    def __len__(self):
        return len(self.rows)

    @property
    def in_memory(self) -> bool:
        """True where one block holds all rows."""
        return self.rows.fit_in_one_block(self.size)

    def gather(self, compute: Callable, *aligned, merge: Callable = merge_sum):
        """Return the merged results of ``compute(block, weights, *parts of aligned)``."""
        moved = partial(_on_moved, compute, self.shift)
        return self.rows.gather(moved, self.weights, *aligned, size=self.size, merge=merge)

    def take(self, at) -> torch.Tensor:
        """Return some rows, moved."""
        return self.rows.take(at).to(self.shift) - self.shift

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return float(len(self) if self.weights is None else self.weights.sum())


def _on_moved(compute, shift, X, w, *aligned):
    return compute(X.to(shift) - shift, w, *aligned)


def weigh(R: torch.Tensor, w: torch.Tensor | None) -> torch.Tensor:
    """Return responsibilities R (or other values by row) times the weights of their rows."""
    return R if w is None else w.view(-1, *[1] * (R.ndim - 1)) * R


def data_of(rows, weights, *, centred: bool, width: int, randn, device) -> Data:
    """Return rows as `Data`; `width` is the number of coordinates that a row has in all components together."""
    D = rows.shape[1]
    data = Data(rows, weights, torch.zeros(D, dtype=torch.float64, device=device), 32 * (D + width), randn)
    if not centred:
        return data
    return replace(data, shift=data.gather(_first_sum)[0] / data.total)


def _first_sum(Z, w):
    return (weigh(Z, w).sum(0),)


def mean_variance(data: Data, *, centred: bool) -> float:
    """Return the mean over features of their variances (of their mean squares, where nothing is centred)."""
    first, second = (part / data.total for part in data.gather(_first_and_second_sum))
    return float((second - first.square() if centred else second).mean())


def _first_and_second_sum(Z, w):
    return weigh(Z, w).sum(0), weigh(Z.square(), w).sum(0)


def mean_log_likelihood(data: Data, model: Model) -> float:
    """Return the mean log density of the rows."""
    return float(data.gather(partial(_log_likelihood, model))[0]) / data.total


def _log_likelihood(model, Z, w):
    return (weigh(log_joint(Z, model).logsumexp(1), w).sum(),)
