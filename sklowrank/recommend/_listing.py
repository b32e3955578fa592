"""Lists of (row, column, value) as cells of a matrix, with what it takes to come back; here or on a cluster."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from .._math.linalg import power_of_two
from ..impute._observed_cells import ListedCells, RemoteCells
from ._identifiers import concat_identifiers, encode, find


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
    n_values: int  # of positive weight

    def sorted_rows(self, rows):
        """Return what belongs to rows of the cells in the order of the identifiers."""
        return rows if self.order is None else rows[self.order]

    def structure(self):
        """Return the numbers of observations (m, n), a CSR matrix, rows in the order of the identifiers."""
        return self.cells.structure if self.order is None else self.cells.structure()[self.order]


def listed(observations, *, centred: bool, ws) -> Listing:
    """Return the listing of observations, in this process or on a cluster, where a partition has all of its rows."""
    if observations.kind == "cluster":
        return _listed_on_cluster(observations, centred=centred, dtype=ws.dtype)
    rows, cols, Z, y, weights = _with_weight(observations)
    y = y.astype(np.float32 if ws.dtype == torch.float32 else np.float64, copy=False)
    weights = None if weights is None else weights.astype(np.float64)
    row_ids, rows = encode(rows, "row")
    col_ids, cols = encode(cols, "column")
    mean, unit = _centre_and_unit(y, weights, centred=centred)
    Z, centre, spread = _standardise(Z, weights)
    values, shape = (y - mean) / unit, (len(row_ids), len(col_ids))
    cells = ListedCells(ws, rows, cols, values, shape, Z if Z.size else None, weights)
    ends = (float(y.min()), float(y.max()))
    return Listing(cells, row_ids, col_ids, None, mean, unit, ends, centre, spread, len(y))


def _with_weight(observations):
    present = observations.present()
    if not len(present.y):
        raise ValueError("sample_weight is zero for all samples. At least one must be above 0.")
    return present


def _listed_on_cluster(pairs, *, centred: bool, dtype) -> Listing:
    rows, columns, lows, highs, total, n, sizes = pairs.reduce(_facts)
    rows, col_ids = concat_identifiers(rows), encode(concat_identifiers(columns), "column")[0]
    mean, size = float(total / n) if centred else 0.0, np.max(sizes, axis=0)
    unit = power_of_two(abs(min(lows)), abs(max(highs)))
    squares, sums = pairs.reduce(partial(_sums, mean, unit, size))
    centre, unit = sums / n, unit * float(squares / n) ** 0.5 or 1.0
    spread = np.sqrt(pairs.reduce(partial(_deviations, size, centre))[0] / n) * size
    spread = np.where(spread > 0, spread, 1.0)
    parts = pairs.rebuilt(partial(_cells_of_partition, dtype, col_ids, mean, unit, centre * size, spread)).kept()
    row_ids, place = encode(rows, "row")
    cells, ends, order = RemoteCells(parts, len(col_ids)), (min(lows), max(highs)), np.argsort(place)
    return Listing(cells, row_ids, col_ids, order, mean, unit, ends, centre * size, spread, len(pairs))


def _facts(part):
    """Return the identifiers of a partition, ends and sum of its values, its weight, sizes of its further columns."""
    rows, cols, Z, y, w = part.observations
    y = y.astype(np.float64)
    if not np.isfinite(y).all():
        raise ValueError("y has to be finite. Leave out the samples that are not.")
    ids = encode(rows, "row")[0], encode(cols, "column")[0]
    return [ids[0]], [ids[1]], [float(y.min())], [float(y.max())], (w * y).sum(), w.sum(), [_sizes(Z)]


def _sums(mean, unit, size, part):
    _, _, Z, y, w = part.observations
    return (w * np.square((y.astype(np.float64) - mean) / unit)).sum(), (w[:, None] * (Z / size)).sum(0)


def _deviations(size, centre, part):
    _, _, Z, _, w = part.observations
    return ((w[:, None] * np.square(Z / size - centre)).sum(0),)


def _cells_of_partition(dtype, col_ids, mean, unit, centre, spread, part):
    """Return the cells of a partition."""
    rows, cols, Z, y, w = part.observations
    exact = dtype == torch.float64
    ws, y = (part.ws.exact(), y.astype(np.float64)) if exact else (part.ws, y)
    row_ids, rows = encode(rows, "row")
    values, Z = (y - mean) / unit, ((Z - centre) / spread).astype(y.dtype)
    shape, cols = (len(row_ids), len(col_ids)), find(col_ids, cols)
    return ListedCells(ws, rows, cols, values, shape, Z if Z.size else None, w)


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
    y, unit = y.astype(np.float64), power_of_two(np.abs(y).max())
    mean = float(_mean(y, weights)) if centred else 0.0
    return mean, unit * float(np.sqrt(_mean(((y - mean) / unit) ** 2, weights))) or 1.0


def _mean(values, weights):
    return values.mean(0) if weights is None else weights @ values / weights.sum()
