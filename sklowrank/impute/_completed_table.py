"""What a fitted model says of the rows of a table: filled values, standard errors, draws, factors."""

from functools import partial
from typing import NamedTuple

import torch

from .._core.rows import rows_of
from ._cell_values import draws_of_rows, values_of_pairs, values_of_rows, variances_of_rows
from ._columns import (
    Columns,
    cells_of_block,
    drawn_widening,
    entries_to_original_units,
    to_original_units,
    widening,
)
from ._fitted_model import on_all_columns
from ._options import CompletionOptions
from ._row_equations import (
    Model,
    RowPosterior,
    bytes_per_row,
    factors_of_cells,
    row_equations,
    solve_rows,
)
from ._table import put_observed, split_for_score


class TableModel(NamedTuple):
    """A fitted model with the columns that it describes."""

    columns: Columns
    model: Model
    options: CompletionOptions


def means_of_table(rows, fitted: TableModel, ws):
    """Return the means (n_samples, d) of the rows of a loaded table."""
    return torch.cat(_solved(rows, fitted, ws, _mean))


def _solved(rows, fitted, ws, compute, *, dense=False):
    """Return ``compute(fitted, block, posterior of its rows)`` for blocks of rows, the columns held fixed, in a list.

    `dense` says that the answer of a block is as wide as the table.
    """
    _, model, options = fitted
    size = bytes_per_row(model, options)
    if dense or rows.kind != "csr":
        size += 6 * rows.shape[1] * ws.dtype.itemsize
    collect = partial(_solved_block, fitted, row_equations(model, options), ws, compute)
    return rows.gather(collect, size=size, batch_size=options.batch_size)[0]


def _solved_block(fitted, equations, ws, compute, X):
    cells = cells_of_block(X, fitted.columns, ws)
    return ([compute(fitted, X, solve_rows(cells.by_row(slice(0, cells.shape[0])), equations))],)


def _mean(fitted, X, rows):
    return rows.mean


def filled_table(rows, fitted: TableModel, ws, *, indicators):
    """Return the filled table: the kept columns, and, where asked for, indicators of missing values behind them."""
    return torch.cat(_solved(rows, fitted, ws, partial(_filled, indicators), dense=True))


def _filled(indicators, fitted, X, rows):
    columns, model, options = fitted
    full = put_observed(to_original_units(values_of_rows(rows.mean, model, options), columns), X)
    if not indicators:
        return full[:, columns.kept]
    missing = put_observed(torch.ones_like(full), X, value=0.0)
    return torch.cat([full[:, columns.kept], missing[:, columns.with_missing]], 1)


def unfilled_table(filled, columns: Columns, missing_values):
    """Undo the filling of a table, by the indicators behind its columns."""
    n_kept = int(columns.kept.sum())
    full = filled.new_full((len(filled), len(columns.kept)), missing_values)
    full[:, columns.kept] = filled[:, :n_kept]
    missing = torch.zeros_like(full, dtype=torch.bool)
    missing[:, columns.with_missing] = filled[:, n_kept:] != 0
    return torch.where(missing, missing_values, full)


def standard_errors(rows, fitted: TableModel, ws):
    """Return the standard errors of the missing values of the kept columns, 0 at observed values."""
    scale = (fitted.columns.scale * widening(fitted.columns))[fitted.columns.modelled]
    return torch.cat(_solved(rows, fitted, ws, partial(_standard_errors, scale), dense=True))


def _standard_errors(scale, fitted, X, rows):
    columns, model, options = fitted
    full = rows.mean.new_zeros(X.shape)
    full[:, columns.modelled] = variances_of_rows(rows, model, options).sqrt() * scale
    return put_observed(full, X, value=0.0)[:, columns.kept]


def drawn_tables(rows, fitted: TableModel, n_draws, ws):
    """Return draws of the kept columns of a table."""
    columns, model, options = fitted
    means, covs = zip(*_solved(rows, fitted, ws, _mean_and_cov))
    posterior = RowPosterior(torch.cat(means), torch.cat(covs), None)
    centre, X = values_of_rows(posterior.mean, model, options), rows.take(slice(None))
    tables = []
    for draw in draws_of_rows(posterior, model, options, n_draws, ws):
        draw = centre + (draw - centre) * drawn_widening(columns, ws)[columns.modelled]
        tables.append(put_observed(to_original_units(draw, columns), X)[:, columns.kept])
    return tables


def _mean_and_cov(fitted, X, rows):
    return rows.mean, rows.cov


def score_of_hidden(rows, fitted: TableModel, share, ws):
    """Return minus the root mean squared standardised error at a share of the observed cells, which is hidden."""
    hidden, rest = split_for_score(rows.take(slice(None)), share, fitted.columns.modelled)
    means = means_of_table(rows_of(rest), fitted, ws)
    values = entries_to_original_units(_values_of_entries(hidden, means, fitted), hidden.columns, fitted.columns)
    error = (values - hidden.values) / fitted.columns.std[hidden.columns]
    return -float((error**2).mean().nan_to_num(nan=0.0).sqrt())


def _values_of_entries(entries, means, fitted):
    """Return the model's values of single cells, the means of all rows being given; 0 in columns left out."""
    modelled = fitted.columns.modelled
    P, F = factors_of_cells(means, fitted.model, fitted.options)
    if not len(F):
        return P.new_zeros(len(entries.rows))
    place = (modelled.cumsum(0) - 1).clamp_min(0)[entries.columns]  # of a column among the modelled ones
    return torch.where(modelled[entries.columns], values_of_pairs(P, F, entries.rows, place), 0.0)


def posterior_covariances(fitted: TableModel):
    """Return the covariances of all columns, of width n_components + 1: factors, switched off, offset."""
    columns, model, options = fitted
    k, d = model.mean.shape[1] - options.offsets, options.n_components + 1
    cov = model.cov.new_zeros(len(model.cov), d, d)
    place = torch.arange(model.mean.shape[1], device=cov.device)
    place[k:] = d - 1
    cov[:, place[:, None], place] = model.cov
    return on_all_columns(cov, columns.modelled)
