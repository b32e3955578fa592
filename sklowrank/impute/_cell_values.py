"""What a solution says of cells: their values, their variances, draws."""

import torch

from .._core.blocks import in_blocks, rows_per_block
from ._row_equations import expectations, factors_of_cells, scaled_ridge, unpacked, upper_triangle, with_ridge


def values_of_rows(rows, model, options):
    """Return the model's values of all cells of some rows, of shape (b, n), their means being given."""
    P, F = factors_of_cells(rows, model, options)
    return P @ F.mT


def values_of_pairs(P, F, rows, columns):
    """Return P[rows] . F[columns] for a list of cells, some at a time."""
    need = 3 * P.shape[1] * P.dtype.itemsize
    block = rows_per_block("auto", len(rows), need)
    parts = in_blocks(lambda c: (P[rows[c]] * F[columns[c]]).sum(1), len(rows), block, bytes_per_row=need)
    return torch.cat([P.new_zeros(0), *parts])


def variances_of_rows(rows, model, options):
    """Return the predictive variances of all cells of some rows, of shape (b, n), noise included."""
    return variance_factors_of_rows(rows, options) @ variance_factors_of_columns(model, options).mT + model.noise


def variance_factors_of_rows(rows, options):
    """Return what each row adds to a cell's variance: its product with that of the column is the variance.

    Var[u . v + b] = <cov of the row, E[f f']> + <E[g] E[g]', cov of the column>, with f = (v, 1) and g = (u, 1); of
    symmetric matrices the upper triangle suffices, each entry off the diagonal counted twice.
    """
    d = rows.mean.shape[1]
    upper = upper_triangle(d, rows.mean.device)
    g = rows.mean.clone()
    if options.offsets:
        g[:, -1] = 1
    both = torch.cat([rows.cov.flatten(1)[:, upper], (g.unsqueeze(2) * g.unsqueeze(1)).flatten(1)[:, upper]], 1)
    return both * torch.where(upper % (d + 1) == 0, 1.0, 2.0).to(both.dtype).repeat(2)


def variance_factors_of_columns(model, options):
    """Return the columns' counterpart of :func:`variance_factors_of_rows`."""
    upper = upper_triangle(model.mean.shape[1], model.mean.device)
    second = expectations(model.mean, model.cov, options.offsets)[0][:, : len(upper)]
    return torch.cat([second, model.cov.flatten(1)[:, upper]], 1)


def row_covariances(cells, equations):
    """Return the posterior covariances of rows of which only the pattern of observed cells is known."""
    model, options, F, f = equations
    A, _ = unpacked(cells.pattern @ F, f.new_zeros(cells.pattern.shape[0], f.shape[1]), options)
    A = with_ridge(A, scaled_ridge(model.row_ridge, cells.row_counts, options))
    return torch.cholesky_inverse(torch.linalg.cholesky(A))


def draws_of_rows(rows, model, options, n_draws, ws):
    """Yield draws of all cells of some rows, of shape (b, n): columns' and rows' factors and noise drawn anew."""
    rows_root, columns_root = (torch.linalg.cholesky(cov) for cov in (rows.cov, model.cov))
    for _ in range(n_draws):
        u = rows.mean + _correlated(rows_root, ws)
        v = model._replace(mean=model.mean + _correlated(columns_root, ws))
        yield values_of_rows(u, v, options) + model.noise.sqrt() * ws.randn(len(u), len(v.mean))


def _correlated(root, ws):
    return (root @ ws.randn(*root.shape[:2], 1)).squeeze(2)
