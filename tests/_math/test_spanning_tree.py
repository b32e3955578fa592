"""Minimum spanning trees: the lengths of scipy's single linkage, whatever the points are like."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist, squareform

from sklowrank._math import spanning_tree
from sklowrank._math.spanning_tree import euclidean_tree, tree_of_distances

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
rng = np.random.default_rng(0)
rings = np.repeat([1.0, 3.0, 9.0], 400)[:, None] * (lambda t: np.column_stack([np.cos(t), np.sin(t)]))(
    rng.uniform(0, 2 * np.pi, 1200)
)
POINTS = {
    "two": rng.normal(size=(2, 3)),
    "on a line": rng.normal(size=(40, 1)),
    "cloud": rng.normal(size=(500, 12)),
    "wide": rng.normal(size=(60, 200)),
    "a grid, of equal distances": np.stack(np.meshgrid(range(15), range(15)), -1).reshape(-1, 2).astype(float),
    "copies": np.vstack([rng.normal(size=(60, 3))] * 5 + [np.zeros((150, 3))]),
    "groups": 100 * rng.normal(size=(4, 5))[rng.integers(4, size=900)] + rng.normal(size=(900, 5)),
    "groups of a width of 1e-9": rng.integers(4, size=(400, 1)) + 1e-9 * rng.normal(size=(400, 30)),
    "rings around one another": rings,
    "steps that grow": np.cumsum(1.5 ** np.arange(60))[:, None],
    "far from the origin": rng.normal(size=(200, 4)) + 1e6,
    "large": 1e150 * rng.normal(size=(100, 3)),
    "small": 1e-150 * rng.normal(size=(100, 3)),
}
each = pytest.mark.parametrize("name", POINTS)


def heights(X, metric="euclidean"):
    """The heights of single linkage, of X brought to about 1."""
    unit = 2.0 ** np.frexp(np.abs(X).max())[1]
    return linkage(pdist(X / unit, metric), "single")[:, 2] * unit


def check(tree, X, expected, tolerance=1e-12):
    assert torch.all(tree.lengths.diff() >= 0)
    assert np.abs(tree.lengths.numpy() - expected).max() <= tolerance * expected[-1]
    edges = tree.edges.numpy()
    length = np.linalg.norm((X[edges[:, 0]] - X[edges[:, 1]]) / np.abs(X).max(), axis=1) * np.abs(X).max()
    assert np.allclose(length, tree.lengths.numpy(), rtol=1e-6, atol=1e-12 * expected[-1])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(X), len(X)))
    assert connected_components(graph, directed=False)[0] == 1


@pytest.mark.parametrize("device", DEVICES)
@each
def test_lengths_are_those_of_single_linkage(name, device):
    X = POINTS[name]
    check(euclidean_tree(torch.from_numpy(X).to(device)), X, heights(X))


@each
def test_any_distances(name):
    X = POINTS[name]
    unit = 2.0 ** np.frexp(np.abs(X).max())[1]
    D = torch.from_numpy(squareform(pdist(X / unit))) * unit
    check(tree_of_distances(lambda rows: D[rows], len(X), D.device), X, heights(X))


def test_one_point_has_no_edges():
    tree = euclidean_tree(torch.zeros(1, 3, dtype=torch.float64, device="cpu"))
    assert tree.edges.shape == (0, 2)
    assert tree.lengths.shape == (0,)


@each
def test_block_size_changes_nothing(name, monkeypatch):
    X = torch.from_numpy(POINTS[name])
    expected = euclidean_tree(X)
    monkeypatch.setattr(spanning_tree, "rows_per_block", lambda batch_size, n, size: min(n, 7))
    assert torch.allclose(euclidean_tree(X).lengths, expected.lengths, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["groups", "rings around one another", "groups of a width of 1e-9"])
@pytest.mark.parametrize("few", [0, 64])
def test_large_parts_are_joined_by_nearest_pairs_or_by_comparing_with_all(name, few, monkeypatch):
    """Either way at any size; the default takes pairs where more than a thousand points are in question."""
    monkeypatch.setattr(spanning_tree, "_FEW", few)
    monkeypatch.setattr(spanning_tree, "_MANY", 10)
    called, nearest_pairs = [], spanning_tree._nearest_pairs
    monkeypatch.setattr(spanning_tree, "_nearest_pairs", lambda *args: called.append(1) or nearest_pairs(*args))
    X = POINTS[name]
    check(euclidean_tree(torch.from_numpy(X)), X, heights(X))
    assert bool(called) == bool(few)


@each
def test_order_of_points_changes_no_length(name):
    X = torch.from_numpy(POINTS[name])
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(X)))
    assert torch.allclose(euclidean_tree(X[order]).lengths, euclidean_tree(X).lengths, rtol=1e-6, atol=0)


def test_few_distances_are_computed(monkeypatch):
    """The nearest points are found once; beyond that a few points are compared with all."""
    asked, closest_by = [], spanning_tree._closest_by

    def counted(distances, n, points, k, labels):
        asked.append(len(points))
        return closest_by(distances, n, points, k, labels)

    monkeypatch.setattr(spanning_tree, "_closest_by", counted)
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 3)))
    euclidean_tree(X)
    assert sum(asked) < 400


def test_no_matrix_of_all_distances(monkeypatch):
    largest, cdist = [], torch.cdist

    def measured(*args, **kwargs):
        D = cdist(*args, **kwargs)
        largest.append(D.numel())
        return D

    monkeypatch.setattr(torch, "cdist", measured)
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(6000, 20)))
    tree_of_distances(partial(_to_all, rows), len(rows), rows.device)
    assert max(largest) <= 2**25 / 16


def _to_all(points, rows):
    return torch.cdist(points[rows], points)
