"""Lasso codes of all rows at once by the alternating direction method of multipliers."""

from collections.abc import Iterator

import torch

from .._core.iterate import Step
from .._math.prox import soft_threshold

_RELAXATION = 1.6


def least_largest_product(X) -> torch.Tensor:
    """Return the least over rows of the largest absolute inner product with another row, rows of zeros left out."""
    largest = (X @ X.mT).fill_diagonal_(0).abs().amax(1)
    return torch.where(largest > 0, largest, torch.inf).amin().clamp(max=torch.finfo(X.dtype).max)


def admm_steps(X, *, gamma: float, affine: bool) -> Iterator[Step]:
    """Yield the codes Z (n, n) that minimise ``|Z|_1 + mu / 2 |X - Z X|²`` with a zero diagonal.

    With `affine` the rows of Z sum to 1. ``mu = gamma / least_largest_product(X)``, and `gamma` is the weight of the
    augmented Lagrangian too. C is the copy of Z on which the squares are minimised, over-relaxed by 1.6. The gap is the
    norm of their difference over that of Z.
    """
    n, ones = len(X), float(affine)
    G = (gamma / least_largest_product(X)) * (X @ X.mT)
    L = torch.linalg.cholesky(G + gamma * (torch.eye(n, dtype=X.dtype, device=X.device) + ones))
    Z, dual, dual_sums = torch.zeros_like(G), torch.zeros_like(G), X.new_zeros(n, 1)
    tiny = torch.finfo(X.dtype).tiny
    while True:
        right = G + gamma * Z - dual + ones * (gamma - dual_sums)
        C = torch.cholesky_solve(right.mT, L).mT
        relaxed = _RELAXATION * C + (1 - _RELAXATION) * Z
        Z = soft_threshold(relaxed + dual / gamma, 1 / gamma).fill_diagonal_(0)
        dual = dual + gamma * (relaxed - Z)
        gap = torch.linalg.matrix_norm(Z - C) / torch.linalg.matrix_norm(Z).clamp(min=tiny)
        if affine:
            excess = C.sum(1, keepdim=True) - 1
            dual_sums = dual_sums + gamma * excess
            gap = torch.maximum(gap, excess.square().mean().sqrt())
        yield Step(Z, float(gap))
