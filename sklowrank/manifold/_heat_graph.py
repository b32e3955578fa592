"""Graphs of neighbours: affinities of rows, weights of new rows, and landmarks."""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components, dijkstra
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors

from .._math.graphs import csr_from
from .._math.neighbors import farthest_points, nearest_neighbors

_FARTHEST = 1e100  # units: squares of larger numbers would overflow
_TIES = 10, 100  # neighbours listed beyond n_neighbors: at first, and where more are as far away as the last one
_TIE = 1 + 1e-9  # distances up to this ratio are equal


class GraphOptions(NamedTuple):
    """What says which rows are connected, and by which weights."""

    graph: str
    n_neighbors: int
    decay: float


class RowGraph(NamedTuple):
    """A connected graph of rows."""

    affinity: sp.csr_array  # (n, n), symmetric, with an empty diagonal
    n_connected: int  # connected components, before they were joined
    cut_ties: bool = False  # whether the order of rows chose among neighbours at one distance


def scaled(rows: Any, like: Any = None) -> Any:
    """Return rows (tensor or CSR) in float64, in units in which no square overflows; dense ones are centred.

    Units and centre are those of `like`, the rows of the fit. Entries beyond 1e100 units count as 1e100.
    """
    like = rows if like is None else like
    if sp.issparse(rows):
        points = rows.astype(np.float64)
        unit = _unit(float(abs(like).max()) if like.nnz else 0.0)
        with np.errstate(over="ignore"):
            points.data = (points.data / unit).clip(-_FARTHEST, _FARTHEST)
        return points
    unit = _unit(float(like.abs().max()))
    return (rows.double() / unit).clamp(-_FARTHEST, _FARTHEST) - (like.double() / unit).mean(0)


def _unit(largest):
    return 2.0 ** math.frexp(largest)[1] if largest > 0 else 1.0


def find_neighbors(points: Any, n_neighbors: int, queries: Any = None, device: Any = None):
    """Return distances and indices, as :func:`nearest_neighbors` does, of points that may be a CSR matrix."""
    if not sp.issparse(points):
        return nearest_neighbors(points, n_neighbors, queries)
    distances, indices = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors(queries)
    return torch.from_numpy(distances).to(device), torch.from_numpy(indices.astype(np.int64)).to(device)


def tied_neighbors(points: Any, n_neighbors: int, most: int, queries: Any = None, device: Any = None):
    """Return distances and indices of neighbours with those as far away as the last of `n_neighbors`, and if all.

    At most `most` are listed, and at most 100 beyond `n_neighbors`.
    """
    for ties in _TIES:
        listed = min(most, n_neighbors + ties)
        distances, indices = find_neighbors(points, listed, queries, device)
        complete = listed == most or bool((distances[:, -1] > distances[:, n_neighbors - 1] * _TIE).all())
        if complete:
            break
    return distances, indices, complete


def row_graph(points: Any, options: GraphOptions, device: Any) -> RowGraph:
    """Return the graph of nearest neighbours of points (n, d), with components joined by their shortest edges."""
    n, k = points.shape[0], options.n_neighbors
    distances, indices, complete = tied_neighbors(points, k, n - 1, device=device)
    directed = csr_from(indices, neighbor_weights(distances, options), n)
    both = directed.maximum(directed.T) if options.graph == "knn" else (directed + directed.T) / 2
    graph = _joined(sp.csr_array(both), points, distances[:, k - 1].cpu().numpy(), options)
    return graph._replace(cut_ties=not complete)


def neighbor_weights(distances: torch.Tensor, options: GraphOptions) -> torch.Tensor:
    """Return the weights of neighbours by their ascending distances; those beyond the last of `n_neighbors` have 0.

    Neighbours as far away as the last one count too: among them the order of rows would choose.
    """
    bandwidths = distances[:, options.n_neighbors - 1 : options.n_neighbors]
    within = distances <= bandwidths * _TIE
    if options.graph == "knn":
        return within.to(distances.dtype)
    positive = bandwidths[bandwidths > 0]
    least = 1e-12 * float(positive.median()) if len(positive) else 1.0
    return torch.exp(-((distances / bandwidths.clamp(min=least)) ** options.decay)) * within


def _joined(affinity, points, bandwidths, options):
    """Join connected components by the edges of a minimum spanning tree of them.

    The weight of an edge of length d is that of the last neighbour, times (bandwidth / d)^2: weights of a difference
    quotient fall like this. The median of the positive bandwidths counts as the least one, or where there is none the
    median length of the edges: the weight of an edge is never 0.
    """
    count, component = connected_components(affinity, directed=False)
    n_connected = count
    if isinstance(points, torch.Tensor) and count > 1:
        points = points.cpu().numpy()
    positive = bandwidths[bandwidths > 0]  # rows with many copies have none
    typical = float(np.median(positive)) if len(positive) else 0.0
    while count > 1:
        largest = np.bincount(component).argmax()
        edges = [_shortest_edge(points, component == c) for c in range(count) if c != largest]
        i, j, length = (np.array(part) for part in zip(*edges))
        typical = typical or float(np.median(length))
        reach = np.maximum(np.maximum(bandwidths[i], bandwidths[j]), typical)
        share = np.divide(reach, length, out=np.ones_like(length), where=length > reach) ** 2
        weight = share if options.graph == "knn" else share / math.e
        new = sp.csr_array(sp.coo_array((weight, (i, j)), shape=affinity.shape))
        affinity = sp.csr_array(affinity.maximum(new).maximum(new.T))
        count, component = connected_components(affinity, directed=False)
    return RowGraph(affinity, int(n_connected))


def _shortest_edge(points, inside):
    """Return the ends and the length of the shortest edge between points that are inside and those that are not."""
    ours, others = np.flatnonzero(inside), np.flatnonzero(~inside)
    nearest, distance = pairwise_distances_argmin_min(points[ours], points[others])
    i = distance.argmin()
    return ours[i], others[nearest[i]], distance[i]


def given_graph(affinity: Any) -> RowGraph:
    """Return the graph of an affinity matrix, dense or sparse.

    Raises
    ------
    ValueError
        If it is not square, not symmetric, has negative entries, or is not connected.
    """
    affinity = sp.csr_array(affinity).astype(np.float64)
    n = affinity.shape[0]
    if affinity.shape[1] != n:
        raise ValueError(f"X has shape {affinity.shape}, but graph='precomputed' needs a square affinity matrix.")
    if affinity.nnz and affinity.data.min() < 0:
        least = f"{affinity.data.min():.3g}"
        raise ValueError(f"X has negative entries, down to {least}, but graph='precomputed' needs affinities from 0.")
    largest = affinity.max() if affinity.nnz else 0.0
    gap = abs(affinity - affinity.T).max() if affinity.nnz else 0.0
    if gap > 1e-8 * max(largest, 1e-300):
        raise ValueError(
            f"X is not symmetric: entries differ from those of its transpose by up to {gap:.3g}. Pass (X + X.T) / 2."
        )
    affinity = sp.csr_array((affinity + affinity.T) / 2)
    affinity.setdiag(0)
    affinity.eliminate_zeros()
    count, _ = connected_components(affinity, directed=False)
    if count > 1:
        raise ValueError(
            f"X is the affinity matrix of a graph with {count} connected components, between which no distance is "
            "defined. Connect them, or pass each of them alone."
        )
    return RowGraph(affinity, 1)


def new_row_weights(points: Any, queries: Any, options: GraphOptions, device: Any) -> sp.csr_array:
    """Return the weights (n_queries, n) by which new rows average the heat of their neighbours; rows sum to 1.

    They are those of the graph over the squared distance, so that a row that comes near a row of the fit gets its heat.
    """
    n = points.shape[0]
    distances, indices, _ = tied_neighbors(points, options.n_neighbors, n, queries, device)
    reach = distances[:, options.n_neighbors - 1 : options.n_neighbors]
    ratio = distances / torch.where(reach > 0, reach, 1.0)
    weights = neighbor_weights(distances, options) / ratio.clamp(min=1e-8).square()
    return csr_from(indices, weights / weights.sum(1, keepdim=True), n)


def choose_landmarks(points: Any, graph: RowGraph, n_landmarks: int) -> torch.Tensor:
    """Return ascending indices of rows, each the farthest from those before it; the first is farthest from the mean.

    Without points, where the affinity was given, lengths of paths take the place of distances; an edge is as long as
    the inverse of its weight.
    """
    n = graph.affinity.shape[0]
    if n_landmarks >= n:
        return torch.arange(n, device="cpu")
    if isinstance(points, torch.Tensor):
        first = int(points.square().sum(1).argmax())
        return farthest_points(points, n_landmarks, first).cpu().sort().values
    distances_to = _distances_to(points) if points is not None else _paths_to(graph.affinity)
    chosen, nearest = [], distances_to(None)
    for _ in range(n_landmarks):
        chosen.append(int(nearest.argmax()))
        distances = distances_to(chosen[-1])
        nearest = np.minimum(nearest, distances) if len(chosen) > 1 else distances
    return torch.tensor(chosen, device="cpu").sort().values


def _distances_to(points):
    """Return a function from the index of a row of a CSR matrix to squared distances to it; None is the mean."""
    norms = np.asarray(points.multiply(points).sum(1)).ravel()
    mean = np.asarray(points.mean(0)).ravel()

    def distances_to(row):
        other = mean if row is None else points[[row]].toarray()[0]
        return norms - 2 * (points @ other) + other @ other

    return distances_to


def _paths_to(affinity):
    """Return a function from a vertex to the lengths of paths to it; None gives minus the degrees, for an outer one."""
    lengths = affinity.copy()
    lengths.data = 1 / lengths.data
    degrees = np.asarray(affinity.sum(1)).ravel()
    return lambda row: -degrees if row is None else dijkstra(lengths, directed=False, indices=row)
