"""Rows that are multiples of one another: found once, coded once, and given the code of the first of them.

A row that occurs twice codes its copy exactly, a pair that needs no other row: sparse graphs fall apart into pairs.
"""

from typing import NamedTuple

import scipy.sparse as sp
import torch

from .._math.graphs import spread
from ._row_products import device_of, norms, scaled, take, times, transposed_times

_CLOSE = 1e-6  # of the spread of the rows: the precision to which directions agree in float32
_ROUNDING = 16  # times eps


class Directions(NamedTuple):
    """The distinct rows among n rows."""

    first: torch.Tensor  # (m,), positions of the distinct rows, ascending
    place: torch.Tensor  # (n,), which of the distinct rows a row equals, up to the sign
    sign: torch.Tensor  # (n,), 1 where it equals that row, -1 where it is its negative


def distinct_directions(rows, *, negatives: bool = True) -> Directions:
    """Return which of the rows, a tensor or CSR (n, D), are distinct; with `negatives` a row equals its negative.

    Rows are equal where their distance is at most 1e-6 times the root mean square distance of the rows from their mean,
    or rounding. Equal rows are neighbours in the order of a random projection, so that few pairs are compared.
    """
    (n, D), device = rows.shape, device_of(rows)
    v = torch.randn(D, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu").to(device)
    p = times(rows, v)
    sign = torch.where(p < 0, -1.0, 1.0).to(p) if negatives else torch.ones_like(p)
    p = p * sign
    mean_square, mean = float(norms(rows).square().mean()), transposed_times(rows, sign) / n
    deviation = max(mean_square - float(mean.square().sum()), 0.0) ** 0.5  # root mean square distance from the mean
    close = max(_CLOSE * deviation, _ROUNDING * torch.finfo(p.dtype).eps * mean_square**0.5)
    order = p.argsort(stable=True)
    gaps = p[order].diff() > close * float(v.norm())
    run = torch.zeros(n, dtype=torch.int64, device=device)
    run[order[1:]] = gaps.cumsum(0)
    equal = torch.arange(n, device=device)  # the first row that a row equals
    left = (torch.bincount(run)[run] > 1).nonzero()[:, 0]
    while len(left):
        leader = torch.full((n,), n, device=device).scatter_reduce_(0, run[left], left, "amin")[run[left]]
        apart = norms(scaled(take(rows, left), sign[left]) - scaled(take(rows, leader), sign[leader])) > close
        same = ~apart | (leader == left)  # a row equals itself, even where its distances overflow
        equal[left[same]] = leader[same]
        left = left[~same]
    first, place = equal.unique(return_inverse=True)
    return Directions(first, place, sign * sign[equal])


def codes_of_all(codes, directions: Directions):
    """Return the codes (n, n) of all rows from those (m, m) of the distinct rows over one another."""
    first, place, sign = directions
    n, m = len(place), len(first)
    if n == m:
        return codes
    if not sp.issparse(codes):
        full = codes.new_zeros(n, n)
        full[:, first] = sign[:, None] * codes[place]
        return full
    full = scaled(take(codes, place), sign.cpu())
    return sp.csr_array((full.data, first.cpu().numpy()[full.indices], full.indptr), shape=(n, n))


def graph_of_all(W, directions: Directions):
    """Return the affinity of all rows: copies of a row have its neighbours, and their copies."""
    if len(directions.first) == len(directions.place):
        return W
    return spread(W, directions.place.cpu().numpy())
