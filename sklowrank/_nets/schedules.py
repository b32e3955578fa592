"""How the learning rate changes in training, as callbacks of skorch."""

import math
from collections.abc import Callable
from typing import Literal

from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

Callbacks = list[tuple[str, LRScheduler]]
Every = Literal["batch", "epoch"]


def cosine(n_steps: int, *, last: float = 0.0, every: Every = "batch") -> Callbacks:
    """Return a schedule in which all rates fall by a cosine, in `n_steps` batches or epochs, to a share `last`."""

    def share(step):
        return last + (1 - last) * (1 + math.cos(math.pi * min(step / n_steps, 1.0))) / 2

    return [("cosine_schedule", LRScheduler(LambdaLR, lr_lambda=share, step_every=every))]


def one_cycle(n_steps: int, *, peak: float) -> Callbacks:
    """Return a schedule in which the rate rises to its peak and falls to nearly nothing, in `n_steps` batches."""
    return [("one_cycle_schedule", LRScheduler(OneCycleLR, max_lr=peak, total_steps=n_steps, step_every="batch"))]


Schedule = Callable[[int], Callbacks]  # from the number of batches of a training
