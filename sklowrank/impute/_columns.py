"""The columns of a table with missing values: their statistics, how they are scaled, and back to original units."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.special import gammaincinv, ndtri, stdtrit
from sklearn.impute import MissingIndicator

from .._core.rows import concat_blocks
from .._core.warn import warn
from ._observed_cells import ListedCells, RemoteCells, TableCells

_SAMPLE_ROWS = 2048  # at least that many rows, or cells, are looked at to count the components
_SAMPLE_ROWS_PER_COLUMN = 16


class ColumnOptions(NamedTuple):
    """The parameters that say how columns enter the model."""

    centred: bool
    scale: bool
    clip: Any  # checked: None, "observed", or two bounds
    keep_empty_features: bool


class ColumnStatistics(NamedTuple):
    """Statistics of the observed values of each column; float64 tensors of shape (n_features,)."""

    count: torch.Tensor
    mean: torch.Tensor  # NaN where nothing was observed
    std: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


class Columns(NamedTuple):
    """How the columns of a table enter the model and leave it; tensors of shape (n_features,)."""

    mean: torch.Tensor  # subtracted; NaN where nothing was observed
    scale: torch.Tensor  # divided by
    std: torch.Tensor  # of the observed values, 1 where it is 0: the unit of scores
    low: torch.Tensor  # bounds of the filled values
    high: torch.Tensor
    modelled: torch.Tensor  # bool: columns that the model describes; all others are filled with their mean
    kept: torch.Tensor  # bool: columns of the output
    with_missing: torch.Tensor  # bool: columns that had missing values in fit
    count: torch.Tensor  # of observed values: with few of them mean and scale are uncertain themselves


def column_statistics(rows) -> ColumnStatistics:
    """Return the statistics of the columns of a loaded table."""
    return ColumnStatistics(*rows.gather(_block_statistics, size=32 * rows.shape[1], merge=_merged_statistics))


def _block_statistics(X):
    if sp.issparse(X):
        return _sparse_statistics(X)
    there = ~X.isnan()
    count = there.sum(0).double()
    low = torch.where(there, X, torch.inf).amin(0).double()
    high = torch.where(there, X, -torch.inf).amax(0).double()
    size = _sizes(low, high)
    Z = X / size.to(X.dtype)
    mean = _divided(Z.nansum(0, dtype=torch.float64), count)
    std = _divided(((Z - mean.to(X.dtype)) ** 2).nansum(0, dtype=torch.float64), count).sqrt()
    return count, mean * size, std * size, low, high


def _sparse_statistics(X):
    X = X.tocsc()
    count = np.diff(X.indptr)
    column, filled = np.repeat(np.arange(X.shape[1]), count), count > 0
    low, high = np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf)
    if X.nnz:
        low[filled] = np.minimum.reduceat(X.data, X.indptr[:-1][filled])
        high[filled] = np.maximum.reduceat(X.data, X.indptr[:-1][filled])
    size = _sizes(torch.from_numpy(low), torch.from_numpy(high)).numpy()
    scaled, count = X.data / size[column], np.where(filled, count, np.nan)
    mean = np.bincount(column, scaled, X.shape[1]) / count
    std = np.sqrt(np.bincount(column, (scaled - mean[column]) ** 2, X.shape[1]) / count)
    columns = (np.nan_to_num(count), mean * size, std * size, low, high)
    return tuple(torch.from_numpy(a.astype(np.float64)) for a in columns)


def _sizes(low, high):
    """Return the largest magnitude of each column, 1 where it is 0: before anything is squared it is divided by it."""
    size = torch.maximum(low.abs(), high.abs())
    return torch.where(size.isfinite() & (size > 0), size, 1.0)


def _divided(total, count):
    return torch.where(count > 0, total / count.clamp_min(1), torch.nan)


def _merged_statistics(a, b):
    """Merge the statistics of two blocks (Chan, Golub, LeVeque 1983)."""
    a, b = ColumnStatistics(*a), ColumnStatistics(*b)
    count, low, high = a.count + b.count, torch.minimum(a.low, b.low), torch.maximum(a.high, b.high)
    size, share = _sizes(low, high), b.count / (a.count + b.count).clamp_min(1)
    (mean_a, std_a), (mean_b, std_b) = (((c.mean / size).nan_to_num(), (c.std / size).nan_to_num()) for c in (a, b))
    mean = (1 - share) * mean_a + share * mean_b
    variance = (1 - share) * std_a**2 + share * std_b**2 + share * (1 - share) * (mean_a - mean_b) ** 2
    mean, std = (torch.where(count > 0, found * size, torch.nan) for found in (mean, variance.sqrt()))
    return count, mean, std, low, high


def column_scaling(rows, options: ColumnOptions, ws) -> tuple[Columns, float]:
    """Return the :class:`Columns` of a loaded table, and the root mean square of its scaled values.

    Columns are modelled if something was observed in them, and, where they are centred, if it varies: a constant leaves
    zeros, and no offset of a row may move its filled values.
    """
    found = ColumnStatistics(*(a.to(ws.device) for a in column_statistics(rows)))
    filled, varying = found.count > 0, found.high > found.low
    mean = found.mean if options.centred else torch.where(filled, 0.0, torch.nan)
    std = torch.where(varying & (found.std > 0), found.std, 1.0)
    scale = std if options.scale else torch.ones_like(std)
    modelled = filled & varying if options.centred else filled
    unit = 1.0  # of columns that are centred and scaled
    if not (options.centred and options.scale):
        square = (found.std / scale) ** 2 + ((found.mean - mean) / scale) ** 2
        count = found.count[modelled]
        unit = float((count * square[modelled]).sum() / count.sum().clamp_min(1)) ** 0.5 or 1.0
    low, high = _bounds(found, options.clip)
    mean, scale = (a.to(ws.precision) for a in (mean, scale))  # as they are shown to the user
    mean, scale, std, low, high, count = (a.to(ws.dtype) for a in (mean, scale, std, low, high, found.count))
    kept, with_missing = filled | options.keep_empty_features, found.count < len(rows)
    return Columns(mean, scale, std, low, high, modelled, kept, with_missing, count), unit


def columns_with_more(columns, rows, *, widened) -> Columns:
    """Return the columns after further rows; their bounds are wider where asked for."""
    found = ColumnStatistics(*(a.to(columns.count) for a in column_statistics(rows)))
    columns = columns._replace(count=columns.count + found.count)
    if not widened:
        return columns
    return columns._replace(low=torch.minimum(columns.low, found.low), high=torch.maximum(columns.high, found.high))


def _bounds(found, clip):
    if isinstance(clip, str):  # "observed"
        return found.low, found.high
    bounds = (-np.inf, np.inf) if clip is None else clip
    return tuple(found.low.new_tensor(bound).expand(len(found.low)) for bound in bounds)


def warn_of_dropped(columns, names):
    """Warn of the columns without any observed value that are left out; `names` (n_features,)."""
    dropped = ~columns.kept.cpu().numpy()
    if dropped.any():
        warn(
            f"Skipping features without any observed values: {names[dropped]}. At least one non-missing value is "
            "needed for imputation. Pass keep_empty_features=True to keep them as zeros.",
            UserWarning,
        )


def missing_indicator(columns, missing_values):
    """Return scikit-learn's indicator of the columns with missing values, fitted to one row that has those of all."""
    value = 1.0 if missing_values == 0 else 0.0
    indicator = MissingIndicator(missing_values=missing_values, error_on_new=False)
    return indicator.fit(np.where(columns.with_missing.cpu().numpy(), float(missing_values), value)[None])


# Cells of the modelled columns


def cells_of_table(rows, columns, unit, ws):
    """Return the cells of a fit, those of a sample of the rows or None, and which rows have values (n_samples,).

    Their values are divided by `unit`, so that their mean square is 1.
    """
    columns = columns._replace(scale=columns.scale * unit)
    cells, sample = observed_cells(rows, columns, ws), _cells_of_sample(rows, columns, ws)
    return cells, sample, which_rows_have_values(rows, ws)


def observed_cells(rows, columns, ws):
    """Return the cells of the rows in which something was observed."""
    if rows.kind == "cluster":
        return RemoteCells(rows.rebuilt(partial(_cells_of_partition, columns)), int(columns.modelled.sum()))
    X = rows.take(slice(None))
    return cells_of_block(_only_rows(X, has_values(X)), columns, ws)


def which_rows_have_values(rows, ws) -> torch.Tensor:
    """Return of each row of a loaded table whether something was observed in it, bool of shape (n_samples,)."""
    return concat_blocks(rows.gather(_listed_has_values, size=rows.shape[1])[0]).to(ws.device)


def has_values(X) -> torch.Tensor:
    """Return of each row of a block whether something was observed in it, bool of shape (b,)."""
    return torch.from_numpy(np.diff(X.indptr) > 0) if sp.issparse(X) else (~X.isnan()).any(1)


def _only_rows(X, there):
    return X if there.all() else X[there.numpy() if sp.issparse(X) else there]


def _listed_has_values(X):
    return ([has_values(X)],)


def _cells_of_sample(rows, columns, ws):
    """Return the cells of rows drawn from a long table, enough to count its components; None where it is short."""
    n_rows, n_columns = rows.shape
    n_drawn = max(_SAMPLE_ROWS, _SAMPLE_ROWS_PER_COLUMN * n_columns)
    if n_rows < 2 * n_drawn:
        return None
    drawn = torch.randperm(n_rows, generator=ws.generator, device="cpu")[:n_drawn].sort().values
    X = rows.take(drawn)
    cells = cells_of_block(_only_rows(X, has_values(X)), columns, ws)
    return cells if cells.column_counts.sum() >= _SAMPLE_ROWS else None


def _cells_of_partition(columns, rows):
    X = rows.take(slice(None))
    return cells_of_block(_only_rows(X, has_values(X)), columns)


def cells_of_block(X, columns, ws=None):
    """Return the cells of a block, centred and scaled."""
    centre, scale = columns.mean[columns.modelled], columns.scale[columns.modelled]
    if not sp.issparse(X):
        return TableCells(((X if columns.modelled.all() else X[:, columns.modelled]) - centre) / scale)
    entries = X[:, columns.modelled.cpu().numpy()].tocoo()
    values = (entries.data - centre.cpu().numpy()[entries.col]) / scale.cpu().numpy()[entries.col]
    return ListedCells(ws, entries.row, entries.col, values, entries.shape)


# Back to the units of the table


def to_original_units(values, columns):
    """Return values (b, n) of the modelled columns as bounded values of all columns."""
    full = columns.mean.nan_to_num(nan=0.0).expand(len(values), -1).clone()
    full[:, columns.modelled] += values * columns.scale[columns.modelled]
    return torch.clamp(full, columns.low, columns.high)


def entries_to_original_units(values, at, columns):
    """Return values of single cells in the columns `at` as bounded values, NaN in dropped columns."""
    full = columns.mean.nan_to_num(nan=0.0)[at]
    full = full + torch.where(columns.modelled[at], values * columns.scale[at], 0.0)
    return torch.where(columns.kept[at], torch.clamp(full, columns.low[at], columns.high[at]), torch.nan)


def widening(columns):
    """Return by how much the deviations of each column are wider than its standard deviation says.

    That is Student's t, of one degree of freedom less than there are values, at the ends of a 90 % interval, over the
    normal law there: 5.4 for two values, 1.65 for four, 1.02 for a hundred.
    """
    count = columns.count.clamp_min(2)
    quantile = torch.from_numpy(stdtrit(count.cpu().numpy() - 1, 0.95)).to(count)
    return quantile / ndtri(0.95) * (count / (count - 1)).sqrt()


def drawn_widening(columns, ws):
    """Draw the ratio of true and observed standard deviation of each column, given its values."""
    count = columns.count.clamp_min(2)
    uniform = torch.rand(len(count), generator=ws.generator, dtype=torch.float64, device="cpu").numpy()
    chi_squared = 2 * gammaincinv((count.cpu().numpy() - 1) / 2, uniform)
    return (count / torch.from_numpy(chi_squared).to(count).clamp_min(torch.finfo(count.dtype).tiny)).sqrt()
