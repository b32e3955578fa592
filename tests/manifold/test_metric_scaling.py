"""Metric scaling: exact on flat points, SMACOF against scikit-learn's and its optimality, places of further points."""

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.manifold import smacof

from sklowrank.manifold import _metric_scaling as scaling

RNG = np.random.RandomState(0)


def flat(n, p=2):
    return RNG.randn(n, p)


def crooked(n):
    """Distances of points in six dimensions, which no plane has."""
    X = RNG.randn(n, 6)
    return cdist(X, X)


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array))


def last(steps, n):
    for _ in range(n):
        step = next(steps)
    return step


def test_classical_scaling_finds_flat_points_again():
    for n in (50, 300):  # by all eigenvectors, and by Lanczos' method
        X = flat(n)
        E = scaling.classical_scaling(tensor(cdist(X, X)), 2, torch.randn(n, dtype=torch.float64)).numpy()
        np.testing.assert_allclose(cdist(E, E), cdist(X, X), atol=1e-7)
        wide = scaling.classical_scaling(tensor(cdist(X, X)), 3, torch.randn(n, dtype=torch.float64))
        assert wide[:, 2].abs().max() < 1e-3


def test_classical_scaling_of_large_matrices_is_that_of_small_ones(monkeypatch):
    D = crooked(250)
    iterated = scaling.classical_scaling(tensor(D), 2, torch.randn(250, dtype=torch.float64))
    monkeypatch.setattr(scaling, "_SMALL", 1000)
    dense = scaling.classical_scaling(tensor(D), 2, torch.randn(250, dtype=torch.float64))
    torch.testing.assert_close(iterated, dense, rtol=0, atol=1e-7)


def test_smacof_agrees_with_scikit_learn(monkeypatch):
    D = crooked(60)
    start = flat(60)
    step = last(scaling.smacof_steps(tensor(D), tensor(start)), 30)
    peer, _ = smacof(D, init=start, n_init=1, max_iter=30, eps=0, metric=True, normalized_stress=False)
    np.testing.assert_allclose(cdist(step.state, step.state), cdist(peer, peer), atol=1e-8)
    monkeypatch.setattr(scaling, "_BLOCK", {"cpu": 60 * 7})
    blocks = last(scaling.smacof_steps(tensor(D), tensor(start)), 30)
    torch.testing.assert_close(blocks.state, step.state, rtol=0, atol=1e-8)
    assert np.isclose(step.loss, scaling.stress(step.state, tensor(D)))


def test_stress_falls_with_weights_to_a_point_without_slope():
    D, W = tensor(crooked(40)), RNG.rand(40, 40) ** 3
    W = tensor(W + W.T)
    steps = scaling.smacof_steps(D, tensor(flat(40)), W)
    losses = [next(steps).loss for _ in range(1500)]
    assert np.all(np.diff(losses) < 1e-12)
    points = next(steps).state.requires_grad_()
    differences = (points[:, None] - points).square().sum(2) + torch.eye(40)
    errors = W * (differences.sqrt() - D) ** 2 * (1 - torch.eye(40))
    errors.sum().backward()
    assert points.grad.abs().max() < 1e-2 * float((W * D).sum()) / 40


def test_parts_that_tiny_weights_connect_are_placed():
    X = np.vstack([flat(20), flat(20) + 8])
    first = np.arange(40) < 20
    weights = tensor(np.where(first == first[:, None], 1.0, 1e-40))
    step = last(scaling.smacof_steps(tensor(cdist(X, X)), tensor(X + 0.1 * flat(40)), weights), 50)
    assert torch.isfinite(step.state).all()
    np.testing.assert_allclose(cdist(step.state[:20], step.state[:20]), cdist(X[:20], X[:20]), atol=0.05)


def test_points_that_coincide_do_not_stop_the_fit():
    D = tensor(crooked(20))
    assert torch.isfinite(last(scaling.smacof_steps(D, torch.zeros(20, 2, dtype=torch.float64)), 3).state).all()
    nothing = next(scaling.smacof_steps(torch.zeros(5, 5, dtype=torch.float64), torch.zeros(5, 2, dtype=torch.float64)))
    assert nothing.gap == 0


def test_principal_axes_do_not_depend_on_rotation_and_order():
    X = tensor(flat(30) * [3, 1])
    turn, order = tensor(np.linalg.qr(RNG.randn(2, 2))[0]), torch.randperm(30)
    expected = scaling.principal_axes(X)
    torch.testing.assert_close(scaling.principal_axes((X @ turn + 5)[order]), expected[order])


def test_further_points_are_placed_where_their_distances_say():
    marks, points = flat(50), 0.7 * flat(30)
    D = tensor(cdist(points, marks))
    np.testing.assert_allclose(scaling.place(D, tensor(marks)).numpy(), points, atol=1e-6)
    np.testing.assert_allclose(scaling.place(D, tensor(marks), tensor(RNG.rand(30, 50))).numpy(), points, atol=1e-6)
    classical = scaling.place_classical(D, tensor(marks), tensor(cdist(marks, marks)))
    turned = scaling.principal_axes(tensor(marks))
    classical = scaling.place_classical(D, turned, tensor(cdist(marks, marks))).numpy()
    np.testing.assert_allclose(cdist(classical, turned), D, atol=1e-8)


def test_one_landmark_and_equal_landmarks_give_finite_places():
    D = tensor(RNG.rand(5, 1))
    assert torch.isfinite(scaling.place(D, torch.zeros(1, 2, dtype=torch.float64))).all()
    same = scaling.place(torch.zeros(3, 4, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64))
    assert not same.any()
