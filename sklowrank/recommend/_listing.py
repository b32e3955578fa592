"""Lists of (row, column, value) as cells of a matrix, with what it takes to come back; here or on a cluster."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..impute._observed_cells import ListedCells, RemoteCells
from ._identifiers import as_identifiers, encode, find


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


def column_ids(X):
    """Return the second column of X, or one identifier for all where there is none."""
    return X[:, 1] if X.shape[1] > 1 else np.zeros(len(X))


def further_columns(X):
    """Return all columns but the identifiers, as numbers."""
    try:
        return X[:, 2:].astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            "Columns of X after the first two enter linearly and must be numbers. Encode or drop them."
        ) from None


def listed(X, y, *, centred: bool, ws) -> Listing:
    """Return the listing of a list at hand."""
    row_ids, rows = encode(X[:, 0], "row")
    col_ids, cols = encode(column_ids(X), "column")
    y = y.astype(np.float32 if y.dtype == np.float32 else np.float64, copy=False)
    mean, unit = _centre_and_unit(y, centred=centred)
    Z, centre, spread = _standardise(further_columns(X))
    values, shape = ((y - mean) / unit).astype(y.dtype), (len(row_ids), len(col_ids))
    cells = ListedCells(ws, rows, cols, values, shape, Z.astype(y.dtype) if Z.size else None)
    return Listing(cells, row_ids, col_ids, None, mean, unit, (float(y.min()), float(y.max())), centre, spread)


def listed_on_cluster(pairs, *, centred: bool) -> Listing:
    """Return the listing of pairs on a cluster, whose partitions have all values of their rows."""
    row_ids, columns, lows, highs, total, sizes = pairs.reduce(_facts)
    row_ids, col_ids, n = np.concatenate(row_ids), np.unique(np.concatenate(columns)), len(pairs)
    mean, size = float(total) / n if centred else 0.0, np.max(sizes, axis=0)
    squares, sums = pairs.reduce(partial(_sums, mean, size))
    centre, unit = sums / n, float(squares / n) ** 0.5 or 1.0
    spread = np.sqrt(pairs.reduce(partial(_deviations, size, centre))[0] / n) * size
    spread = np.where(spread > 0, spread, 1.0)
    parts = pairs.rebuilt(partial(_cells_of_pairs, col_ids, mean, unit, centre * size, spread)).kept()
    order = np.argsort(row_ids, kind="stable")
    cells, ends = RemoteCells(parts, len(col_ids)), (min(lows), max(highs))
    return Listing(cells, row_ids[order], col_ids, order, mean, unit, ends, centre * size, spread)


def _facts(pairs):
    """Return the identifiers of a partition, the ends and the sum of its values, the sizes of the further columns."""
    X, y = pairs.X, pairs.y.astype(np.float64)
    Z = further_columns(X)
    if not (np.isfinite(y).all() and np.isfinite(Z).all()):
        raise ValueError("y and the further columns of X have to be finite. Leave out the rows that are not.")
    ids = encode(X[:, 0], "row")[0], np.unique(as_identifiers(column_ids(X)))
    return [ids[0]], [ids[1]], [float(y.min())], [float(y.max())], y.sum(), [_sizes(Z)]


def _sums(mean, size, pairs):
    return np.square(pairs.y.astype(np.float64) - mean).sum(), (further_columns(pairs.X) / size).sum(0)


def _deviations(size, centre, pairs):
    return (np.square(further_columns(pairs.X) / size - centre).sum(0),)


def _cells_of_pairs(col_ids, mean, unit, centre, spread, pairs):
    """Return the cells of a partition."""
    X, y = pairs.X, pairs.y
    row_ids, rows = encode(X[:, 0], "row")
    values, Z = ((y - mean) / unit).astype(y.dtype), (further_columns(X) - centre) / spread
    shape = len(row_ids), len(col_ids)
    cols = find(col_ids, column_ids(X))
    return ListedCells(pairs.ws, rows, cols, values, shape, Z.astype(y.dtype) if Z.size else None)


def _sizes(Z):
    return np.maximum(np.abs(Z).max(0, initial=0), np.finfo(np.float64).tiny)  # before anything is squared


def _standardise(Z):
    """Return Z centred and divided by its columns' standard deviations, these means, and these deviations."""
    size = _sizes(Z)
    centre = (Z / size).mean(0) * size
    spread = ((Z - centre) / size).std(0) * size
    spread = np.where(spread > 0, spread, 1.0)
    return (Z - centre) / spread, centre, spread


def _centre_and_unit(y, *, centred):
    """Return the mean that is subtracted from y and the root mean square of the rest, 1 where that is zero."""
    y = y.astype(np.float64)
    mean = float(y.mean()) if centred else 0.0
    return mean, float(np.sqrt(np.mean((y - mean) ** 2))) or 1.0
