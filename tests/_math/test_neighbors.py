"""Neighbours and farthest points against plain distances; both searches give the same."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from sklowrank._math import neighbors
from sklowrank._math.neighbors import farthest_points, nearest_neighbors


@pytest.fixture(params=["_by_scikit_learn", "_among_all"])
def search(request, monkeypatch):
    """Let both searches work on the CPU."""
    monkeypatch.setattr(neighbors, "_by_scikit_learn", getattr(neighbors, request.param))


@pytest.mark.usefixtures("search")
@pytest.mark.parametrize("n_features", [3, 30])  # a tree, and products of all rows
def test_neighbors_far_from_the_origin(n_features):
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(90, n_features)), rng.normal(size=(7, n_features))
    expected = np.sort(cdist(X, X), axis=1)[:, 1:6]
    distances, indices = nearest_neighbors(torch.from_numpy(X + 1e6), 5)
    np.testing.assert_allclose(distances.numpy(), expected, rtol=1e-8)
    np.testing.assert_allclose(np.take_along_axis(cdist(X, X), indices.numpy(), 1), expected, rtol=1e-12)

    distances, indices = nearest_neighbors(torch.from_numpy(X + 1e6), 4, torch.from_numpy(new + 1e6))
    np.testing.assert_allclose(distances.numpy(), np.sort(cdist(new, X), axis=1)[:, :4], rtol=1e-8)
    np.testing.assert_array_equal(indices.numpy(), np.argsort(cdist(new, X), axis=1)[:, :4])


@pytest.mark.usefixtures("search")
def test_a_copy_is_a_neighbor_but_no_point_is_its_own():
    X = torch.tensor([[0.0], [0.0], [1.0], [5.0]], dtype=torch.float64)
    distances, indices = nearest_neighbors(X, 1)
    assert distances.ravel().tolist() == [0.0, 0.0, 1.0, 4.0]
    assert indices[:2].ravel().tolist() == [1, 0]
    assert indices[3, 0] == 2


def test_farthest_points():
    X = torch.tensor([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    assert farthest_points(X, 4, first=0).tolist() == [0, 2, 3, 1]
