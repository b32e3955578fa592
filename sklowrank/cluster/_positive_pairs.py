"""Positive pairs: two views of each row, which are to get the same features."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

_NEIGHBOR_ROWS = 5000  # of more rows, neighbours are sought within random parts of this size: else views are too near
_MASKED = 0.3  # share of cells that view "mask" takes from other rows


def some_rows(n_rows: int, count: int, generator) -> torch.Tensor:
    """Return the indices of `count` random rows."""
    return torch.randperm(n_rows, generator=generator, device="cpu", dtype=torch.int64)[:count]


def make_views(X, positives, n_neighbors: int, noise: float, generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from indices of rows to two views of them, (2 n_rows, n_features), above one another.

    The first view is the row with noise, the second, with noise too, is what `positives` names: a near row, the row
    itself, the row with some cells from others, or what the user's function makes of it. All draws come from
    `generator`.
    """
    n, D = X.shape
    near = _neighbors(X, n_neighbors, generator) if positives == "neighbors" else None

    def noisy(A):
        draws = torch.randn(A.shape, generator=generator, device="cpu", dtype=torch.float32)
        return A + noise * draws.to(A.device)

    def second(rows, batch):
        if callable(positives):
            return torch.as_tensor(positives(batch, rows, generator), device=X.device).to(torch.float32)
        if positives == "neighbors":
            pick = torch.randint(near.shape[1], (len(rows), 1), generator=generator, device="cpu", dtype=torch.int64)
            return X[near[rows].gather(1, pick)[:, 0].to(X.device)]
        if positives == "mask":
            donors = torch.randint(n, (len(rows), D), generator=generator, device="cpu", dtype=torch.int64)
            hidden = torch.rand(len(rows), D, generator=generator, device="cpu", dtype=torch.float32) < _MASKED
            return torch.where(hidden.to(X.device), X.gather(0, donors.to(X.device)), batch)
        return batch

    def views(rows):
        batch = X[rows.to(X.device)]
        other = second(rows, batch)
        if other.shape != batch.shape:
            raise ValueError(f"positives gave shape {tuple(other.shape)} for a batch of shape {tuple(batch.shape)}.")
        return noisy(torch.cat([batch, other]))

    return views


def _neighbors(X, n_neighbors, generator):
    """Return the indices (n, n_neighbors) of the nearest other rows, of those in the same random part of the rows."""
    n = len(X)
    n_parts = -(-n // _NEIGHBOR_ROWS)
    k = max(1, min(n_neighbors, n // n_parts - 1))
    order = some_rows(n, n, generator) if n > _NEIGHBOR_ROWS else torch.arange(n, device="cpu", dtype=torch.int64)
    near = torch.zeros(n, k, dtype=torch.int64, device="cpu")
    for part in order.tensor_split(n_parts):
        rows = X[part.to(X.device)].cpu().numpy()
        found = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors(return_distance=False)
        near[part] = part[torch.from_numpy(found.astype(np.int64))]
    return near
