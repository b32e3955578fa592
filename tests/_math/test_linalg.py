"""The randomised decomposition against numpy's full one."""

import numpy as np
import torch

from sklowrank._math.linalg import randomized_svd, signs_of_largest


def test_randomized_svd_finds_the_leading_triplets():
    rng = np.random.default_rng(0)
    A = torch.from_numpy(rng.normal(size=(80, 6)) @ rng.normal(size=(6, 50)) + 0.01 * rng.normal(size=(80, 50)))
    start = torch.from_numpy(rng.normal(size=(50, 9)))
    U, s, Vh = randomized_svd(lambda Y: A @ Y, lambda Y: A.mT @ Y, start, n_components=4)
    expected = np.linalg.svd(A.numpy(), compute_uv=False)[:4]
    assert U.shape == (80, 4)
    assert Vh.shape == (4, 50)
    np.testing.assert_allclose(s.numpy(), expected, rtol=1e-8)
    np.testing.assert_allclose((A @ Vh.mT).numpy(), (U * s).numpy(), atol=1e-3 * expected[0])


def test_signs_of_largest():
    V = torch.tensor([[1.0, -3.0, 2.0], [0.0, 0.0, 0.0], [5.0, -4.0, 0.0]], dtype=torch.float64)
    assert signs_of_largest(V).tolist() == [-1.0, 1.0, 1.0]
