"""Proximal maps: each is checked to be a minimiser, by the value of its objective at points around it."""

import pytest
import torch

from sklowrank._math.prox import row_threshold, singular_value_threshold, soft_threshold

PENALTIES = {
    soft_threshold: lambda B: B.abs().sum(),
    row_threshold: lambda B: torch.linalg.vector_norm(B, dim=1).sum(),
    singular_value_threshold: lambda B: torch.linalg.svdvals(B).sum(),
}


@pytest.mark.parametrize("prox", PENALTIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0, 100.0])
def test_is_the_minimiser(prox, level):
    g = torch.Generator().manual_seed(0)
    A = torch.randn(6, 4, generator=g, dtype=torch.float64)
    B = prox(A, level)

    def objective(M):
        return float((M - A).square().sum() / 2 + level * PENALTIES[prox](M))

    best = objective(B)
    for _ in range(50):
        step = torch.randn(6, 4, generator=g, dtype=torch.float64)
        assert objective(B + 1e-3 * step) >= best - 1e-12
    assert objective(0.99 * B) >= best - 1e-12


def test_known_values():
    A = torch.tensor([[3.0, -0.5], [0.0, -2.0]], dtype=torch.float64)
    assert soft_threshold(A, 1.0).tolist() == [[2, 0], [0, -1]]
    assert row_threshold(torch.tensor([[3.0, 4.0], [0.1, 0.0]], dtype=torch.float64), 1.0).tolist() == [
        [pytest.approx(2.4), pytest.approx(3.2)],
        [0, 0],
    ]
    s = singular_value_threshold(torch.diag(torch.tensor([3.0, 0.5], dtype=torch.float64)), 1.0)
    torch.testing.assert_close(s, torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64)))


def test_rows_of_zeros_stay():
    assert torch.equal(row_threshold(torch.zeros(2, 3), 0.5), torch.zeros(2, 3))
