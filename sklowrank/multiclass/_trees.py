"""Trees of labels: distances along their edges, and the nodes between some of them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order


class Tree(NamedTuple):
    """A rooted tree, whose N nodes are numbered so that parents come first and the nodes of a level are consecutive."""

    parent: np.ndarray  # (N,) the root is its own
    weight: np.ndarray  # (N,) length of the edge to the parent
    levels: np.ndarray  # numbers of the first nodes of the levels, and N
    node: np.ndarray  # (m,) the numbers of labels


def tree_edges(edges) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nodes of a tree, sorted, the two ends (N - 1, 2) of its edges among them, and their lengths."""
    if edges is None:
        raise ValueError("metric='tree' needs label_tree: a list of edges (parent, child) or (a, b, weight).")
    edges = [tuple(edge) if isinstance(edge, Iterable) and not isinstance(edge, str) else () for edge in edges]
    if not edges or any(len(edge) not in (2, 3) for edge in edges):
        raise ValueError("label_tree has to be a list of edges (parent, child) or (a, b, weight), one at least.")
    try:
        weights = np.array([edge[2] if len(edge) == 3 else 1.0 for edge in edges], dtype=float)
    except (TypeError, ValueError):
        raise ValueError("label_tree has a weight that is no number. Pass edges (a, b, weight).") from None
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"label_tree has the weight {weights.min():g}. Weights of edges are finite and above 0.")
    ends = [end for edge in edges for end in edge[:2]]
    try:
        nodes = sorted(set(ends))
    except TypeError as error:
        raise ValueError(f"label_tree has nodes that cannot be sorted: {error}. Pass nodes of one type.") from None
    at = {node: i for i, node in enumerate(nodes)}
    index = np.array([at[end] for end in ends]).reshape(-1, 2)
    _check_tree(index, len(nodes))
    return np.array(nodes), index, weights


def _check_tree(ends, n):
    """Raise a ValueError where edges make no tree of n nodes."""
    if len(ends) > n - 1:
        raise ValueError(f"label_tree has {len(ends)} edges between {n} nodes, hence a ring. A tree has {n - 1}.")
    reached = len(breadth_first_order(_graph(ends, n), 0, directed=False, return_predecessors=False))
    if reached < n:
        raise ValueError(f"label_tree is not connected: from one node {reached} of {n} are reached. Add edges.")


def _graph(ends, n):
    return csr_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n))


def rooted_tree(ends, weights, labels, root) -> Tree:
    """Return the tree of some edges, with `labels` (m,) among its nodes."""
    n = len(ends) + 1
    order, before = breadth_first_order(_graph(ends, n), root, directed=False)
    number = np.empty(n, dtype=np.int64)
    number[order] = np.arange(n)
    parent = number[np.where(order == root, root, before[order])]
    a, b = number[ends].T
    weight = np.zeros(n)
    weight[np.maximum(a, b)] = weights  # a child comes after its parent
    levels = [0, 1]
    while levels[-1] < n:
        levels.append(1 + int(np.searchsorted(parent[1:], levels[-1])))
    return Tree(parent, weight, np.array(levels), number[labels])


def _below(tree: Tree) -> Iterator[slice]:
    """Yield the levels below the root, from above."""
    for start, stop in zip(tree.levels[1:-1], tree.levels[2:]):
        yield slice(start, stop)


def _holds(tree: Tree, nodes: np.ndarray) -> np.ndarray:
    """Return whether each subtree (N,) has one of some nodes."""
    there = np.zeros(len(tree.parent), dtype=bool)
    there[nodes] = True
    for level in reversed(list(_below(tree))):
        there[tree.parent[level][there[level]]] = True
    return there


def tree_distances(tree: Tree, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the distances (k, t) of nodes to others. Time O(k N'), N' the size of the tree above all of them."""
    tree, sources, targets = _pruned(tree, sources, targets)
    D = np.full((len(sources), len(tree.parent)), np.inf)
    rows, at, length = np.arange(len(sources)), sources.copy(), np.zeros(len(sources))
    for _ in range(len(tree.levels)):  # to the root, which is its own parent
        D[rows, at] = length
        length, at = length + tree.weight[at], tree.parent[at]
    for level in _below(tree):
        D[:, level] = np.minimum(D[:, level], D[:, tree.parent[level]] + tree.weight[level])
    return D[:, targets]


def _pruned(tree, sources, targets):
    """Return the tree without what is below all of some nodes, and the numbers of these nodes in it."""
    there = _holds(tree, np.concatenate([sources, targets]))
    if there.all():
        return tree, sources, targets
    number = np.cumsum(there) - 1
    levels = np.unique(np.append(0, np.cumsum(there))[tree.levels])
    smaller = Tree(number[tree.parent[there]], tree.weight[there], levels, tree.node[:0])
    return smaller, number[sources], number[targets]


def pair_distances(tree: Tree, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distances (n,) of nodes `a` (n,) to nodes `b` (n,)."""
    pairs, at = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
    a, b = pairs.copy()
    length = np.zeros(len(a))
    while (apart := a != b).any():
        lower = np.where(a > b, a, b)[apart]  # no ancestor of the other one: its parent has a smaller number
        length[apart] += tree.weight[lower]
        a[apart], b[apart] = np.minimum(a, b)[apart], tree.parent[lower]
    return length[at.ravel()]


def tree_locus(tree: Tree, observed: np.ndarray) -> np.ndarray:
    """Return whether each node (N,) is on a path between observed ones, of which the root is one."""
    return _holds(tree, observed)


def next_nodes(tree: Tree, observed: np.ndarray, n_nodes: int, allowed: np.ndarray) -> list[int]:
    """Return the allowed nodes that are farthest from the paths between observed ones and those taken before."""
    inside, taken = tree_locus(tree, observed), []
    while len(taken) < n_nodes:
        away = np.zeros(len(tree.parent))
        for level in _below(tree):
            away[level] = np.where(inside[level], 0.0, away[tree.parent[level]] + tree.weight[level])
        away = away[allowed]
        if not away.any():
            break
        node = int(allowed[np.argmax(away)])
        taken.append(node)
        while not inside[node]:
            inside[node], node = True, tree.parent[node]
    return taken
