"""Chains of states against dense Gaussian processes."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process.kernels import Matern

from sklowrank.tensor import _state_space
from sklowrank.tensor._state_space import (
    Process,
    draws,
    joined_points,
    log_evidence,
    moments,
    posterior_chain,
    scans,
    smoothed,
    stretches,
    total,
    transitions,
)

NU = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}
LENGTH = torch.tensor(0.3, dtype=torch.float64)


def a_chain(kernel, T=23, rank=2, seed=0):
    """Two functions of variance 1.3 at T points, with factors that do not determine all of them."""
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(np.sort(rng.uniform(size=T)))
    root = rng.normal(size=(T, rank, 1))
    gaps = torch.cat([points.new_full((1,), torch.inf), points.diff()])
    linear, quadratic = torch.from_numpy(3 * rng.normal(size=(T, rank))), torch.from_numpy(5 * root * root.mT)
    return Process(kernel, rank, 1.3), points, gaps, linear, quadratic


def dense(process, points, linear, quadratic, queries, length=0.3):
    """Mean (m, R), covariance of everything and log evidence, with matrices over all points and queries."""
    at, R, T = np.r_[points, queries], process.rank, len(points)
    K = np.kron(process.variance * Matern(length, nu=NU[process.kernel])(at[:, None]), np.eye(R))
    L, h = np.zeros_like(K), np.zeros(len(K))
    for t in range(T):
        L[t * R : t * R + R, t * R : t * R + R], h[t * R : t * R + R] = quadratic[t], linear[t]
    S = np.linalg.solve(np.eye(len(K)) + K @ L, K)
    evidence = h @ S @ h / 2 - np.linalg.slogdet(np.eye(len(K)) + K @ L)[1] / 2
    return (S @ h).reshape(-1, R), S, evidence


def blocks(S, R):
    return np.stack([S[i : i + R, i : i + R] for i in range(0, len(S), R)])


@pytest.mark.parametrize("kernel", NU)
@pytest.mark.parametrize("T", [1, 2, 7, 24, 75])
def test_smoother_is_the_dense_process(kernel, T):
    process, points, gaps, linear, quadratic = a_chain(kernel, T)
    queries = np.r_[-2.0, -0.01, points[0], points[-1], 0.2, 0.5, 0.7, 1.4]
    mean, covariance, evidence = smoothed(process, gaps, LENGTH, linear, quadratic)
    want, S, log_z = dense(process, points.numpy(), linear.numpy(), quadratic.numpy(), queries)
    np.testing.assert_allclose(mean, want[:T], atol=1e-11)
    np.testing.assert_allclose(covariance, blocks(S, 2)[:T], atol=1e-11)
    assert float(evidence) == pytest.approx(log_z, abs=1e-10)
    chain = posterior_chain(process, gaps, LENGTH, linear, quadratic)
    found = moments(process, points, LENGTH, chain, torch.from_numpy(queries))
    np.testing.assert_allclose(found[0], want[T:], atol=1e-11)
    np.testing.assert_allclose(found[1], blocks(S, 2)[T:], atol=1e-11)


@pytest.mark.parametrize("kernel", NU)
@pytest.mark.parametrize("together", [2, 7, 80])
def test_length_of_stretches_changes_nothing(kernel, together, monkeypatch):
    process, _, gaps, linear, quadratic = a_chain(kernel, 75)
    want = smoothed(process, gaps, LENGTH, linear, quadratic)
    monkeypatch.setattr(_state_space, "_TOGETHER", together)
    for a, b in zip(smoothed(process, gaps, LENGTH, linear, quadratic), want):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kernel", NU)
def test_total_has_the_evidence_of_several_lengths(kernel):
    process, points, gaps, linear, quadratic = a_chain(kernel)
    lengths = [0.1, 0.3, 2.0]
    tried = torch.tensor(lengths, dtype=torch.float64)
    found = log_evidence(process, gaps, tried, linear[:, None], quadratic[:, None])
    want = [dense(process, points.numpy(), linear.numpy(), quadratic.numpy(), [], length)[2] for length in lengths]
    np.testing.assert_allclose(found, want, rtol=1e-10)


@pytest.mark.parametrize("size", [1, 4])
def test_scans_end_in_the_same_total(size):
    process, _, gaps, linear, quadratic = a_chain("matern52", 13)
    segments = joined_points(stretches(process, gaps, LENGTH, linear, quadratic, size))
    ahead, back = scans(segments)
    for a, b, c in zip(ahead, back, total(segments)):
        np.testing.assert_allclose(a[-1], c, atol=1e-9)
        np.testing.assert_allclose(b[0], c, atol=1e-9)


@pytest.mark.parametrize("kernel", NU)
def test_nearly_equal_points(kernel):
    """Gaps of 1e-9 of the length: the spread of a step is rounding, and no inverse of it is taken."""
    process, points, _, linear, quadratic = a_chain(kernel)
    points = torch.cat([points, points + 1e-9]).sort().values
    gaps = torch.cat([points.new_full((1,), torch.inf), points.diff()])
    linear, quadratic = linear.repeat_interleave(2, 0), quadratic.repeat_interleave(2, 0)
    mean, covariance, _ = smoothed(process, gaps, LENGTH, linear, quadratic)
    want, S, _ = dense(process, points.numpy(), linear.numpy(), quadratic.numpy(), [])
    np.testing.assert_allclose(mean, want, atol=1e-6)
    np.testing.assert_allclose(covariance, blocks(S, 2), atol=1e-6)


def test_draws_have_the_joint_distribution():
    process, points, gaps, linear, quadratic = a_chain("matern32")
    queries = np.array([0.9, -0.1, 0.31, 0.32, points[4]])
    chain = posterior_chain(process, gaps, LENGTH, linear, quadratic)
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    n = 20_000
    found = draws(process, points, LENGTH, chain, torch.from_numpy(queries), randn, n).reshape(-1, n).numpy()
    want, S, _ = dense(process, points.numpy(), linear.numpy(), quadratic.numpy(), queries)
    start = 2 * len(points)
    spread = S[start:, start:]
    np.testing.assert_allclose(found.mean(1), want[len(points) :].ravel(), atol=5 * np.sqrt(spread.max() / n))
    np.testing.assert_allclose(np.cov(found), spread, atol=7 * spread.max() / np.sqrt(n))


@pytest.mark.parametrize("kernel", NU)
def test_steps_keep_the_stationary_distribution(kernel):
    gaps = torch.tensor([0.0, 1e-3, 0.4, 50.0, torch.inf], dtype=torch.float64)
    step, spread = transitions(Process(kernel, 1, 2.0), gaps, LENGTH)
    np.testing.assert_allclose(step[0], np.eye(len(step[0])), atol=1e-15)
    np.testing.assert_allclose(step[-1], 0, atol=1e-100)
    np.testing.assert_allclose(step @ spread[-1] @ step.mT + spread, spread[-1:].expand_as(spread), atol=1e-14)
