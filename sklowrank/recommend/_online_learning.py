"""Ways through a stream: rows in batches in the order in which they come, or in epochs in drawn orders."""

import math

import torch

from .._core.iterate import Step
from ._online_state import OnlineState, Settings


def learn_in_order(state: OnlineState, rows, y, weights, times, settings: Settings) -> float:
    """Learn rows in their order, and return the mean loss of batches before each was learned."""
    loss: float | torch.Tensor = 0.0
    for start in range(0, len(rows), settings.batch_size):
        part = slice(start, min(start + settings.batch_size, len(rows)))
        batch, w = rows.part(part.start, part.stop), None if weights is None else weights[part]
        before = state.clock["n_seen"]
        state.see_numbers(batch.Z, w)
        loss = loss + state.learn(batch, y[part], w, None if times is None else times[part], settings)
        now = state.clock["n_seen"]
        if settings.expire_after is not None and _passed(before, now, settings.evict_every):
            state.evict(state.clock["t"], settings.expire_after)
        if _passed(before, now, settings.sync_interval):
            state.sync()
    state.compact()
    total = len(rows) if weights is None else weights.sum()
    return float(loss) / total if total else 0.0


def _passed(before, now, interval) -> bool:
    """Return whether a multiple of the interval lies between two numbers of rows."""
    return bool(interval) and before // interval != now // interval


def epochs(state: OnlineState, rows, y, settings: Settings, n_epochs: int, generator: torch.Generator):
    """Yield a step for each pass through all rows, in an order that is drawn; the first one counts them."""
    state.see_numbers(rows.Z, None)
    for epoch in range(n_epochs):
        order = torch.randperm(len(rows), generator=generator, device="cpu").numpy()
        loss: float | torch.Tensor = 0.0
        for start in range(0, len(rows), settings.batch_size):
            taken = order[start : start + settings.batch_size]
            loss = loss + state.learn(rows.take(taken), y[taken], None, None, settings, again=epoch > 0)
        last = epoch == n_epochs - 1
        yield Step(state, 0.0 if last else math.inf, float(loss) / len(rows))
