"""Batches of a stream: their identifiers, each once, and their rows as tensors."""

from typing import NamedTuple

import numpy as np
import torch

from ._online_embedding_model import Batch
from ._online_serving import Numbers


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


def tensor_of(array) -> torch.Tensor:
    """Return an array as a tensor that shares its memory."""
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)


def tensors_of(arrays) -> dict[str, torch.Tensor]:
    """Return arrays as tensors that share their memory."""
    return {name: tensor_of(array) for name, array in arrays.items()}
