"""Coding rates against the formula, and their gradients against differences."""

import numpy as np
import torch

from sklowrank._math.coding_rates import clustered_rate, coding_length, coding_rate


def data(n=7, d=4, m=5, seed=0):
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, d))
    weights = rng.random((n, m))
    shares = rng.random(m)
    parts = Z / np.linalg.norm(Z, axis=1, keepdims=True), weights / weights.sum(0), shares / shares.sum()
    return [torch.from_numpy(part) for part in parts]


def half_log_det(A):
    return np.linalg.slogdet(np.eye(len(A)) + A)[1] / 2


def test_rate_of_all_rows():
    Z = data()[0]
    expected = half_log_det(4 / (7 * 0.3) * Z.numpy().T @ Z.numpy())
    assert abs(float(coding_rate(Z, 0.3)) - expected) < 1e-12


def test_rate_given_clusters():
    Z, weights, shares = data()
    expected = sum(
        shares[j] * half_log_det(4 / 0.3 * (Z.numpy().T * weights[:, j].numpy()) @ Z.numpy()) for j in range(5)
    )
    assert abs(float(clustered_rate(Z, weights, shares, 0.3)) - expected) < 1e-12


def test_gradients_are_those_of_differences():
    parts = [part.requires_grad_() for part in data()]
    assert torch.autograd.gradcheck(lambda *parts: clustered_rate(*parts, 0.3), parts, atol=1e-7)


def test_gradients_equal_those_of_autograd_through_dense_determinants():
    Z, weights, shares = (part.requires_grad_() for part in data(40, 8, 30))
    A = torch.einsum("nj,ni,nk->jik", weights, Z, Z) * 8 / 0.5
    plain = shares @ torch.linalg.slogdet(torch.eye(8, dtype=torch.float64) + A)[1] / 2
    expected = torch.autograd.grad(plain, [Z, weights, shares])
    for ours, theirs in zip(
        torch.autograd.grad(clustered_rate(Z, weights, shares, 0.5), [Z, weights, shares]), expected
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_many_clusters_go_in_blocks(monkeypatch):
    Z, weights, shares = data(30, 6, 25)
    whole = clustered_rate(Z, weights, shares, 0.5)
    monkeypatch.setattr("sklowrank._math.coding_rates.rows_per_block", lambda *_: 4)
    Z.requires_grad_()
    parts = clustered_rate(Z, weights, shares, 0.5)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    parts.backward()
    there = Z.grad.clone()
    monkeypatch.undo()
    Z.grad = None
    clustered_rate(Z, weights, shares, 0.5).backward()
    torch.testing.assert_close(there, Z.grad, rtol=1e-10, atol=1e-14)


def test_no_more_bits_for_parts_than_for_the_whole():
    """The rate is concave, so that knowing the membership never costs."""
    for seed in range(20):
        Z, _, _ = data(12, 5, 3, seed)
        Pi = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(3), size=12))
        left = clustered_rate(Z, Pi / Pi.sum(0), Pi.sum(0) / 12, 0.5)
        assert float(left) <= float(coding_rate(Z, 0.5)) + 1e-12


def test_length_of_rows_and_labels():
    Z = data(9, 3, 2)[0]
    labels = torch.tensor([0, 0, 0, 0, 2, 2, 2, 2, 2])  # cluster 1 is empty
    expected = 0.0
    for k, n_k in ((0, 4), (2, 5)):
        rows = Z.numpy()[labels.numpy() == k]
        expected += (n_k + 3) * half_log_det(3 / (0.4 * n_k) * rows.T @ rows) - n_k * np.log(n_k / 9)
    assert abs(coding_length(Z, labels, 3, 0.4) - expected) < 1e-12
