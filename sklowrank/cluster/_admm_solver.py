"""Lasso codes of all rows at once by the alternating direction method of multipliers."""

from collections.abc import Iterator

import torch

from .._core.iterate import Step
from .._core.prox import soft_threshold


def least_largest_product(X) -> torch.Tensor:
    """Return the least over rows of the largest absolute inner product with another row, rows of zeros left out."""
    largest = (X @ X.mT).fill_diagonal_(0).abs().amax(1)
    return torch.where(largest > 0, largest, torch.inf).amin().clamp(max=torch.finfo(X.dtype).max)


def admm_steps(X, *, gamma: float, affine: bool) -> Iterator[Step]:
    """Yield the codes Z (n, n) that minimise ``|Z|_1 + mu / 2 |X - Z X|²`` with a zero diagonal.

    With `affine` the rows of Z sum to 1. ``mu = gamma / least_largest_product(X)``, and `gamma` is the weight of the
    augmented Lagrangian too. The gap is the largest difference between Z and its copy C, on which the squares are
    minimised.
    """
    n = len(X)
    G = (gamma / least_largest_product(X)) * (X @ X.mT)
    ones = float(affine)
    L = torch.linalg.cholesky(G + gamma * (torch.eye(n, dtype=X.dtype, device=X.device) + ones))
    Z, dual, dual_sums = torch.zeros_like(G), torch.zeros_like(G), X.new_zeros(n, 1)
    while True:
        right = G + gamma * Z - dual + ones * (gamma - dual_sums)
        C = torch.cholesky_solve(right.mT, L).mT
        Z = soft_threshold(C + dual / gamma, 1 / gamma).fill_diagonal_(0)
        dual = dual + gamma * (C - Z)
        gap = (Z - C).abs().max()
        if affine:
            excess = C.sum(1, keepdim=True) - 1
            dual_sums = dual_sums + gamma * excess
            gap = torch.maximum(gap, excess.abs().max())
        yield Step(Z, float(gap))
