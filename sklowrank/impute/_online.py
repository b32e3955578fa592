"""Values that arrive in batches: the posterior of the columns after one batch is their prior for the next.

Streaming variational Bayes: a column's posterior precision is a sum over its values, so a batch adds to it and nothing
of earlier batches is kept. What earlier rows said stays as it was said, given the columns of then.
"""

from functools import partial

import torch

from ._observed_cells import pattern_of
from ._row_equations import (
    bytes_per_row,
    posterior,
    row_equations,
    summed_over_rows,
    unpacked,
    with_ridge,
)
from ._variational_solver import expected_squares

ROUNDS = 4  # of rows given columns and columns given rows, in each batch
_LEAST_NOISE = 1e-10  # relative to the mean square of the values


def absorb(cells, model, counts, options, *, earlier=None):
    """Return the model after a batch of cells, and the means of the batch's rows.

    `counts` (n,) are the numbers of values that the columns have had before. `earlier` says what is known of rows that
    are not new: a CSR matrix (m, n) of their numbers of values, their means (m, d), and a workspace.
    """
    before = model
    precision = torch.cholesky_inverse(torch.linalg.cholesky(before.cov))
    shift = precision @ before.mean.unsqueeze(2)
    for _ in range(ROUNDS):
        sums, moments, _ = _solve_rows(cells, model, before, earlier, options)
        A, rhs = unpacked(sums, moments, options)
        noise = model.noise[:, None, None]
        columns = posterior(precision + A / noise, (shift + rhs.unsqueeze(2) / noise).squeeze(2), covariances=True)
        model = model._replace(mean=columns.mean, cov=columns.cov)
    residual = expected_squares(cells, A, rhs, sums, moments, model, options)
    model = model._replace(noise=_noise(cells, model, residual, counts))
    return model, torch.cat(_solve_rows(cells, model, before, earlier, options)[2])


def _solve_rows(cells, model, before, earlier, options):
    """Solve the rows of a batch; return sums over each column's new cells, and the rows' means in a list."""
    aligned, known = (), None
    if earlier is not None:
        seen, means, ws = earlier
        aligned, known = (seen, means), partial(_known_equations, row_equations(before, options), ws)
    collect = partial(_sums_of_rows, row_equations(model, options), known)
    return cells.gather(collect, *aligned, size=2 * bytes_per_row(model, options), batch_size=options.batch_size)


def _sums_of_rows(equations, known, block, *earlier):
    model, options, F, f = equations
    A, rhs = unpacked(block.by_row.pattern @ F, block.by_row.sums @ f, options)
    if known is None:
        A = with_ridge(A, model.row_ridge)
    else:
        A_known, rhs_known = known(*earlier)
        A, rhs = A + A_known, rhs + rhs_known
    rows = posterior(A, rhs, covariances=True)
    return *summed_over_rows(block, rows, options), [rows.mean]


def _known_equations(equations, ws, structure, means):
    """Return the equations of rows from their earlier values, of which the pattern and the solution are known."""
    model, options, F, f = equations
    A, _ = unpacked(pattern_of(structure, ws).pattern @ F, f.new_zeros(structure.shape[0], f.shape[1]), options)
    A = with_ridge(A, model.row_ridge)
    return A, (A @ means.unsqueeze(2)).squeeze(2)


def _noise(cells, model, residual, counts):
    """Return the noise of each column: the mean over earlier values and new ones of the expected squared residual."""
    total = (counts + cells.column_counts).clamp_min(torch.finfo(counts.dtype).tiny)
    noise = (counts * model.noise + residual.clamp_min(0)) / total
    mean_square = cells.column_squares.sum() / cells.column_counts.sum() + model.noise.mean()
    return torch.where(cells.column_counts > 0, noise.maximum(_LEAST_NOISE * mean_square), model.noise)
