"""The matrix-free inverse against the dense one."""

import numpy as np
import pytest
import torch

from sklowrank.optim import InverseFisher
from sklowrank.optim._inverse_fisher import products, quick_products

D, M, DAMP = 300, 32, 1e-3


def gradients(seed=0, m=M):
    return np.random.default_rng(seed).normal(size=(m, D))


def dense(grads, damp=DAMP):
    return np.linalg.inv(damp * np.eye(grads.shape[1]) + grads.T @ grads / len(grads))


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_equals_the_dense_inverse(dtype, bound):
    grads = gradients().astype(dtype)
    inverse, expected = InverseFisher(grads, DAMP), dense(grads.astype(np.float64))
    x = np.random.default_rng(1).normal(size=(D, 3)).astype(dtype)
    assert inverse.mul(x).dtype == inverse.diag().dtype == dtype
    assert relative(inverse.mul(x), expected @ x) <= bound
    assert relative(inverse.mul(x[:, 0]), expected @ x[:, 0]) <= bound
    assert relative(inverse.diag(), np.diag(expected)) <= bound
    assert inverse.shape == (D, D)
    within = grads[3]  # where F is large, and a difference of large numbers would be left
    assert relative(inverse.mul(within), expected @ within) <= (1e-9 if dtype is np.float64 else 1e-4)


def test_a_window_of_updates_equals_a_fresh_build():
    """The ring has gone around twice and a half: no row is off by one, and the Fisher matrix is divided by m."""
    inverse, stream = InverseFisher(gradients(), DAMP), gradients(2, 80)
    for g in stream:
        assert inverse.update(g) is inverse
    fresh, x = InverseFisher(stream[-M:], DAMP), np.ones(D)
    assert relative(inverse.mul(x), fresh.mul(x)) <= 1e-9
    assert relative(inverse.diag(), fresh.diag()) <= 1e-9
    inverse.update(gradients(3, 1)[0])
    assert relative(inverse.mul(x), fresh.mul(x)) > 1e-3


def test_tensors_in_tensors_out():
    grads, x = torch.from_numpy(gradients()), torch.ones(D)
    inverse = InverseFisher(grads, DAMP)
    assert inverse.mul(x).dtype == torch.float64
    assert isinstance(inverse.diag(), torch.Tensor)
    assert isinstance(inverse.mul(x.numpy()), np.ndarray)
    before = inverse.mul(x)
    grads.zero_()  # they were copied
    assert torch.equal(inverse.mul(x), before)
    integers = InverseFisher([[1, 2], [3, 4]], 1.0)
    assert np.allclose(integers.mul([1, 0]), dense(np.array([[1.0, 2], [3, 4]]), 1.0)[:, 0])


def test_products_of_many_columns_are_as_exact_as_their_entries():
    """In float32 at once they are off by a thousand times as much."""
    grads = torch.rand(4, 1_000_003, generator=torch.Generator().manual_seed(0))
    for g in (grads[1], grads[3]):
        exact = products(grads, g)
        assert float(((quick_products(grads, g) - exact) / exact).abs().max()) < 1e-6


def test_more_gradients_than_parameters():
    grads = np.random.default_rng(0).normal(size=(40, 3))
    inverse, expected = InverseFisher(grads, 1e-5), dense(grads, 1e-5)
    assert relative(inverse.diag(), np.diag(expected)) <= 1e-8
    assert relative(inverse.mul(np.ones(3)), expected.sum(1)) <= 1e-8


def test_a_damping_below_rounding_is_raised_with_a_warning():
    grads = np.full((4, 5), 1e9)
    with pytest.warns(RuntimeWarning, match=r"damp=1e-12 is too small.*was used\. Raise damp"):
        inverse = InverseFisher(grads, 1e-12)
    assert inverse.damp > 1e-12
    assert np.isfinite(inverse.mul(np.ones(5))).all()
    assert np.isfinite(inverse.diag()).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: InverseFisher(gradients(), 0.0), r"damp=0\.0 has to be a number above 0"),
        (lambda: InverseFisher(gradients(), np.nan), "damp=nan"),
        (lambda: InverseFisher(np.ones(3)), r"shape \(3,\)\. Pass a matrix"),
        (lambda: InverseFisher(np.empty((0, 3))), "Pass a matrix"),
        (lambda: InverseFisher([[1.0, np.nan]]), "NaN or infinite"),
        (lambda: InverseFisher(np.ones((2, 3), dtype=complex)), "Pass real numbers"),
        (lambda: InverseFisher(np.ones((2, 3))).mul(np.ones(4)), r"d=3: pass \(3,\) or \(3, q\)"),
        (lambda: InverseFisher(np.ones((2, 3))).update(np.ones(4)), r"shape \(3,\)"),
        (lambda: InverseFisher(np.ones((2, 3))).update([1.0, 2.0, np.inf]), "Pass a finite gradient"),
    ],
)
def test_bad_values_name_the_cure(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_a_refused_gradient_leaves_the_window_as_it_was():
    inverse = InverseFisher(gradients(), DAMP)
    before = inverse.diag()
    with pytest.raises(ValueError, match="finite"):
        inverse.update(np.full(D, np.nan))
    assert relative(inverse.update(gradients()[0]).diag(), before) <= 1e-12


@pytest.mark.cuda
def test_on_a_gpu():
    grads = gradients()
    inverse = InverseFisher(torch.from_numpy(grads).cuda(), DAMP)
    x = torch.ones(D, dtype=torch.float64, device="cuda")
    assert inverse.mul(x).is_cuda
    assert inverse.diag().is_cuda
    assert relative(inverse.mul(x).cpu().numpy(), dense(grads).sum(1)) <= 1e-10
