"""Penalised alternating least squares for matrix completion: the 'map' solvers beside the variational one."""

import math

import torch

from .._core.iterate import Step
from .._core.linalg import randomized_svd
from ._observed_cells import fit_at_cells, residual_at_cells
from ._row_equations import (
    Model,
    column_ridge,
    equations,
    expectations,
    in_row_blocks,
    posterior,
    refit_linear_term,
    row_sums,
    seen_by_rows,
    solve_nonnegative,
    solve_rows,
    squared_error,
    with_ridge,
)


def penalised(cells, start, *, solver, cg_steps, batch_size):
    """Yield the model after each sweep of alternating least squares from the model `start`.

    The objective is the sum of squared residuals plus ridge * squares of factors and offsets.
    """
    model, everything = start, slice(0, cells.shape[0])
    rows = torch.zeros(cells.shape[0], model.mean.shape[1], dtype=model.mean.dtype, device=model.mean.device)
    total, rmse = cells.column_counts.sum(), model.noise.new_tensor(math.inf)
    while True:
        if solver == "cg":
            block = cells.block(everything)
            rows = _conjugate_gradients(block, rows, model.mean, cells.row_counts, model.row_ridge, model, cg_steps)
            columns = _conjugate_gradients(
                _transposed(block), model.mean, rows, cells.column_counts, model.column_ridge, model, cg_steps
            )
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


def penalised_start(cells, n_components, *, alpha, by_count, offsets, nonnegative, init, ws):
    """Return a first model: leading singular vectors of the zero-filled matrix, or random factors.

    `alpha` is the pair of penalties of the factors and of the offsets.
    """
    n, k = cells.shape[1], n_components
    if init == "svd":
        block = cells.block(slice(0, cells.shape[0]))
        width = min(k + 5, *cells.shape)
        _, s, Vh = randomized_svd(
            lambda Y: block.values @ Y, lambda Y: block.values_t @ Y, ws.randn(n, width), n_components=min(k, width)
        )
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
    return Model(mean, None, torch.ones_like(mean[:, 0]), ridge, ridge, bool(offsets), by_count, nonnegative)


def _bounded_rows(V):
    """Cut rows longer than five times the median to that length: no row or column may dominate the start."""
    length = torch.linalg.vector_norm(V, dim=1, keepdim=True).clamp_min(torch.finfo(V.dtype).tiny)
    return V * (5 * length.median() / length).clamp_max(1)


def _exact_sweep(cells, rows, model, batch_size):
    """Solve all rows exactly, block by block, then all columns."""
    seen = seen_by_rows(model)

    def one_block(part):
        block = cells.block(part)
        mean = solve_rows(block, model, seen, start=rows[part]).mean
        F, f = expectations(mean, None, model.offsets)
        return mean, block.pattern_t @ F, block.values_t @ f

    parts = in_row_blocks(one_block, cells, model, batch_size)
    mean, sums, moments = next(parts)
    means = [mean]
    for mean, more_sums, more_moments in parts:
        means.append(mean)
        sums, moments = sums + more_sums, moments + more_moments
    A, rhs = equations(sums, moments, model)
    A = with_ridge(A, column_ridge(cells, model))
    if model.nonnegative:
        return torch.cat(means), solve_nonnegative(A, rhs, model.mean)
    return torch.cat(means), posterior(A, rhs, covariances=False).mean


def _conjugate_gradients(block, x, other, counts, ridge, model, n_steps):
    """Improve the least-squares solutions x of all rows at once by a few preconditioned steps.

    Only products with the pattern occur: nothing of the size of cells times factors is formed. The preconditioner is
    shared: the mean Gram matrix of the other side, times each row's number of cells, plus the ridge.
    """
    f, P, F = other, x, other
    if model.offsets:
        one = torch.ones_like(other[:, :1])
        f = torch.cat([other[:, :-1], one], 1)
        P, F = torch.cat([x, torch.ones_like(x[:, :1])], 1), torch.cat([f, other[:, -1:]], 1)
    n = counts.unsqueeze(1)
    if model.ridge_by_count:
        ridge = ridge * n
    weight = row_sums(block.pattern_t).unsqueeze(1)
    e, Q = torch.linalg.eigh((weight * f).mT @ f / weight.sum())
    spectrum = (n * e.clamp_min(0) + ridge).clamp_min(torch.finfo(x.dtype).tiny)

    r = residual_at_cells(block, P, F) @ f - ridge * x
    z = ((r @ Q) / spectrum) @ Q.mT
    p, rz = z, (r * z).sum(1, keepdim=True)
    for _ in range(n_steps):
        Ap = fit_at_cells(block, p, f) @ f + ridge * p
        step = _ratio(rz, (p * Ap).sum(1, keepdim=True))
        x, r = x + step * p, r - step * Ap
        z = ((r @ Q) / spectrum) @ Q.mT
        old, rz = rz, (r * z).sum(1, keepdim=True)
        p = z + _ratio(rz, old) * p
    return x


def _ratio(a, b):
    """a / b, and 0 where b has run out: a row that has converged stays where it is."""
    return torch.where(b > torch.finfo(b.dtype).tiny, a / b, torch.zeros_like(a))


def _transposed(block):
    return type(block)(block.pattern_t, block.values_t, block.pattern, block.values)


def _penalty(x, ridge, counts, model):
    squares = ridge * x**2
    return (counts.unsqueeze(1) * squares).sum() if model.ridge_by_count else squares.sum()
