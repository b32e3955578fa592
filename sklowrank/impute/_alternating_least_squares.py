"""Penalised alternating least squares for matrix completion: the solvers of 'map'."""

import math
from functools import partial

import torch

from .._core.iterate import Step
from .._math.linalg import randomized_svd
from ._row_equations import (
    Model,
    column_sums,
    conjugate_gradients,
    gather_rows,
    posterior,
    refit_linear_term,
    row_equations,
    scaled_ridge,
    solve_nonnegative,
    squared_error,
    unpacked,
    with_ridge,
)


def penalised_start(cells, unit, options, ws):
    """Return a first model: leading singular vectors of the zero-filled matrix, or random factors.

    Values are divided by `unit`, so `alpha` is divided for the factors by its root on each side; not for the offsets.
    """
    n, k = cells.shape[1], options.n_components
    factors = _leading_vectors(cells, k, ws) if options.init == "svd" else ws.randn(n, k) / k**0.5
    mean = torch.zeros(n, k + options.offsets, dtype=ws.dtype, device=ws.device)
    mean[:, :k] = factors.abs() if options.nonnegative else factors
    alpha = max(options.alpha, 1e-10)  # at 0 a row with too few cells takes the solution of least norm
    ridge = torch.full((k + options.offsets,), alpha / unit, dtype=ws.dtype, device=ws.device)
    ridge[k:] = alpha
    return Model(mean, None, torch.ones_like(mean[:, 0]), ridge, ridge)


def _leading_vectors(cells, k, ws):
    """Return the leading right singular vectors of the zero-filled matrix, scaled to columns of factors (n, k)."""
    width = min(k + 5, *cells.shape)
    size = 2 * width * ws.dtype.itemsize

    def multiply(Y):
        return torch.cat(cells.gather(partial(_matmul, Y), size=size)[0])

    def multiply_transposed(Y):
        return cells.gather(_matmul_transposed, Y, size=size)[0]

    start = ws.randn(cells.shape[1], width)
    _, s, Vh = randomized_svd(multiply, multiply_transposed, start, n_components=min(k, width))
    density = cells.column_counts.sum() / math.prod(cells.shape)
    factors = 0.1 * ws.randn(cells.shape[1], k)  # for components without a singular vector
    factors[:, : len(s)] = _bounded_rows(Vh.mT * (s / density).sqrt())
    return factors


def _matmul(Y, block):
    return ([block.by_row.sums @ Y],)


def _matmul_transposed(block, Y):
    return (block.by_column.sums @ Y,)


def _bounded_rows(V):
    """Cut rows longer than five times the median to that length: no row or column may dominate the start."""
    length = torch.linalg.vector_norm(V, dim=1, keepdim=True).clamp_min(torch.finfo(V.dtype).tiny)
    return V * (5 * length.median() / length).clamp_max(1)


def penalised(cells, start, options):
    """Yield the model after each sweep of alternating least squares from the model `start`.

    The objective is the sum of squared residuals plus ridge * squares of factors and offsets.
    """
    model = start
    rows = torch.zeros(cells.shape[0], model.mean.shape[1], dtype=model.mean.dtype, device=model.mean.device)
    total, rmse = cells.column_counts.sum(), model.noise.new_tensor(math.inf)
    sweep = _inexact_sweep if options.iterative else _exact_sweep
    while True:
        rows, columns = sweep(cells, rows, model, options)
        model = model._replace(mean=columns)
        if cells.covariates is not None:
            refit_linear_term(cells, rows, model, options)

        squares = squared_error(cells, rows, model, options)
        penalty = _penalty(rows, model.row_ridge, cells.row_counts, options)
        penalty = penalty + _penalty(columns, model.column_ridge, cells.column_counts, options)
        previous, rmse = rmse, (squares / total).sqrt()
        gap = (rmse - previous).abs() / rmse.clamp_min(torch.finfo(rmse.dtype).tiny)
        gap, loss = torch.stack([gap, (squares + penalty) / total]).tolist()
        yield Step(model, gap, loss)


def _inexact_sweep(cells, rows, model, options):
    """Improve all rows, then all columns, by a few steps of conjugate gradients each."""
    everything, counts = slice(0, cells.shape[0]), (cells.row_counts, cells.column_counts)
    steps = {"offsets": options.offsets, "n_steps": options.cg_steps}
    ridge = scaled_ridge(model.row_ridge, counts[0], options)
    rows = conjugate_gradients(cells.by_row(everything), rows, model.mean, ridge, counts=counts, **steps)
    ridge = scaled_ridge(model.column_ridge, counts[1], options)
    matrix = cells.by_column(everything)
    return rows, conjugate_gradients(matrix, model.mean, rows, ridge, counts=counts[::-1], **steps)


def _exact_sweep(cells, rows, model, options):
    """Solve all rows exactly, block by block, then all columns."""
    sums, moments, means = gather_rows(cells, column_sums, row_equations(model, options), rows)
    A, rhs = unpacked(sums, moments, options)
    A = with_ridge(A, scaled_ridge(model.column_ridge, cells.column_counts, options))
    if options.nonnegative:
        return torch.cat(means), solve_nonnegative(A, rhs, model.mean)
    return torch.cat(means), posterior(A, rhs, covariances=False).mean


def _penalty(x, ridge, counts, options):
    return (scaled_ridge(ridge, counts, options) * x**2).sum()
