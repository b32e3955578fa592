"""Effective ranks against closed forms; alignment of kernels against its formula, with one row, zeros and centring."""

import numpy as np
import pytest
import torch

from sklowrank._nets.layers import low_rank_start
from sklowrank.metrics import effective_rank, kernel_alignment

rng = np.random.default_rng(0)
KINDS = ("stable", "entropy", "numerical")


@pytest.mark.parametrize("kind", KINDS)
def test_equal_singular_values_count(kind):
    Q = np.linalg.qr(rng.normal(size=(12, 5)))[0]
    assert effective_rank(Q @ Q.T, kind) == pytest.approx(5, rel=1e-12)
    assert effective_rank(1e-30 * Q.astype(np.float32), kind) == pytest.approx(5, rel=1e-6)
    assert effective_rank(np.zeros((3, 2)), kind) == 0
    assert effective_rank(np.outer([1, 2, 3], [4, 5]), kind) == pytest.approx(1)


def test_effective_ranks_are_their_formulas():
    W = rng.normal(size=(7, 4))
    s = np.linalg.svd(W, compute_uv=False)
    p = s / s.sum()
    assert effective_rank(W) == pytest.approx((W**2).sum() / s[0] ** 2)
    assert effective_rank(W, "entropy") == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert effective_rank(W, "numerical") == 4
    assert effective_rank(1e200 * W) == pytest.approx(effective_rank(W))


def test_numerical_rank_is_up_to_the_precision_of_the_matrix():
    low = low_rank_start(torch.from_numpy(rng.normal(size=(40, 30))).float(), 3)
    assert effective_rank(low, "numerical") == 3
    assert effective_rank(low.double(), "numerical") == 30  # these digits would be exact: the rounding counts
    assert effective_rank(low.numpy(), "numerical") == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_layers_in_any_precision(dtype):
    layer = torch.nn.Linear(6, 4, dtype=dtype)
    with torch.inference_mode():
        assert effective_rank(layer.weight) == pytest.approx(effective_rank(layer.weight.detach().double().numpy()))


def test_alignment_is_the_cosine_between_matrices():
    A, B = (M @ M.T for M in rng.normal(size=(2, 6, 3)))
    expected = (A * B).sum() / np.linalg.norm(A) / np.linalg.norm(B)
    assert kernel_alignment(A, B) == pytest.approx(expected, rel=1e-12)
    assert kernel_alignment(torch.from_numpy(1e180 * A), 1e-180 * B) == pytest.approx(expected, rel=1e-12)
    assert kernel_alignment(A, -A) == -1
    assert 1 - 1e-15 <= kernel_alignment(A, 7 * A) <= 1


def test_centred_alignment_is_that_of_centred_features():
    X, Y = rng.normal(size=(6, 3)) + 5, rng.normal(size=(6, 2)) - 3
    there = [Z - Z.mean(0) for Z in (X, Y)]
    expected = kernel_alignment(*(Z @ Z.T for Z in there))
    assert kernel_alignment(X @ X.T, Y @ Y.T, centered=True) == pytest.approx(expected, rel=1e-10)
    assert kernel_alignment(X @ X.T, Y @ Y.T) > expected + 0.2  # the means dominate


def test_kernels_of_one_row_and_of_nothing():
    assert kernel_alignment([[3.0]], [[0.1]]) == 1
    for K, K0, centered, name in (
        (np.zeros((2, 2)), np.eye(2), False, "K"),
        (np.eye(2), np.zeros((2, 2)), False, "K0"),
        (np.full((2, 2), 0.1), np.eye(2), True, "K"),
        ([[1.0]], [[1.0]], True, "K"),
    ):
        with pytest.warns(RuntimeWarning, match=rf"is NaN: {name} is zero"):
            assert np.isnan(kernel_alignment(K, K0, centered=centered))


def test_what_are_no_kernels_is_refused():
    with pytest.raises(ValueError, match=r"K has shape \(2, 2\) and K0 \(3, 3\)"):
        kernel_alignment(np.eye(2), np.eye(3))
    with pytest.raises(ValueError, match="two square matrices"):
        kernel_alignment(np.ones((2, 3)), np.ones((2, 3)))
    for wrong in ([[np.nan, 1.0]], torch.tensor([[torch.inf, 1.0]])):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            effective_rank(wrong)
    with pytest.raises(ValueError, match=r"W has shape \(3,\)"):
        effective_rank(torch.ones(3))
    with pytest.raises(ValueError, match="'kind' parameter"):
        effective_rank(np.eye(2), "nuclear")


@pytest.mark.cuda
def test_matrices_on_a_gpu():
    K = torch.from_numpy(rng.normal(size=(5, 5))).cuda()
    assert effective_rank(K) == pytest.approx(effective_rank(K.cpu()))
    assert kernel_alignment(K, torch.eye(5)) == pytest.approx(kernel_alignment(K.cpu(), np.eye(5)))
