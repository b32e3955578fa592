"""Features of the series of exp, sums over keys, and bounds of the errors."""

from itertools import product
from math import comb, factorial

import numpy as np
import pytest
import torch

from sklowrank._math import attention
from sklowrank._math.attention import (
    Keys,
    exact_attention,
    feature_map,
    key_sums,
    largest_shift,
    polynomial_attention,
    read_sums,
    series,
    series_errors,
    smallest_degree,
    with_ones,
)


def gaussian(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("width", "degree"), [(1, 2), (2, 6), (3, 4), (6, 4), (12, 2)])
def test_features_have_the_series_as_inner_products(width, degree):
    Q, K = gaussian(7, width), gaussian(5, width, seed=1)
    features = feature_map(Q, degree)
    assert features.shape == (7, comb(width + degree, degree))
    expected = sum((Q @ K.T) ** j / factorial(j) for j in range(degree + 1))
    torch.testing.assert_close(features @ feature_map(K, degree).T, expected, rtol=1e-12, atol=1e-12)


def test_features_are_the_weighted_monomials():
    x = np.array([0.5, -2.0, 3.0])
    powers = [p for p in product(range(5), repeat=3) if sum(p) <= 4]
    expected = [np.prod([x[i] ** p / factorial(p) ** 0.5 for i, p in enumerate(e)]) for e in powers]
    np.testing.assert_allclose(np.sort(feature_map(torch.from_numpy(x[None]), 4)[0]), np.sort(expected), rtol=1e-13)


def test_features_of_lower_degrees_come_first():
    X = gaussian(4, 3)
    assert torch.equal(feature_map(X, 6)[:, : comb(5, 2)], feature_map(X, 2))


def test_gradients_are_those_of_finite_differences():
    Q, K, W = (gaussian(*shape, seed=s).requires_grad_() for s, shape in enumerate([(4, 3), (5, 3), (5, 2)]))
    assert torch.autograd.gradcheck(lambda q, k, w: read_sums(q, key_sums(k, w, 4), 4), (Q, K, W))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("exact", [True, False])
def test_blocks_change_neither_answers_nor_gradients(batch_size, exact):
    def answer(size):
        Q, K, V = (gaussian(30, 3, seed=s).requires_grad_() for s in range(3))
        keys, own = Keys(K, -K.square().sum(1) / 2, V), torch.arange(30)
        found = exact_attention(Q, keys, own, size) if exact else polynomial_attention(Q, keys, 4, own, size)
        return found, *torch.autograd.grad(found.square().sum(), (Q, K, V))

    for whole, part in zip(answer("auto"), answer(batch_size)):
        torch.testing.assert_close(part, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("exact", [True, False])
def test_own_keys_are_left_out(exact):
    Q, K, V, log_mass = gaussian(6, 2), gaussian(9, 2, seed=1), gaussian(9, 2, seed=2), -gaussian(9, seed=3).abs()
    own = torch.tensor([3, 0, 8, 3, 1, 2])
    keys = Keys(K, log_mass, V)
    found = exact_attention(Q, keys, own) if exact else polynomial_attention(Q, keys, 4, own)
    weights = (torch.exp if exact else lambda t: series(t, 4))(Q @ K.T) * log_mass.exp()
    weights[torch.arange(6), own] = 0
    torch.testing.assert_close(found, weights @ V / weights.sum(1, keepdim=True), rtol=1e-11, atol=1e-12)


def test_errors_and_memory_of_blocks_that_do_not_fit(monkeypatch):
    """Where the device runs out of memory, blocks are halved."""
    apply, largest = attention._Powers.apply, []

    def small(X, degree):
        if len(X) > 8:
            raise MemoryError
        largest.append(len(X))
        return apply(X, degree)

    K, W = gaussian(50, 3), gaussian(50, 2, seed=1)
    expected = key_sums(K, W, 4)
    monkeypatch.setattr(attention._Powers, "apply", small)
    torch.testing.assert_close(key_sums(K, W, 4), expected, rtol=1e-12, atol=1e-12)
    assert max(largest) <= 8


@pytest.mark.parametrize("degree", [2, 4, 8])
@pytest.mark.parametrize("largest", [1e-3, 0.5, 3.0, 20.0])
def test_series_errors_are_those_on_a_fine_grid(largest, degree):
    """In a precision in which the differences are not of rounding."""
    grid = np.linspace(-largest, largest, 2001, dtype=np.longdouble)
    quotient = sum(grid**j / factorial(j) for j in range(degree + 1)) / np.exp(grid)
    above, below = series_errors(largest, degree)
    np.testing.assert_allclose([above, below], [quotient.max() - 1, 1 - quotient.min()], rtol=1e-5, atol=1e-18)


def test_the_bound_of_outputs_is_attained():
    """Two groups of keys, at logits -B and B, with the weights for which the shift is largest."""
    largest, degree = 1.5, 4
    above, below = series_errors(largest, degree)
    low, high = 1 - below, 1 + above
    shares = np.array([low**0.5, high**0.5]) / (low**0.5 + high**0.5)  # of exact weights, at -B and at B
    logits = np.array([-largest, largest])
    mass = torch.from_numpy(shares / np.exp(logits))
    keys, V = torch.from_numpy(logits[:, None]), torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    sums = read_sums(torch.ones(1, 1, dtype=torch.float64), key_sums(keys, with_ones(V, mass), degree), degree)
    error = abs(float(sums[0, 1] / sums[0, 0]) - shares[0])
    assert error == pytest.approx(largest_shift(largest, degree), rel=1e-9)


def test_bounds_at_the_ends():
    assert largest_shift(0.0, 2) == 0.0
    assert largest_shift(1e4, 2) == 1.0
    assert smallest_degree(1e4, 0.5) is None
    assert smallest_degree(0.0, 1e-9) == 2
    degrees = [smallest_degree(largest, 1e-3) for largest in (0.1, 1.0, 2.0, 4.0)]
    assert degrees == sorted(degrees)
    assert all(largest_shift(b, g) <= 1e-3 < largest_shift(b, g - 2) for b, g in zip((1.0, 2.0, 4.0), degrees[1:]))
