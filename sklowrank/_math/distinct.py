"""Rows that are bitwise equal."""

import math
from typing import Any

import numpy as np
import torch

_BLOCK = 1 << 16  # rows hashed and compared at once


def distinct_rows(rows) -> tuple[Any, Any]:
    """Return the position of the first copy of each distinct row, and for each row which distinct row it equals.

    For a tensor they are tensors on its device. The numbering does not depend on the order of the rows.

    Parameters
    ----------
    rows : array of numbers (n, ...), tensor, or array of objects (n,)
        Arrays among objects are compared by their bytes, other objects by their hash. An object that cannot be hashed
        equals itself alone.
    """
    if isinstance(rows, torch.Tensor):
        return _distinct_on_device(rows.detach())
    rows = np.asarray(rows)
    if rows.dtype.kind in "OSU":
        return _distinct_objects(rows)
    flat = np.ascontiguousarray(rows.reshape(len(rows), math.prod(rows.shape[1:])))
    flat = flat + np.zeros((), flat.dtype) if flat.dtype.kind == "f" else flat  # -0.0 becomes 0.0
    if not flat.shape[1]:
        return np.zeros(min(1, len(flat)), dtype=np.int64), np.zeros(len(flat), dtype=np.int64)
    as_bytes = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()
    return np.unique(as_bytes, return_index=True, return_inverse=True)[1:]


def _distinct_on_device(rows):
    """Sort one hash per row: ``torch.unique(dim=0)`` would make a list of all rows."""
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    if not flat.numel():
        kind = torch.zeros(len(flat), dtype=torch.int64, device=rows.device)
        return kind[:1], kind
    blocks = flat.split(_BLOCK)
    kind = torch.unique(torch.cat([_hashed(block) for block in blocks]), return_inverse=True)[1]
    if not all(torch.equal(a, flat[b]) for a, b in zip(blocks, _first_of(kind)[kind].split(_BLOCK))):
        kind = torch.unique(flat, dim=0, return_inverse=True)[1]  # of a collision of hashes
    return _first_of(kind), kind


def _first_of(kind):
    """Return the first row of each group."""
    first = torch.full((int(kind.max()) + 1,), len(kind), dtype=torch.int64, device=kind.device)
    return first.scatter_reduce(0, kind, torch.arange(len(kind), device=kind.device), "amin")


def _hashed(block):
    """Return an integer hash of each row; integer arithmetic is exact, so that it does not depend on their order."""
    bits = (block.double() + 0.0).view(torch.int64) if block.is_floating_point() else block.to(torch.int64)
    generator = torch.Generator("cpu").manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator, dtype=torch.int64, device="cpu")
    return ((bits ^ (bits >> 32)) * (2 * factors + 1).to(bits.device)).sum(1)


def _distinct_objects(rows):
    keys = [_key(row) for row in rows]
    first = dict(reversed([(key, row) for row, key in enumerate(keys)]))
    try:
        order = sorted(first)
    except TypeError:
        order = sorted(first, key=first.__getitem__)
    number = {key: kind for kind, key in enumerate(order)}
    places, kinds = [first[key] for key in order], [number[key] for key in keys]
    return np.array(places, dtype=np.int64), np.array(kinds, dtype=np.int64)


def _key(value):
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return value.dtype.str, value.shape, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


def distinct_weighted(X: torch.Tensor, weights: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the distinct rows of positive weight in a fixed order, their weights, and each row's place, -1 for none.

    What is computed from these alone does not depend on the order of the rows, and counts a row of weight 2 twice.
    """
    weights = X.new_ones(len(X)) if weights is None else weights
    kept = (weights > 0).nonzero()[:, 0]
    rows, place = torch.unique(X[kept], dim=0, return_inverse=True)
    where = torch.full_like(weights, -1, dtype=torch.long)
    where[kept] = place
    return rows, weights.new_zeros(len(rows)).index_add_(0, place, weights[kept]), where
