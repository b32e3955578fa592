"""Neighbours of points, and points that are far from one another."""

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from .._core.blocks import join_blocks, rows_per_block


def nearest_neighbors(
    points: torch.Tensor, n_neighbors: int, queries: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return distances and indices of the nearest of `points`, each (n_queries, n_neighbors), nearest first.

    Without `queries` these are the neighbours of the points themselves, and no point is its own neighbour. On the CPU
    scikit-learn finds them, by a tree in few dimensions; elsewhere they are found among all, in blocks of queries.
    Distances are those of differences, which are precise for points far from the origin.
    """
    center = points.mean(0)
    points = points - center
    queries = None if queries is None else queries - center
    search = _by_scikit_learn if points.device.type == "cpu" else _among_all
    indices = search(points, n_neighbors, queries)
    distances = _distances(points if queries is None else queries, points, indices)
    distances, order = distances.sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


def _by_scikit_learn(points, n_neighbors, queries):
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(points.numpy())
    found = search.kneighbors(None if queries is None else queries.numpy(), return_distance=False)
    return torch.from_numpy(found.astype(np.int64))


def _among_all(points, n_neighbors, queries):
    itself = queries is None
    queries = points if itself else queries
    bytes_per_row = 3 * points.element_size() * len(points)

    def of_block(rows):
        distances = torch.cdist(queries[rows], points)
        if itself:
            row = torch.arange(len(distances), device=points.device)
            distances[row, row + rows.start] = torch.inf
        return distances.topk(n_neighbors, largest=False).indices

    block = rows_per_block("auto", len(queries), bytes_per_row)
    return join_blocks(of_block, len(queries), block, bytes_per_row=bytes_per_row)


def _distances(queries, points, indices):
    """Return the distances of each query to the points whose indices are in its row."""
    bytes_per_row = 2 * points.element_size() * indices.shape[1] * points.shape[1]
    block = rows_per_block("auto", len(queries), bytes_per_row)

    def of_block(rows):
        return torch.linalg.vector_norm(points[indices[rows]] - queries[rows, None], dim=2)

    return join_blocks(of_block, len(queries), block, bytes_per_row=bytes_per_row)


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
