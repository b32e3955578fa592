"""Penalised alternating least squares for matrix completion: the 'map' solvers beside the variational one."""

import math
from functools import partial

import torch

from .._core.iterate import Step
from .._math.linalg import randomized_svd
from ._conjugate_gradients import conjugate_gradients
from ._row_equations import (
    Model,
    equations,
    expectations,
    in_row_blocks,
    posterior,
    refit_linear_term,
    scaled_ridge,
    seen_by_rows,
    solve_nonnegative,
    solve_rows,
    squared_error,
    with_ridge,
)


def penalised(cells, start, *, cg_steps, batch_size):
    """Yield the model after each sweep of alternating least squares from the model `start`.

    The objective is the sum of squared residuals plus ridge * squares of factors and offsets.
    """
    model = start
    rows = torch.zeros(cells.shape[0], model.mean.shape[1], dtype=model.mean.dtype, device=model.mean.device)
    total, rmse = cells.column_counts.sum(), model.noise.new_tensor(math.inf)
    while True:
        if model.iterative:
            rows, columns = _inexact_sweep(cells, rows, model, cg_steps)
        else:
            rows, columns = _exact_sweep(cells, rows, model, batch_size)
        model = model._replace(mean=columns)
        if cells.covariates is not None:
            refit_linear_term(cells, rows, model, batch_size)

        squares = squared_error(cells, rows, model, batch_size)
        penalty = _penalty(rows, model.row_ridge, cells.row_counts, model)
        penalty = penalty + _penalty(columns, model.column_ridge, cells.column_counts, model)
        previous, rmse = rmse, (squares / total).sqrt()
        gap = (rmse - previous).abs() / rmse.clamp_min(torch.finfo(rmse.dtype).tiny)
        gap, loss = torch.stack([gap, (squares + penalty) / total]).tolist()
        yield Step(model, gap, loss)


def penalised_start(cells, n_components, *, alpha, by_count, offsets, nonnegative, iterative, init, ws):
    """Return a first model: leading singular vectors of the zero-filled matrix, or random factors.

    `alpha` is the pair of penalties of the factors and of the offsets.
    """
    n, k = cells.shape[1], n_components
    if init == "svd":
        width = min(k + 5, *cells.shape)
        options = {"size": 2 * width * ws.dtype.itemsize}

        def multiply(Y):
            return torch.cat(cells.gather(partial(_times, Y), **options)[0])

        def multiply_transposed(Y):
            return cells.gather(_turned_times, Y, **options)[0]

        start = ws.randn(n, width)
        _, s, Vh = randomized_svd(multiply, multiply_transposed, start, n_components=min(k, width))
        density = cells.column_counts.sum() / math.prod(cells.shape)
        factors = 0.1 * ws.randn(n, k)  # what the table has no singular vectors for
        factors[:, : len(s)] = _bounded_rows(Vh.mT * (s / density).sqrt())
    else:
        factors = ws.randn(n, k) / k**0.5
    mean = torch.zeros(n, k + offsets, dtype=ws.dtype, device=ws.device)
    mean[:, :k] = factors.abs() if nonnegative else factors
    ridge = torch.full((k + offsets,), alpha[0], dtype=ws.dtype, device=ws.device)
    if offsets:
        ridge[-1] = alpha[1]
    ones = torch.ones_like(mean[:, 0])
    return Model(mean, None, ones, ridge, ridge, bool(offsets), by_count, nonnegative, iterative)


def _times(Y, block):
    return ([block.by_row().values @ Y],)


def _turned_times(block, Y):
    return (block.by_column().values @ Y,)


def _bounded_rows(V):
    """Cut rows longer than five times the median to that length: no row or column may dominate the start."""
    length = torch.linalg.vector_norm(V, dim=1, keepdim=True).clamp_min(torch.finfo(V.dtype).tiny)
    return V * (5 * length.median() / length).clamp_max(1)


def _inexact_sweep(cells, rows, model, cg_steps):
    """Improve all rows, then all columns, by a few steps of conjugate gradients each."""
    everything, counts = slice(0, cells.shape[0]), (cells.row_counts, cells.column_counts)
    rows = conjugate_gradients(
        cells.by_row(everything),
        rows,
        model.mean,
        scaled_ridge(model.row_ridge, counts[0], model),
        offsets=model.offsets,
        counts=counts[0],
        other_counts=counts[1],
        n_steps=cg_steps,
    )
    columns = conjugate_gradients(
        cells.by_column(everything),
        model.mean,
        rows,
        scaled_ridge(model.column_ridge, counts[1], model),
        offsets=model.offsets,
        counts=counts[1],
        other_counts=counts[0],
        n_steps=cg_steps,
    )
    return rows, columns


def _exact_sweep(cells, rows, model, batch_size):
    """Solve all rows exactly, block by block, then all columns."""
    collect = partial(_row_sums, model, seen_by_rows(model))
    means, sums, moments = in_row_blocks(collect, cells, model, batch_size, rows)
    A, rhs = equations(sums, moments, model)
    A = with_ridge(A, scaled_ridge(model.column_ridge, cells.column_counts, model))
    if model.nonnegative:
        return torch.cat(means), solve_nonnegative(A, rhs, model.mean)
    return torch.cat(means), posterior(A, rhs, covariances=False).mean


def _row_sums(model, seen, block, start):
    mean = solve_rows(block.by_row(), model, seen, start=start).mean
    F, f = expectations(mean, None, model.offsets)
    face = block.by_column()
    return [mean], face.pattern @ F, face.values @ f


def _penalty(x, ridge, counts, model):
    return (scaled_ridge(ridge, counts, model) * x**2).sum()
