"""Coding rates as plain functions."""

import numpy as np
import pytest

from sklowrank.metrics import coding_rate, rate_reduction


def half_log_det(A):
    return np.linalg.slogdet(np.eye(len(A)) + A)[1] / 2


def rows(seed=0):
    Z = np.random.default_rng(seed).normal(size=(20, 6))
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def test_formulas():
    Z, labels = rows(), np.arange(20) % 3
    total = half_log_det(6 / (20 * 0.1) * Z.T @ Z)
    assert coding_rate(Z, 0.1) == pytest.approx(total, rel=1e-12)
    parts = sum(
        (labels == k).mean() * half_log_det(6 / ((labels == k).sum() * 0.1) * Z[labels == k].T @ Z[labels == k])
        for k in range(3)
    )
    assert rate_reduction(Z, labels, 0.1) == pytest.approx(total - parts, rel=1e-12)
    assert type(coding_rate(Z)) is type(rate_reduction(Z, labels)) is float


def test_labels_of_any_kind_and_shares_agree():
    Z, labels = rows(), np.arange(20) % 3
    expected = rate_reduction(Z, labels)
    assert rate_reduction(Z.tolist(), np.array(["b", "c", "a"])[labels]) == pytest.approx(expected, rel=1e-12)
    assert rate_reduction(Z, np.eye(4)[labels]) == pytest.approx(expected, rel=1e-12)  # the fourth cluster is empty


def test_soft_shares():
    Z, Pi = rows(), np.random.default_rng(1).dirichlet(np.ones(4), size=20)
    t = Pi.sum(0)
    left = sum(t[j] / 20 * half_log_det(6 / (t[j] * 0.5) * (Z.T * Pi[:, j]) @ Z) for j in range(4))
    assert rate_reduction(Z, Pi) == pytest.approx(coding_rate(Z) - left, rel=1e-12)
    assert rate_reduction(Z, np.full((20, 4), 0.25)) == pytest.approx(0, abs=1e-12)


def test_large_rows_on_a_subspace():
    rng = np.random.default_rng(0)
    Z, labels = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 12)), np.arange(60) % 2
    first, second = (coding_rate(Z * size) for size in (1e8, 1e10))  # a Gram matrix of such rows is not definite
    assert second - first == pytest.approx(3 * np.log(1e2), rel=1e-9)
    reductions = [rate_reduction(Z * size, labels) for size in (1e6, 1e9)]
    assert reductions[0] == pytest.approx(reductions[1], rel=1e-6)


def test_right_clusters_explain_more():
    rng = np.random.default_rng(0)
    U = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    y = np.arange(90) % 3
    Z = np.stack([U[:, 3 * k : 3 * k + 3] @ rng.normal(size=3) for k in y])
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    assert rate_reduction(Z, y) > 4 * rate_reduction(Z, rng.permutation(y))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda Z: rate_reduction(Z, np.zeros(5)), "inconsistent numbers of samples"),
        (lambda Z: rate_reduction(Z, -np.ones((20, 2))), r"negative entry -1\. Pass weights of at least 0, or labels"),
        (lambda Z: coding_rate(Z, 0.0), "'precision' parameter"),
        (lambda Z: coding_rate(Z * np.nan), "Z contains NaN"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(rows())
