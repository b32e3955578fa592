"""Batches of a stream: rows in their order or in epochs; the identifiers of a batch, each once, and it as tensors."""

import math
from typing import NamedTuple

import numpy as np
import torch

from .._core.iterate import Step
from ._online_embedding_model import Batch
from ._online_serving import Numbers

# Ways through rows; `state` is the OnlineState that learns them, `settings` are its Settings


def learn_in_order(state, rows, y, weights, times, settings) -> float:
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


def epochs(state, rows, y, settings, n_epochs: int, generator: torch.Generator):
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


# One batch


class Distinct(NamedTuple):
    """The identifiers of a batch, each once."""

    keys: np.ndarray
    slots: np.ndarray  # of the shape of the keys of the batch: positions among the distinct ones
    counts: np.ndarray
    columns: np.ndarray
    times: np.ndarray  # of their last occurrences


def distinct_identifiers(rows, times) -> Distinct:
    """Return the identifiers of a batch, each once."""
    keys = rows.keys.ravel()
    per_row = rows.keys.shape[1] if rows.starts is None else 1
    order = keys.argsort(kind="stable")
    found = keys[order]
    first = np.ones(len(keys), bool)
    np.not_equal(found[1:], found[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    slots = np.empty(len(keys), np.int64)
    slots[order] = np.cumsum(first) - 1
    samples = order // per_row if rows.starts is None else np.repeat(np.arange(len(rows)), np.diff(rows.starts))[order]
    columns = rows.columns[order[starts] % per_row] if rows.starts is None else rows.columns[order[starts]]
    last = np.maximum.reduceat(times[samples], starts) if len(starts) else np.empty(0)
    ends = np.append(starts[1:], len(keys))
    return Distinct(found[starts], slots.reshape(rows.keys.shape), ends - starts, columns, last)


def batch_of(rows, slots, numbers: Numbers, device: str) -> Batch:
    """Return a batch as tensors; `slots` say where its identifiers stand among the rows that are read."""
    Z = torch.from_numpy(numbers.standardized(rows.Z)).to(device)
    slots = torch.from_numpy(slots).to(device)
    if rows.starts is None:
        return Batch(slots, Z)
    samples = np.repeat(np.arange(len(rows)), np.diff(rows.starts))
    return Batch(slots, Z, torch.from_numpy(rows.cells[:, None]).to(device), torch.from_numpy(samples).to(device))
