"""Lists of (row, column, value) as cells of a matrix, with what it takes to come back; here or on a cluster."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from ..impute._observed_cells import ListedCells, RemoteCells
from ._identifiers import encode, find, together


class Listing(NamedTuple):
    """Cells of mean zero and mean square one, and where they come from."""

    cells: Any
    row_ids: np.ndarray  # (m,) sorted
    col_ids: np.ndarray  # (n,) sorted
    order: np.ndarray | None  # (m,) which row of the cells belongs to each identifier; None where it is the same
    mean: float
    unit: float
    ends: tuple[float, float]  # of the values
    centre: np.ndarray  # of the further columns
    spread: np.ndarray

    def sorted_rows(self, rows):
        """Return what belongs to rows of the cells in the order of the identifiers."""
        return rows if self.order is None else rows[self.order]

    def structure(self):
        """Return the numbers of observations (m, n), a CSR matrix, rows in the order of the identifiers."""
        return self.cells.structure if self.order is None else self.cells.structure()[self.order]


def listed(columns, y, weights, *, centred: bool, ws) -> Listing:
    """Return the listing of a list at hand; `weights` (n_samples,) are numbers of observations, None for one each."""
    y = y.astype(np.float32 if ws.dtype == torch.float32 else np.float64, copy=False)
    columns, y, weights = _present(columns, y, weights)
    row_ids, rows = encode(columns.rows, "row")
    col_ids, cols = encode(columns.cols, "column")
    mean, unit = _centre_and_unit(y, weights, centred=centred)
    Z, centre, spread = _standardise(columns.Z, weights)
    values, shape = (y - mean) / unit, (len(row_ids), len(col_ids))
    cells = ListedCells(ws, rows, cols, values, shape, Z if Z.size else None, weights)
    return Listing(cells, row_ids, col_ids, None, mean, unit, (float(y.min()), float(y.max())), centre, spread)


def _present(columns, y, weights):
    """Leave out what has no weight: it is as if it were not there."""
    if weights is None:
        return columns, y, None
    there = weights > 0
    if not there.any():
        raise ValueError("sample_weight is zero for all samples. At least one must be above 0.")
    if not there.all():
        columns, y, weights = type(columns)(*(part[there] for part in columns)), y[there], weights[there]
    return columns, y, weights.astype(np.float64)


def listed_on_cluster(pairs, *, centred: bool, dtype) -> Listing:
    """Return the listing of pairs on a cluster, whose partitions have all values of their rows.

    `dtype` is the precision of the cells.
    """
    rows, columns, lows, highs, total, n, sizes = pairs.reduce(_facts)
    rows, col_ids = together(rows), encode(together(columns), "column")[0]
    mean, size = float(total / n) if centred else 0.0, np.max(sizes, axis=0)
    squares, sums = pairs.reduce(partial(_sums, mean, size))
    centre, unit = sums / n, float(squares / n) ** 0.5 or 1.0
    spread = np.sqrt(pairs.reduce(partial(_deviations, size, centre))[0] / n) * size
    spread = np.where(spread > 0, spread, 1.0)
    parts = pairs.rebuilt(partial(_cells_of_pairs, dtype, col_ids, mean, unit, centre * size, spread)).kept()
    row_ids, place = encode(rows, "row")
    cells, ends = RemoteCells(parts, len(col_ids)), (min(lows), max(highs))
    return Listing(cells, row_ids, col_ids, np.argsort(place), mean, unit, ends, centre * size, spread)


def _facts(pairs):
    """Return the identifiers of a partition, ends and sum of its values, its weight, sizes of its further columns."""
    columns, y, w = pairs.columns, pairs.y.astype(np.float64), pairs.weights
    if not np.isfinite(y).all():
        raise ValueError("y has to be finite. Leave out the samples that are not.")
    ids = encode(columns.rows, "row")[0], encode(columns.cols, "column")[0]
    return [ids[0]], [ids[1]], [float(y.min())], [float(y.max())], (w * y).sum(), w.sum(), [_sizes(columns.Z)]


def _sums(mean, size, pairs):
    w = pairs.weights
    return (w * np.square(pairs.y.astype(np.float64) - mean)).sum(), (w[:, None] * (pairs.columns.Z / size)).sum(0)


def _deviations(size, centre, pairs):
    return ((pairs.weights[:, None] * np.square(pairs.columns.Z / size - centre)).sum(0),)


def _cells_of_pairs(dtype, col_ids, mean, unit, centre, spread, pairs):
    """Return the cells of a partition."""
    exact = dtype == torch.float64
    ws = pairs.ws.exact() if exact else pairs.ws
    y, columns = pairs.y.astype(np.float64) if exact else pairs.y, pairs.columns
    row_ids, rows = encode(columns.rows, "row")
    values, Z = (y - mean) / unit, (columns.Z - centre) / spread
    shape, cols = (len(row_ids), len(col_ids)), find(col_ids, columns.cols)
    return ListedCells(ws, rows, cols, values, shape, Z.astype(y.dtype) if Z.size else None, pairs.weights)


def _sizes(Z):
    return np.maximum(np.abs(Z).max(0, initial=0), np.finfo(np.float64).tiny)  # before anything is squared


def _standardise(Z, weights):
    """Return Z centred and divided by its columns' standard deviations, these means, and these deviations."""
    size = _sizes(Z)
    centre = _mean(Z / size, weights) * size
    spread = np.sqrt(_mean(((Z - centre) / size) ** 2, weights)) * size
    spread = np.where(Z.max(0) > Z.min(0), spread, 1.0)
    return (Z - centre) / spread, centre, spread


def _centre_and_unit(y, weights, *, centred):
    """Return the mean that is subtracted from y and the root mean square of the rest, 1 where that is zero."""
    y = y.astype(np.float64)
    mean = float(_mean(y, weights)) if centred else 0.0
    return mean, float(np.sqrt(_mean((y - mean) ** 2, weights))) or 1.0


def _mean(values, weights):
    return values.mean(0) if weights is None else weights @ values / weights.sum()
