"""The columns of a table with holes: what was observed in each, how they are scaled, and how fills get their units."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.special import gammaincinv, ndtri, stdtrit

from .._core.rows import MappedRows, rows_of
from .._core.workspace import on_cluster
from ._observed_cells import ListedCells, RemoteCells, TableCells
from ._row_equations import augmented, bytes_per_row, factors_of, pairs_of, seen_by_rows, solve_rows

_SAMPLE_ROWS = 2048  # at least that many rows, or cells, are looked at to count the components
_SAMPLE_ROWS_PER_COLUMN = 16


class Columns(NamedTuple):
    """What was observed in each column; float64 tensors of shape (n_features,)."""

    count: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


class Layout(NamedTuple):
    """How the columns of a table enter the model and leave it; arrays of shape (n_features,)."""

    mean: Any  # subtracted; NaN where nothing was observed
    scale: Any  # divided by: the model sees values of mean square 1
    std: Any  # of the observed values, 1 where it is 0: the yardstick of scores
    low: Any  # bounds of the fills
    high: Any
    modelled: Any  # bool: columns with something to model; all others are filled with their mean
    kept: Any  # bool: columns of the output
    holes: Any  # bool: columns that had holes in fit
    count: Any  # of observed values: with few of them mean and scale are uncertain themselves


class Entries(NamedTuple):
    """Single cells of a table."""

    rows: torch.Tensor
    columns: torch.Tensor
    values: torch.Tensor


def load_table(X, ws, missing_values):
    """Return X as a tensor in which NaN is missing, or as a CSR matrix of the observed values alone.

    Rows of a cluster stay there.
    """
    if on_cluster(X):
        return X if np.isnan(missing_values) else MappedRows(X, partial(_with_nan, missing_values), X.shape[1])
    if not sp.issparse(X):
        X = ws.load(X)
        return X if np.isnan(missing_values) else _with_nan(missing_values, X)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    missing = np.isnan(X.data) | (X.data == missing_values)
    if not missing.any():
        return X
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))[~missing]
    return sp.csr_matrix((X.data[~missing], (rows, X.indices[~missing])), shape=X.shape)


def _with_nan(missing_values, X):
    return torch.where(missing_values == X, torch.nan, X)


def rows_with_values(X):
    """Return the rows of a loaded table in which something was observed."""
    there = np.diff(X.indptr) > 0 if sp.issparse(X) else (~X.isnan()).any(1)
    return X if there.all() else X[there]


def cells_of_some_rows(X, layout, ws):
    """Return the cells of rows drawn from a long table, enough to count its components; None where it is short."""
    n_rows, n_columns = X.shape
    n_drawn = max(_SAMPLE_ROWS, _SAMPLE_ROWS_PER_COLUMN * n_columns)
    if n_rows < 2 * n_drawn:
        return None
    drawn = torch.randperm(n_rows, generator=ws.generator, device="cpu")[:n_drawn].sort().values
    cells = cells_in(rows_with_values(rows_of(X).take(drawn)), layout, ws)
    return cells if cells.column_counts.sum() >= _SAMPLE_ROWS else None


def observe(X, ws):
    """Return the :class:`Columns` of a loaded table."""
    return _observe_listed(X, ws) if sp.issparse(X) else _observe_rows(rows_of(X))


def _observe_rows(rows):
    width = 32 * rows.shape[1]
    count, low, high = rows.gather(_counts_and_ends, size=width, merge=_merged_ends)
    size = torch.maximum(low.abs(), high.abs())
    size = torch.where((count > 0) & (size > 0), size, 1.0)  # before anything is squared: 1e25 must survive float32
    mean = _divide(rows.gather(partial(_sums, size), size=width)[0], count)
    std = _divide(rows.gather(partial(_squares, size, mean), size=width)[0], count).sqrt()
    return Columns(count, mean * size, std * size, low, high)


def _counts_and_ends(X):
    there = ~X.isnan()
    low = torch.where(there, X, torch.inf).amin(0).double()
    return there.sum(0).double(), low, torch.where(there, X, -torch.inf).amax(0).double()


def _merged_ends(a, b):
    return a[0] + b[0], torch.minimum(a[1], b[1]), torch.maximum(a[2], b[2])


def _sums(size, X):
    return ((X / size.to(X.dtype)).nansum(0, dtype=torch.float64),)


def _squares(size, mean, X):
    return (((X / size.to(X.dtype) - mean.to(X.dtype)) ** 2).nansum(0, dtype=torch.float64),)


def _observe_listed(X, ws):
    X = X.tocsc()
    count = np.diff(X.indptr)
    column, filled = np.repeat(np.arange(X.shape[1]), count), count > 0
    low, high = np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf)
    if X.nnz:
        low[filled] = np.minimum.reduceat(X.data, X.indptr[:-1][filled])
        high[filled] = np.maximum.reduceat(X.data, X.indptr[:-1][filled])
    size = np.maximum(abs(low), abs(high))
    size = np.where(filled & (size > 0), size, 1.0)
    scaled = X.data / size[column]
    mean = np.bincount(column, scaled, X.shape[1]) / np.where(filled, count, np.nan)
    std = np.sqrt(np.bincount(column, (scaled - mean[column]) ** 2, X.shape[1]) / np.where(filled, count, np.nan))
    columns = (count, mean * size, std * size, low, high)
    return Columns(*(torch.from_numpy(a.astype(np.float64)).to(ws.device) for a in columns))


def _divide(total, count):
    return torch.where(count > 0, total / count.clamp_min(1), torch.nan)


def lay_out(X, ws, *, centred, scaled, clip, keep_empty):
    """Return the :class:`Layout` of a loaded table, and the unit: the factor common to all of its `scale`.

    Columns are modelled if something was observed in them, and, where they are centred, if it varies: what is left of a
    constant is zero, and no offset of a row may move its fill.
    """
    columns = observe(X, ws)
    filled, varying = columns.count > 0, columns.high > columns.low
    mean = columns.mean if centred else torch.where(filled, 0.0, torch.nan)
    std = torch.where(varying & (columns.std > 0), columns.std, 1.0)
    scale = std if scaled else torch.ones_like(std)
    modelled = filled & varying if centred else filled
    square = (columns.std / scale) ** 2 + ((columns.mean - mean) / scale) ** 2
    count = columns.count[modelled]
    unit = float((count * square[modelled]).sum() / count.sum().clamp_min(1)) ** 0.5 or 1.0
    low, high = _bounds(columns, clip)
    mean, scale, std, low, high, count = (a.to(ws.dtype) for a in (mean, scale * unit, std, low, high, columns.count))
    kept, holes = filled | keep_empty, columns.count < X.shape[0]
    return Layout(mean, scale, std, low, high, modelled, kept, holes, count), unit


def layout_with_more(layout, columns, *, widened):
    """Return the layout after further rows, of which `columns` says what was observed; wider bounds where asked for."""
    layout = layout._replace(count=layout.count + columns.count.to(layout.count))
    if not widened:
        return layout
    low, high = columns.low.to(layout.low), columns.high.to(layout.high)
    return layout._replace(low=torch.minimum(layout.low, low), high=torch.maximum(layout.high, high))


def check_clip(clip, n_features=None):
    """Return `clip` as it is, or its bounds as floats or arrays of shape (n_features,), which they may be if given."""
    if clip is None or isinstance(clip, str):
        return clip
    bounds = [np.asarray(bound) for bound in clip]
    if len(bounds) != 2 or any(bound.dtype.kind not in "biuf" or np.isnan(bound).any() for bound in bounds):
        raise ValueError(f"clip={clip} must be a pair (low, high) of numbers with low <= high, 'observed' or None.")
    for name, bound in zip(("low", "high"), bounds):
        if bound.shape not in ((), (n_features,)):
            per_feature = "" if n_features is None else f", or one bound for each of the n_features={n_features}"
            raise ValueError(f"The {name} bound in clip has shape {bound.shape}. Pass a number{per_feature}.")
    low, high = (bound.astype(np.float64) for bound in bounds)
    wrong = np.flatnonzero(np.atleast_1d(low > high))
    if len(wrong):
        pair = tuple(float(bound.flat[min(wrong[0], bound.size - 1)]) for bound in (low, high))
        where = "" if low.ndim == high.ndim == 0 else f" of feature {wrong[0]}"
        raise ValueError(f"The bounds {pair}{where} in clip are not in order: they need low <= high.")
    return tuple(bound.item() if bound.ndim == 0 else bound for bound in (low, high))


def _bounds(columns, clip):
    if isinstance(clip, str):  # "observed"
        return columns.low, columns.high
    bounds = (-np.inf, np.inf) if clip is None else clip
    return tuple(columns.low.new_tensor(bound).expand(len(columns.low)) for bound in bounds)


def observed_cells(table, layout, ws):
    """Return the cells of the modelled columns of the rows in which something was observed."""
    if sp.issparse(table) or isinstance(table, torch.Tensor):
        return cells_in(rows_with_values(table), layout, ws)
    return RemoteCells(table.rebuilt(partial(_cells_of_partition, layout)), int(layout.modelled.sum()))


def _cells_of_partition(layout, rows):
    return cells_in(rows_with_values(rows.take(slice(None))), layout)


def cells_in(X, layout, ws=None):
    """Return the cells of the modelled columns of a loaded table, centred and scaled to mean square 1."""
    centre, scale = layout.mean[layout.modelled], layout.scale[layout.modelled]
    if not sp.issparse(X):
        return TableCells(((X if layout.modelled.all() else X[:, layout.modelled]) - centre) / scale)
    entries = X[:, layout.modelled.cpu().numpy()].tocoo()
    values = (entries.data - centre.cpu().numpy()[entries.col]) / scale.cpu().numpy()[entries.col]
    return ListedCells(ws, entries.row, entries.col, values, entries.shape)


def over_all(values, layout):
    """Spread values of the modelled columns over all columns, zeros elsewhere."""
    full = values.new_zeros(len(layout.modelled), *values.shape[1:])
    full[layout.modelled] = values
    return full


def cov_over_all(model, layout, n_components):
    """Return the posterior covariances of all columns, of width n_components + 1: factors, switched off, offset."""
    k = factors_of(model.mean, model).shape[1]
    cov = model.cov.new_zeros(len(model.cov), n_components + 1, n_components + 1)
    place = torch.arange(model.mean.shape[1], device=cov.device)
    place[k:] = n_components
    cov[:, place[:, None], place] = model.cov
    return over_all(cov, layout)


def check_positions(positions, name, limit):
    """Return positions of rows or columns as int64, all within the limit."""
    positions = np.asarray(positions)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a list of integers, got an array of {positions.dtype}, {positions.ndim}-d.")
    if len(positions) and not (positions.min() >= 0 and positions.max() < limit):
        raise ValueError(f"{name} must lie in [0, {limit}), got {positions.min()} to {positions.max()}.")
    return positions.astype(np.int64)


def in_units(fit, layout):
    """Return the model's values of the modelled columns as bounded values of all columns, in the units of the table."""
    full = layout.mean.nan_to_num(nan=0.0).expand(len(fit), -1).clone()
    full[:, layout.modelled] += fit * layout.scale[layout.modelled]
    return torch.clamp(full, layout.low, layout.high)


def fold_in(table, layout, model, ws, compute, *, batch_size, dense=False):
    """Return ``compute(part of the table, Rows)`` for blocks of rows, solved with the columns held fixed.

    `dense` says that the answer of a block is as wide as the table.
    """
    rows = rows_of(table)
    collect = partial(_fold_in, layout, model, seen_by_rows(model), ws if rows.kind == "csr" else None, compute)
    size = bytes_per_row(model)
    if dense or rows.kind != "csr":
        size += 6 * table.shape[1] * ws.dtype.itemsize
    return rows.gather(collect, size=size, batch_size=batch_size)[0]


def _fold_in(layout, model, seen, ws, compute, part):
    cells = cells_in(part, layout, ws)
    return ([compute(part, solve_rows(cells.by_row(slice(0, cells.shape[0])), model, seen))],)


def means_in(part, rows):
    """Return the means of rows that were folded in."""
    return rows.mean


def fit_at(entries, rows, model, layout):
    """Return the model's values of single cells, the means of all rows being given; 0 in columns left out."""
    P, F = augmented(rows, model)
    if not len(F):
        return P.new_zeros(len(entries.rows))
    place = (layout.modelled.cumsum(0) - 1).clamp_min(0)  # of a column among the modelled ones
    return torch.where(layout.modelled[entries.columns], pairs_of(P, F, entries.rows, place[entries.columns]), 0.0)


def widening(layout):
    """Return by how much the deviations of each column are wider than its standard deviation says.

    That is Student's t, of one degree of freedom less than there are values, at the ends of a 90 % interval, over the
    normal law there: 5.4 for two values, 1.65 for four, 1.02 for a hundred.
    """
    count = layout.count.clamp_min(2)
    quantile = torch.from_numpy(stdtrit(count.cpu().numpy() - 1, 0.95)).to(count)
    return quantile / ndtri(0.95) * (count / (count - 1)).sqrt()


def drawn_widening(layout, ws):
    """Draw the ratio of true and observed standard deviation of each column, given its values."""
    count = layout.count.clamp_min(2)
    uniform = torch.rand(len(count), generator=ws.generator, dtype=torch.float64, device="cpu").numpy()
    chi_squared = 2 * gammaincinv((count.cpu().numpy() - 1) / 2, uniform)
    return (count / torch.from_numpy(chi_squared).to(count).clamp_min(torch.finfo(count.dtype).tiny)).sqrt()


def entries_in_units(fit, columns, layout):
    """Return the model's values of single cells as bounded values in the units of the table, NaN in dropped columns."""
    values = layout.mean.nan_to_num(nan=0.0)[columns]
    values = values + torch.where(layout.modelled[columns], fit * layout.scale[columns], 0.0)
    values = torch.clamp(values, layout.low[columns], layout.high[columns])
    return torch.where(layout.kept[columns], values, torch.nan)


def put_observed(full, X, value=None):
    """Write the observed cells of a loaded table into `full`, or `value` in their place, and return it."""
    if not sp.issparse(X):
        return torch.where(X.isnan(), full, X if value is None else value)
    rows, columns, values = observed_entries(X, full.device)
    full[rows, columns] = values if value is None else value
    return full


def with_holes_again(filled, layout, missing_values):
    """Undo the filling of a table, beside which stand the indicators of the columns that had holes in fit."""
    n_kept = int(layout.kept.sum())
    full = filled.new_full((len(filled), len(layout.kept)), missing_values)
    full[:, layout.kept] = filled[:, :n_kept]
    missing = torch.zeros_like(full, dtype=torch.bool)
    missing[:, layout.holes] = filled[:, n_kept:] != 0
    return torch.where(missing, missing_values, full)


def hide(X, share, modelled):
    """Return a share of the observed cells of the modelled columns of a loaded table, and the table without them."""
    rows, columns, values = observed_entries(X, modelled.device)
    eligible = modelled[columns].nonzero()[:, 0].cpu().numpy()
    chosen = np.random.RandomState(0).permutation(eligible)[: max(1, int(share * len(eligible)))]
    chosen = torch.from_numpy(np.sort(chosen)).to(modelled.device)
    hidden = Entries(rows[chosen], columns[chosen], values[chosen])
    if not sp.issparse(X):
        rest = X.clone()
        rest[hidden.rows, hidden.columns] = torch.nan
        return hidden, rest
    rest = torch.ones(len(values), dtype=torch.bool, device=modelled.device)
    rest[chosen] = False
    rest = rest.cpu().numpy()
    return hidden, sp.csr_matrix((X.data[rest], (rows.cpu().numpy()[rest], X.indices[rest])), shape=X.shape)


def observed_entries(X, device):
    """Return the observed cells of a loaded table."""
    if not sp.issparse(X):
        rows, columns = torch.nonzero(~X.isnan(), as_tuple=True)
        return Entries(rows, columns, X[rows, columns])
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    return Entries(*(torch.from_numpy(a).to(device) for a in (rows, X.indices.astype(np.int64), X.data)))
