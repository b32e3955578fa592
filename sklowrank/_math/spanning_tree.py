"""Minimum spanning trees of points, without the matrix of their distances."""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from .._core.blocks import join_blocks, rows_per_block
from .distinct import distinct_rows
from .linalg import power_of_two
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
    unit = power_of_two(points.abs().max())
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

    `closest` gives for some points the k closest that have another label, nearest first; `listed` does for all points.
    They are listed of each point once. Where the shortest edge out of a part is not known from the lists for more than
    half of the parts, the points in question are compared with all others, but for those of the largest part: it need
    not find an edge of its own. Few large parts are joined by `nearest_pairs` of points of two parts instead, if given.
    """
    rows = torch.arange(n, device=device)
    labels, n_parts, k = rows, n, min(_N_NEIGHBORS, n - 1)
    none = torch.column_stack([rows, rows])[:0].cpu()
    found = [Tree(none, none[:, 0].double())]
    if n > 1:
        lengths, indices = listed(k) if listed else closest(rows, k, labels)
        lists = _Lists(lengths, indices, k == n - 1)
    while n_parts > 1:
        edges, known, doubtful = lists.shortest_edges(labels, n_parts)
        if 2 * int(known.sum()) >= n_parts:
            joined, labels, n_parts = _joined(edges, labels, n_parts)
            found.append(joined)
            continue
        largest = torch.bincount(labels, minlength=n_parts).argmax()
        asked = (doubtful & (labels != largest)).nonzero()[:, 0]
        if nearest_pairs and n_parts <= _FEW and len(asked) > _MANY:
            joined, labels, n_parts = _joined(nearest_pairs(labels, n_parts), labels, n_parts)
            found.append(joined)
        else:
            lists.replace(asked, *closest(asked, 1, labels))
    edges, lengths = (torch.cat(part) for part in zip(*found))
    order = lengths.argsort(stable=True)
    return Tree(edges[order], lengths[order])


class _Lists:
    """The closest points of each point, and a bound from below on the distance to all that are not listed."""

    def __init__(self, lengths, indices, complete):
        self.lengths, self.indices = lengths.clone(), indices.clone()
        self.bound = torch.full_like(lengths[:, 0], torch.inf) if complete else lengths[:, -1].clone()

    def replace(self, points, lengths, indices):
        """List a single neighbour of some points, the closest one in another part."""
        self.lengths[points], self.indices[points] = torch.inf, points[:, None]
        self.lengths[points, 0], self.indices[points, 0] = lengths[:, 0], indices[:, 0]
        self.bound[points] = lengths[:, 0]

    def shortest_edges(self, labels, n_parts):
        """Return an edge out of each part that is known to be its shortest, which parts these are, and doubtful points.

        A point is in doubt if all that it lists are in its own part, and others may be closer than the part's edge.
        """
        n, device = len(labels), labels.device
        point, place = (labels[self.indices] != labels[:, None]).nonzero(as_tuple=True)
        length, target = self.lengths[point, place], self.indices[point, place]
        part, edge = torch.cat([labels[point], labels[target]]), torch.arange(len(point), device=device).repeat(2)
        best = length.new_full((n_parts,), torch.inf).scatter_reduce(0, part, length.repeat(2), "amin")
        lists_another = torch.zeros(n, dtype=torch.bool, device=device).index_fill(0, point, True)
        doubtful = ~lists_another & (self.bound < best[labels])
        known = torch.ones(n_parts, dtype=torch.bool, device=device).index_fill(0, labels[doubtful], False)
        shortest = length.repeat(2) == best[part]
        chosen = torch.zeros(n_parts, dtype=torch.int64, device=device)
        chosen = chosen.scatter_reduce(0, part[shortest], edge[shortest], "amin", include_self=False)[known].unique()
        return Tree(torch.column_stack([point[chosen], target[chosen]]), length[chosen]), known, doubtful


def _joined(tree, labels, n_parts):
    """Return those edges between parts that close no cycle, the new labels of the points, and their number.

    Where lengths differ, the longest edge of a cycle is left out.
    """
    order = tree.lengths.argsort(stable=True)
    edges, lengths = tree.edges[order].cpu(), tree.lengths[order].cpu()
    a, b = np.sort(labels.cpu()[edges].numpy(), axis=1).T
    which = np.unique(a * n_parts + b, return_index=True)[1]
    graph = coo_array((which + 1.0, (a[which], b[which])), shape=(n_parts, n_parts)).tocsr()
    forest = minimum_spanning_tree(graph)
    n_left, of_part = connected_components(forest, directed=False)
    kept = torch.from_numpy(np.sort(forest.data).astype(np.int64) - 1)
    labels = torch.from_numpy(of_part.astype(np.int64)).to(labels.device)[labels]
    return Tree(edges[kept], lengths[kept]), labels, n_left


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
    """Return for each two parts the points that are nearest to one another, and their distances."""
    parts = [(labels == part).nonzero()[:, 0] for part in range(n_parts)]
    edges = torch.stack([_nearest_pair(Z, a, b) for a, b in combinations(parts, 2)])
    return Tree(edges, torch.linalg.vector_norm(Z[edges[:, 0]] - Z[edges[:, 1]], dim=1))


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
    return join_blocks(of_block, n_rows, rows_per_block("auto", n_rows, bytes_per_row), bytes_per_row=bytes_per_row)
