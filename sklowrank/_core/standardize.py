"""Columns centred and scaled, in float64 and in blocks, whatever precision goes on with them."""

import torch

from .blocks import in_blocks, rows_per_block


def standardization(
    X: torch.Tensor, how: str | bool, share: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the scale of the columns, in float64: one scale for all, one for each, or neither.

    Where a scale is zero, or no more than the rounding of what is subtracted, it is one. `share` (n,) are weights of
    rows that sum to one.
    """
    n, D = X.shape
    mean = torch.zeros(D, dtype=torch.float64, device=X.device)
    if not how:
        return mean, torch.ones_like(mean)
    largest = X.abs().amax().double() if n else mean.amax()
    size = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent)  # a power of two: nothing is rounded
    step = max(1, rows_per_block("auto", n, 8 * D))
    share = torch.full((n,), 1 / max(n, 1), dtype=torch.float64, device=X.device) if share is None else share
    blocks = [slice(start, start + step) for start in range(0, n, step)]
    for rows in blocks:
        mean += share[rows] @ (X[rows].double() / size)
    variance, rest = torch.zeros_like(mean), torch.zeros_like(mean)
    for rows in blocks:
        centred = X[rows].double() / size - mean
        variance += share[rows] @ centred.square()
        rest += share[rows] @ centred
    mean += rest  # the rounding of the first sum: afterwards a constant column is zero to the last digit
    if how == "global":
        variance = variance.mean().expand(D)
    scale, rounding = variance.sqrt(), 8 * n**0.5 * torch.finfo(torch.float64).eps * mean.abs()
    if how == "global":
        rounding = rounding.amax()
    return mean * size, torch.where(scale > rounding, scale * size, 1.0)


def standardized(
    X: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return (X - mean) / scale in the precision asked for, computed in float64 in blocks."""
    size = 24 * X.shape[1]

    def of(rows):
        return ((X[rows].double() - mean) / scale).to(dtype)

    return torch.cat(list(in_blocks(of, len(X), rows_per_block("auto", len(X), size), bytes_per_row=size)))
