"""Neighbours of points, and points that are far from one another."""

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from .._core.blocks import in_blocks, rows_per_block


def nearest_neighbors(
    points: torch.Tensor, n_neighbors: int, queries: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return distances and indices of the nearest of `points`, each (n_queries, n_neighbors), nearest first.

    Without `queries` these are the neighbours of the points themselves, and no point is its own neighbour. On the CPU
    scikit-learn finds them, by a tree in few dimensions; elsewhere they are found among all, in blocks of queries.
    """
    if points.device.type == "cpu":
        found = NearestNeighbors(n_neighbors=n_neighbors).fit(points.numpy())
        distances, indices = found.kneighbors(None if queries is None else queries.numpy())
        return torch.from_numpy(distances).to(points.dtype), torch.from_numpy(indices.astype(np.int64))
    itself = queries is None
    queries = points if queries is None else queries
    bytes_per_row = 3 * points.element_size() * len(points)

    def of_block(rows):
        distances = torch.cdist(queries[rows], points, compute_mode="donot_use_mm_for_euclid_dist")
        if itself:
            row = torch.arange(len(distances), device=points.device)
            distances[row, row + rows.start] = torch.inf
        return distances.topk(n_neighbors, largest=False, sorted=True)

    block = rows_per_block("auto", len(queries), bytes_per_row)
    found = list(in_blocks(of_block, len(queries), block, bytes_per_row=bytes_per_row))
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def farthest_points(points: torch.Tensor, n_points: int, first: int) -> torch.Tensor:
    """Return the indices of `n_points` points, each the farthest from those before it, beginning with `first`.

    The time is that of n_points × n_samples distances, the memory that of n_samples.
    """
    chosen = torch.empty(n_points, dtype=torch.int64, device=points.device)
    nearest = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)
    latest = torch.as_tensor(first, device=points.device)
    for i in range(n_points):
        chosen[i] = latest
        nearest = torch.minimum(nearest, (points - points[latest]).square().sum(1))
        latest = nearest.argmax()
    return chosen
