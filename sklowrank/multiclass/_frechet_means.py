"""Fréchet means of class probabilities: the label with the least expected power of the distance."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree

from .._core.blocks import in_blocks, join_blocks, rows_per_block

_TIED = 1e-12  # functionals that agree so far, relative to their size, are equal
_COLUMNS = 2048  # labels whose functionals are computed together
_TREE_DIMS, _TREE_LABELS, _TREE_ROWS = 8, 4096, 256  # from which a tree of points is faster than products
_TINY = 1e-200  # sums from which a division is exact to rounding
_PAIRS = 1 << 20  # of rows and labels whose distances are computed together


class Labels(NamedTuple):
    """Distances of k observed labels to m labels: by points, by a table, or 0 and 1 without."""

    observed: torch.Tensor  # (k,) positions of the observed ones
    size: int  # m
    points: torch.Tensor | None = None  # (m, e) divided by the unit
    table: torch.Tensor | None = None  # (k, m)
    unit: float = 1.0  # about the largest distance: functionals are in its powers


class Pairs(NamedTuple):
    """Rows, labels that may be theirs, and the functional there."""

    row: torch.Tensor
    label: torch.Tensor
    value: torch.Tensor


def normalized(P: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return rows (n, k) to the power of 1 / temperature that sum to one; uniform ones for rows of zeros."""
    total = P.sum(1, keepdim=True)
    if temperature == 1 and total.min() > _TINY:
        return P / total
    largest = P.amax(1, keepdim=True)
    P = torch.where(largest > 0, P / largest, 1.0) ** (1 / temperature)
    return P / P.sum(1, keepdim=True)


def in_power_of(unit: float, values: torch.Tensor, power: float) -> torch.Tensor:
    """Return values in units of a power of a unit without it; those that are too large for it are infinite."""
    try:
        return values * unit**power
    except OverflowError:
        return values.sign() * (values.abs() ** (1 / power) * unit) ** power


def functional(P, labels: Labels, power, *, batch_size="auto") -> torch.Tensor:
    """Return the functional (n, m) of each row at each label."""
    compute = _functional_at(labels, slice(0, labels.size), power)
    size = 24 * labels.size
    block = rows_per_block(batch_size, len(P), size)
    return join_blocks(lambda rows: compute(P[rows]), len(P), block, bytes_per_row=size)


def frechet_means(P, labels: Labels, power, *, tie_break="proba", batch_size="auto"):
    """Return the labels (n,) with the least functional, and its values (n,) there.

    Where functionals tie, the observed label of the highest probability wins, else the first one.
    """
    candidates = _nearest_points if labels.points is not None and power == 2 else _smallest_of_all
    found = [_settled(pairs, P, labels, tie_break) for pairs in candidates(P, labels, power, batch_size)]
    pairs = found[0] if len(found) == 1 else _settled(_joined(found), P, labels, tie_break)
    return pairs.label, pairs.value


def _functional_at(labels, columns, power) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from rows P (b, k) to their functionals at some labels."""
    if labels.points is not None and power == 2:
        points, some = labels.points[labels.observed], labels.points[columns]
        lengths, of_some = points.square().sum(1), some.square().sum(1)
        return lambda P: torch.addmm((P @ lengths)[:, None] + of_some, P @ points, some.T, alpha=-2).clamp(min=0)
    if labels.points is not None:
        points, some = labels.points[labels.observed], labels.points[columns]
        table = torch.cdist(points, some, compute_mode="donot_use_mm_for_euclid_dist") ** power
    elif labels.table is not None:
        table = (labels.table[:, columns] / labels.unit) ** power
    else:
        numbers = torch.arange(columns.start, columns.stop, device=labels.observed.device)
        return lambda P: 1 - P @ (labels.observed[:, None] == numbers).to(P.dtype)
    return lambda P: P @ table


def _smallest_of_all(P, labels, power, batch_size) -> Iterator[Pairs]:
    """Yield the pairs with the smallest functionals of some labels after another."""
    for start in range(0, labels.size, _COLUMNS):
        columns = slice(start, min(start + _COLUMNS, labels.size))
        compute = _functional_at(labels, columns, power)

        def smallest(rows, compute=compute, start=start):
            values = compute(P[rows])
            row, label = (values <= values.amin(1, keepdim=True) * (1 + _TIED)).nonzero(as_tuple=True)
            return Pairs(row + rows.start, label + start, values[row, label])

        size = 24 * (columns.stop - start)
        yield _joined(in_blocks(smallest, len(P), rows_per_block(batch_size, len(P), size), bytes_per_row=size))


# Squared Euclidean distances: the label nearest to the mean of the points


def _nearest_points(P, labels, power, batch_size) -> Iterator[Pairs]:
    """Yield pairs of rows and the labels nearest to the means of their points."""
    points = labels.points
    of_observed = points[labels.observed]
    means = P @ of_observed
    spread = (P @ of_observed.square().sum(1) - means.square().sum(1)).clamp(min=0)
    for row, label in _near(means, spread, points, batch_size):
        parts = zip(row.split(_PAIRS), label.split(_PAIRS))
        squares = torch.cat([(means[some] - points[there]).square().sum(1) for some, there in parts])
        yield Pairs(row, label, squares + spread[row])


def _near(means, spread, points, batch_size):
    """Yield rows and labels: the nearest ones, and some that are as near up to rounding."""
    n_dims = points.shape[1]
    if n_dims == 1 and len(points.unique()) == len(points):
        yield _neighbors_on_a_line(means[:, 0].contiguous(), points[:, 0].contiguous())
    elif n_dims <= _TREE_DIMS and len(points) >= _TREE_LABELS and len(means) >= _TREE_ROWS and not means.is_cuda:
        yield _neighbors_in_a_tree(means.numpy(), spread.numpy(), points.numpy())
    else:
        yield from _neighbors_by_products(means, spread, points, batch_size)


def _neighbors_on_a_line(means, values):
    """Return the two neighbours of each mean among points on a line, which are all different."""
    sorted_, order = values.sort()
    above = torch.searchsorted(sorted_, means).clamp(max=len(values) - 1)
    rows = torch.arange(len(means), device=means.device)
    return torch.cat([rows, rows]), order[torch.cat([(above - 1).clamp(min=0), above])]


def _neighbors_in_a_tree(means, spread, points):
    """Return the pairs within the distance of the nearest point, up to rounding, which a tree finds."""
    tree = KDTree(points)
    distance, label = tree.query(means, k=2)
    radius = np.sqrt(distance[:, 0] ** 2 + 2 * _TIED * (distance[:, 0] ** 2 + spread)) * (1 + _TIED)
    alone, tied = np.flatnonzero(distance[:, 1] > radius), np.flatnonzero(distance[:, 1] <= radius)
    near = [np.array(found) for found in tree.query_ball_point(means[tied], radius[tied])]
    rows = np.concatenate([alone, np.repeat(tied, [len(found) for found in near])])
    labels = np.concatenate([label[alone, 0], *near])
    return torch.from_numpy(rows), torch.from_numpy(labels.astype(np.int64))


def _neighbors_by_products(means, spread, points, batch_size):
    """Yield the pairs whose distances by products are the smallest up to rounding, of some labels after another."""
    largest = points.square().sum(1).max()
    slack = 2 * _TIED * spread + 64 * torch.finfo(points.dtype).eps * largest
    for start in range(0, len(points), _COLUMNS):
        some = points[start : start + _COLUMNS]
        lengths = some.square().sum(1)

        def near(rows, some=some, lengths=lengths, start=start):
            values = torch.addmm(lengths, means[rows], some.T, alpha=-2)
            row, label = (values <= values.amin(1, keepdim=True) + slack[rows, None]).nonzero(as_tuple=True)
            return row + rows.start, label + start

        size = 24 * len(some)
        block = rows_per_block(batch_size, len(means), size)
        found = list(in_blocks(near, len(means), block, bytes_per_row=size))
        yield tuple(torch.cat(part) for part in zip(*found))


# Ties


def _joined(pairs) -> Pairs:
    return Pairs(*(torch.cat(part) for part in zip(*pairs)))


def _settled(pairs: Pairs, P, labels, tie_break) -> Pairs:
    """Return one pair for each row: the smallest value, then the highest probability, then the first label."""
    row, label, value = pairs
    rows = torch.arange(len(P), device=P.device)
    low = torch.full((len(P),), torch.inf, dtype=P.dtype, device=P.device).scatter_reduce(0, row, value, "amin")
    tied = value <= low[row] * (1 + _TIED)
    row, label = row[tied], label[tied]
    if tie_break == "proba" and len(row) > len(P):
        column = torch.full((labels.size,), -1, dtype=torch.int64, device=P.device)
        column[labels.observed] = torch.arange(P.shape[1], device=P.device)
        proba = torch.where(column[label] >= 0, P[row, column[label].clamp(min=0)], 0.0)
        high = torch.zeros(len(P), dtype=P.dtype, device=P.device).scatter_reduce(0, row, proba, "amax")
        row, label = row[proba == high[row]], label[proba == high[row]]
    first = torch.full((len(P),), labels.size, dtype=torch.int64, device=P.device)
    return Pairs(rows, first.scatter_reduce(0, row, label, "amin"), low)
