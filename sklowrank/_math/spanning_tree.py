"""Minimum spanning trees of points, without the matrix of their distances."""

import math
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from .._core.blocks import in_blocks, rows_per_block
from .distinct import distinct_rows
from .neighbors import nearest_neighbors

_N_NEIGHBORS = 8  # that are listed of each point before the first round
_FEW = 16  # parts, of which all pairs are compared
_MANY = 1000  # points that are not compared with all others where few parts are left
_CLOSE = 1e-5  # distances below this share of the largest norm are not computed from inner products
Closest = Callable[[torch.Tensor, int, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Tree(NamedTuple):
    """The edges of a spanning tree of n points, shortest first, on the CPU."""

    edges: torch.Tensor  # (n - 1, 2)
    lengths: torch.Tensor  # (n - 1,), in float64


def euclidean_tree(points: torch.Tensor) -> Tree:
    """Return the minimum spanning tree of points (n, d) by their Euclidean distances, in float64.

    Copies of a point are joined by edges of length zero. Distances come from inner products of centred points and,
    where they are below 1e-5 of the largest norm, from differences; the lengths of the tree are all from differences.
    """
    first, copy_of = distinct_rows(points)
    unit = 2.0 ** math.frexp(float(points.abs().max()))[1]  # a power of two changes no digit
    Z = points[first] / unit
    Z = Z - Z.mean(0)
    euclidean = partial(_listed_points, Z), partial(_nearest_pairs, Z)
    tree = _boruvka(partial(_closest_points, Z), len(Z), points.device, *euclidean)
    copies = (first[copy_of] != torch.arange(len(points), device=points.device)).nonzero()[:, 0]
    zero = torch.column_stack([first[copy_of[copies]], copies]).cpu()
    edges = torch.cat([zero, first.cpu()[tree.edges]])
    return Tree(edges, torch.cat([torch.zeros(len(zero), dtype=torch.float64, device="cpu"), tree.lengths * unit]))


def tree_of_distances(distances: Callable[[torch.Tensor], torch.Tensor], n: int, device: torch.device) -> Tree:
    """Return the minimum spanning tree of n points by any symmetric distances.

    `distances` gives those of some points, listed by index, to all: (n_listed, n), in float64 and in memory of their
    own. It is called for blocks.
    """
    return _boruvka(partial(_closest_by, distances, n), n, device)


# Boruvka's algorithm


def _boruvka(closest: Closest, n: int, device: torch.device, listed: Any = None, nearest_pairs: Any = None) -> Tree:
    """Join each part with the part that is closest to it, until one is left.

    `closest` gives for some points the k closest that have another label, nearest first. They are listed of each point
    once. An edge out of a part is the shortest one if no point of the part, of whose list all are in the part, has its
    last listed neighbour closer than that edge. Where this holds for few parts, the points in question are compared
    with all others, but for those of the largest part: it need not find an edge of its own. Few large parts are joined
    by the nearest pairs of points of two parts instead, where a function for these is given.
    """
    rows = torch.arange(n, device=device)
    labels, n_parts, k = rows, n, min(_N_NEIGHBORS, n - 1)
    found: list[Tree] = []
    if n > 1:
        lengths, indices = listed(k) if listed else closest(rows, k, labels)
        bound = torch.full_like(lengths[:, 0], torch.inf) if k == n - 1 else lengths[:, -1].clone()
    while n_parts > 1:
        own = labels[:, None].expand_as(indices)
        row, place = (labels[indices] != own).nonzero(as_tuple=True)
        value, target = lengths[row, place], indices[row, place]
        best = value.new_full((n_parts,), torch.inf).scatter_reduce(0, labels[row], value, "amin")
        best = best.scatter_reduce(0, labels[target], value, "amin")
        left = torch.zeros(n, dtype=torch.bool, device=device).index_fill(0, row, True)
        doubtful = ~left & (bound < best[labels])
        known = torch.ones(n_parts, dtype=torch.bool, device=device).index_fill(0, labels[doubtful], False)
        if 2 * int(known.sum()) < n_parts:
            largest = torch.bincount(labels, minlength=n_parts).argmax()
            asked = (doubtful & (labels != largest)).nonzero()[:, 0]
            if nearest_pairs and n_parts <= _FEW and len(asked) > _MANY:
                pairs = nearest_pairs(labels, n_parts)
                order = pairs.lengths.argsort(stable=True)
                joined, _, _ = _joined(pairs.edges[order], labels, n_parts)
                found.append(Tree(pairs.edges[order][joined], pairs.lengths[order][joined]))
                break
            nearest, index = closest(asked, 1, labels)
            lengths[asked], indices[asked, 0], bound[asked] = torch.inf, index[:, 0], nearest[:, 0]
            lengths[asked, 0] = nearest[:, 0]
            continue
        shortest = torch.cat([value == best[labels[row]], value == best[labels[target]]])
        part = torch.cat([labels[row], labels[target]])
        edge = torch.arange(len(row), device=device).repeat(2)
        chosen = torch.full((n_parts,), len(row), device=device)
        chosen = chosen.scatter_reduce(0, part[shortest], edge[shortest], "amin")[known].unique()
        joined, labels, n_parts = _joined(torch.column_stack([row[chosen], target[chosen]]), labels, n_parts)
        chosen = chosen.cpu()[joined].to(device)
        found.append(Tree(torch.column_stack([row[chosen], target[chosen]]).cpu(), value[chosen].cpu()))
    if not found:
        return Tree(torch.zeros((0, 2), dtype=torch.int64), torch.zeros(0, dtype=torch.float64))
    edges, values = torch.cat([part.edges for part in found]), torch.cat([part.lengths for part in found])
    order = values.argsort(stable=True)
    return Tree(edges[order], values[order])


def _joined(edges, labels, n_parts):
    """Return which edges between parts make no cycle, the new labels of the points, and their number.

    A cycle is closed by edges of equal length alone: any one of them may be left out.
    """
    a, b = np.sort(labels[edges].cpu().numpy(), axis=1).T
    pairs, which = np.unique(a * n_parts + b, return_index=True)
    graph = coo_array((np.ones(len(pairs)), (a[which], b[which])), shape=(n_parts, n_parts)).tocsr()
    graph.data = which + 1.0
    forest = minimum_spanning_tree(graph)
    n_left, of_part = connected_components(forest, directed=False)
    kept = torch.from_numpy(np.sort(forest.data).astype(np.int64) - 1)
    return kept, torch.from_numpy(of_part.astype(np.int64)).to(labels.device)[labels], n_left


# The closest points with another label


def _closest_by(distances, n, asked, k, labels):
    """Return them by a function that gives blocks of distances."""

    def of_block(part):
        D = distances(asked[part]).masked_fill_(labels[None] == labels[asked[part], None], torch.inf)
        return D.topk(k, dim=1, largest=False) if k > 1 else D.min(1, keepdim=True)

    return _blocks(of_block, len(asked), 24 * n)


def _closest_points(Z, asked, k, labels):
    """Return them by Euclidean distances, in float64."""
    mode = "use_mm_for_euclid_dist"
    found = _closest_by(lambda rows: torch.cdist(Z[rows], Z, compute_mode=mode), len(Z), asked, k, labels)
    return _from_differences(Z, asked, labels, *found)


def _listed_points(Z, k):
    """Return the closest of each point."""
    rows = torch.arange(len(Z), device=Z.device)
    return _from_differences(Z, rows, rows, *nearest_neighbors(Z, k))


def _from_differences(Z, asked, labels, lengths, indices):
    """Return the lengths of what was found from differences; where points are close, also search by differences."""
    close = (lengths[:, 0] < _CLOSE * _largest_norm(Z)).nonzero()[:, 0]
    k, mode = lengths.shape[1], "donot_use_mm_for_euclid_dist"
    if len(close):
        exact = _closest_by(lambda rows: torch.cdist(Z[rows], Z, compute_mode=mode), len(Z), asked[close], k, labels)
        indices = indices.index_copy(0, close, exact[1])

    def of_block(part):
        return (Z[indices[part]] - Z[asked[part], None]).square().sum(2).sqrt().sort(1)

    lengths, order = _blocks(of_block, len(asked), 24 * k * Z.shape[1])
    return lengths, indices.gather(1, order)


def _nearest_pairs(Z, labels, n_parts):
    """Return for each two parts the points that are nearest to one another, and their distances, on the CPU."""
    parts = [(labels == part).nonzero()[:, 0] for part in range(n_parts)]
    edges = torch.stack([_nearest_pair(Z, a, b) for a, b in combinations(parts, 2)])
    lengths = torch.linalg.vector_norm(Z[edges[:, 0]] - Z[edges[:, 1]], dim=1)
    return Tree(edges.cpu(), lengths.cpu())


def _nearest_pair(Z, a, b):
    """Return the indices of the points, one of `a` and one of `b`, that are nearest to one another.

    Points that are too far from all of the other part along the direction between the means are left out: the smallest
    distance is at most that of a pair found by going from nearest point to nearest point.
    """
    along = torch.nn.functional.normalize(Z[b].mean(0) - Z[a].mean(0), dim=0)
    of_a, of_b = Z[a] @ along, Z[b] @ along
    i = a[of_a.argmax()]
    for _ in range(3):
        j = b[(Z[b] - Z[i]).square().sum(1).argmin()]
        i = a[(Z[a] - Z[j]).square().sum(1).argmin()]
    most = (1 + _CLOSE) * torch.linalg.vector_norm(Z[i] - Z[j])
    a, b = a[of_a >= of_b.min() - most], b[of_b <= of_a.max() + most]
    norms, others, bytes_per_row = Z[b].square().sum(1), -2 * Z[b].T, 16 * len(b)

    def of_block(rows):
        return torch.addmm(norms, Z[a[rows]], others).min(1)

    def of_block_by_differences(rows):
        return torch.cdist(Z[a[rows]], Z[b], compute_mode="donot_use_mm_for_euclid_dist").min(1)

    value, index = _blocks(of_block, len(a), bytes_per_row)
    i = (value + Z[a].square().sum(1)).argmin()
    if torch.linalg.vector_norm(Z[a[i]] - Z[b[index[i]]]) < _CLOSE * _largest_norm(Z):
        value, index = _blocks(of_block_by_differences, len(a), bytes_per_row)
        i = value.argmin()
    return torch.stack([a[i], b[index[i]]])


def _largest_norm(Z):
    return float(Z.square().sum(1).max()) ** 0.5


def _blocks(of_block, n_rows, bytes_per_row):
    """Return two results of blocks of rows, each as one tensor."""
    block = rows_per_block("auto", n_rows, bytes_per_row)
    values, indices = zip(*in_blocks(of_block, n_rows, block, bytes_per_row=bytes_per_row))
    return torch.cat(values), torch.cat(indices)
