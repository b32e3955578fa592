"""Columns centred and scaled, in float64 and in blocks, whatever precision goes on with them."""

from functools import partial
from typing import Any

import torch

from .blocks import in_blocks, rows_per_block
from .rows import largest_magnitude, rows_of


def standardization(
    X: Any, how: str | bool, share: torch.Tensor | None = None, *, constant: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the scale of the columns, in float64: one scale for all, one for each, or neither.

    X is a tensor, or rows that are read in blocks. Where a scale is zero, or no more than the rounding of what is
    subtracted, it is `constant`. `share` (n,) are weights of rows that sum to one.
    """
    rows = rows_of(X)
    (n, D), device = rows.shape, (rows.take(slice(0, 0)) if share is None else share).device
    mean = torch.zeros(D, dtype=torch.float64, device=device)
    if not how:
        return mean, torch.ones_like(mean)
    size = largest_magnitude(rows) if n else 0.0
    unit = torch.ldexp(torch.ones_like(mean[0]), torch.frexp(mean.new_tensor(size)).exponent)  # rounds nothing off

    def mean_of(collect):
        sums = rows.gather(collect, share, size=16 * D)
        return sums if share is not None else tuple(part / n for part in sums)

    (mean,) = mean_of(partial(_first_sum, unit))
    variance, rest = mean_of(partial(_central_sums, unit, mean))
    mean = mean + rest  # the rounding of the first sum: afterwards a constant column is zero to the last digit
    if how == "global":
        variance = variance.mean().expand(D)
    scale, rounding = variance.sqrt(), 8 * n**0.5 * torch.finfo(torch.float64).eps * mean.abs()
    if how == "global":
        rounding = rounding.amax()
    return mean * unit, torch.where(scale > rounding, scale * unit, constant)


def _first_sum(unit, X, share):
    Z = X.double() / unit
    return (Z.sum(0) if share is None else share @ Z,)


def _central_sums(unit, mean, X, share):
    Z = X.double() / unit - mean
    return (Z.square().sum(0), Z.sum(0)) if share is None else (share @ Z.square(), share @ Z)


def standardized(
    X: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return (X - mean) / scale in the precision asked for, computed in float64 in blocks."""
    size = 24 * X.shape[1]

    def of(rows):
        return ((X[rows].double() - mean) / scale).to(dtype)

    return torch.cat(list(in_blocks(of, len(X), rows_per_block("auto", len(X), size), bytes_per_row=size)))
