"""Rows that point the same way: found once, coded once, and given what the first of them gets.

A row that stands twice codes its copy exactly, a pair that needs no other row: sparse graphs fall apart into pairs.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from .._math.graphs import spread

_CLOSE = 1e-6  # of the spread of the rows: what float32 leaves of equal directions
_ROUNDING = 16  # times eps


class Directions(NamedTuple):
    """The distinct rows among n rows."""

    first: torch.Tensor  # (m,), positions of the distinct rows, ascending
    place: torch.Tensor  # (n,), which of the distinct rows a row equals, up to the sign
    sign: torch.Tensor  # (n,), 1 where it equals that row, -1 where it is its negative


def distinct_directions(rows, *, negatives: bool = True) -> Directions:
    """Return which of the rows, a tensor or CSR (n, D), are distinct; with `negatives` a row equals its negative.

    Rows are equal where their distance is at most 1e-6 times the root mean square distance of the rows from their mean,
    or rounding.
    Equal rows are neighbours in the order of a random projection, so that few pairs are compared.
    """
    n, D = rows.shape
    device = "cpu" if sp.issparse(rows) else rows.device
    v = torch.randn(D, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    p = torch.from_numpy(rows @ v.numpy()) if sp.issparse(rows) else rows @ v.to(device)
    sign = torch.where(p < 0, -1.0, 1.0).to(p) if negatives else torch.ones_like(p)
    p = p * sign
    size, spread_of_rows = _size_and_spread(rows, sign)
    close = max(_CLOSE * spread_of_rows, _ROUNDING * torch.finfo(p.dtype).eps * size)
    order = p.argsort(stable=True)
    gaps = p[order].diff() > close * float(v.norm())
    run = torch.zeros(n, dtype=torch.int64, device=device)
    run[order[1:]] = gaps.cumsum(0)
    equal = torch.arange(n, device=device)  # the first row that a row equals
    left = (torch.bincount(run)[run] > 1).nonzero()[:, 0]
    while len(left):
        leader = torch.full((n,), n, device=device).scatter_reduce_(0, run[left], left, "amin")[run[left]]
        same = _distances(rows, sign, left, leader) <= close
        equal[left[same]] = leader[same]
        left = left[~same]
    first, place = equal.unique(return_inverse=True)
    return Directions(first, place, sign * sign[equal])


def _size_and_spread(rows, sign):
    """Return the root mean square of the lengths of rows with these signs, and of their distances from the mean."""
    n = rows.shape[0]
    if sp.issparse(rows):
        squares, mean = float(rows.power(2).sum()), torch.from_numpy(rows.T @ sign.numpy()) / n
    else:
        squares, mean = float(rows.square().sum()), rows.T @ sign / n
    return (squares / n) ** 0.5, max(squares / n - float(mean.square().sum()), 0.0) ** 0.5


def _distances(rows, sign, a, b):
    """Return the distances between the rows at `a` and those at `b`, taken with their signs."""
    if not sp.issparse(rows):
        return torch.linalg.vector_norm(sign[a, None] * rows[a] - sign[b, None] * rows[b], dim=1)
    A, B = (sp.diags_array(sign[at].numpy()) @ rows[at.numpy()] for at in (a, b))
    return torch.from_numpy(np.sqrt(np.asarray((A - B).power(2).sum(axis=1)).ravel()))


def rows_at(rows, positions: torch.Tensor):
    """Return some rows of a tensor or CSR."""
    return rows[positions.cpu().numpy()] if sp.issparse(rows) else rows[positions]


def codes_of_all(codes, directions: Directions):
    """Return the codes (n, n) of all rows from those (m, m) of the distinct ones, by which alone rows are coded."""
    first, place, sign = directions
    n, m = len(place), len(first)
    if n == m:
        return codes
    if not sp.issparse(codes):
        full = codes.new_zeros(n, n)
        full[:, first] = sign[:, None] * codes[place]
        return full
    first, place, sign = (part.cpu().numpy() for part in directions)
    full = sp.csr_array(sp.diags_array(sign) @ codes[place])
    return sp.csr_array((full.data, first[full.indices], full.indptr), shape=(n, n))


def graph_of_all(W, directions: Directions):
    """Return the affinity of all rows: copies of a row have its neighbours, and their copies."""
    if len(directions.first) == len(directions.place):
        return W
    return spread(W, directions.place.cpu().numpy())
