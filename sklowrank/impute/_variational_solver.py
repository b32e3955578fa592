"""Variational Bayes for matrix completion: noise, priors and the number of components are learnt with the factors."""

import functools
import math

import torch

from .._core.iterate import Step
from ._row_equations import (
    Model,
    equations,
    expectations,
    in_row_blocks,
    posterior,
    refit_linear_term,
    seen_by_rows,
    solve_rows,
    with_ridge,
)

WARM_SWEEPS = 10  # sweeps before the priors are learnt
PSEUDO_CELLS = 10.0  # weight, in cells, of the common noise variance in that of one column
_DROWNED = 0.01  # a component is dead when its means have less than this share of its posterior variances
_LEAST_VARIANCE = 1e-8  # of a prior; the values have mean square 1


def variational(cells, n_components, *, offsets, batch_size, ws):
    """Yield the model after each sweep of variational Bayes with learnt noise and priors.

    The values are expected with mean square 1. The first sweeps keep equal priors and start from little noise: all
    components are alive, and the surplus ones are switched off from above as noise and priors are learnt. Started from
    much noise, weak components die before their turn comes.
    """
    model = _first_guess(cells, n_components, offsets, ws)
    (m, n), total = cells.shape, cells.column_counts.sum()
    bound, sweep = model.noise.new_tensor(math.inf), 0
    while True:
        sweep += 1
        warm = sweep > WARM_SWEEPS
        sums, moments, second, row_log_det, rows = _row_half(cells, model, batch_size)
        columns, residual = _column_half(cells, sums, moments, model)
        if cells.covariates is not None:
            refit_linear_term(cells, torch.cat(rows), model._replace(mean=columns.mean), batch_size)

        old, noise = model.noise, _learn_noise(residual, cells.column_counts)
        model = model._replace(mean=columns.mean, cov=columns.cov, noise=noise)
        model, per_row, per_column = _learn_priors(model, second, warm=warm)

        misfit = (cells.column_counts * torch.log(2 * math.pi * noise) + residual / noise).sum()
        divergence = m * per_row - row_log_det + n * per_column - columns.log_det
        previous, bound = bound, (misfit + divergence) / (2 * total)
        gap = torch.maximum((noise.mean().log() - old.mean().log()).abs(), (previous - bound).abs())
        alive = _alive(model) if warm else torch.ones_like(model.row_ridge, dtype=torch.bool)
        gap, loss, n_alive = torch.stack([gap, bound, alive.sum().to(gap.dtype)]).tolist()
        settled = warm and n_alive == len(alive)
        model = _keep(model, alive) if n_alive < len(alive) else model
        yield Step(model, gap if settled else max(gap, 1.0), loss)


def _first_guess(cells, k, offsets, ws):
    n, d = cells.shape[1], k + offsets
    mean = 0.1 * ws.randn(n, d)
    prior = torch.ones(d, dtype=ws.dtype, device=ws.device)
    row_prior, column_prior = prior.clone(), 0.1 * prior
    if offsets:
        mean[:, -1], row_prior[-1] = 0, 0.1
    cov = 0.01 * torch.eye(d, dtype=ws.dtype, device=ws.device).expand(n, d, d)
    noise = torch.full((n,), 0.01, dtype=ws.dtype, device=ws.device)
    return Model(mean, cov, noise, 1 / row_prior, 1 / column_prior, bool(offsets))


def _row_half(cells, model, batch_size):
    """Solve all rows, block by block, and sum over each column's cells what the column's equations need."""
    seen = seen_by_rows(model)

    def one_block(rows):
        block = cells.block(rows)
        part = solve_rows(block, model, seen)
        F, f = expectations(part.mean, part.cov, model.offsets)
        second = part.mean.mT @ part.mean + part.cov.sum(0)
        kept = [part.mean] if cells.covariates is not None else []
        return block.pattern_t @ F, block.values_t @ f, second, part.log_det, kept

    parts = in_row_blocks(one_block, cells, model, batch_size)
    sums, moments, second, log_det, rows = functools.reduce(lambda a, b: [x + y for x, y in zip(a, b)], parts)
    return sums, moments, second / cells.shape[0], log_det, rows


def _column_half(cells, sums, moments, model):
    """Solve all columns; return their posterior and the expected sum of squared residuals of each column."""
    A, rhs = equations(sums, moments, model)
    scaled = A / model.noise[:, None, None]
    columns = posterior(
        with_ridge(scaled, model.column_ridge),
        rhs / model.noise.unsqueeze(1),
        covariances=True,
    )
    second = columns.mean.unsqueeze(2) * columns.mean.unsqueeze(1) + columns.cov
    residual = cells.column_squares - 2 * (columns.mean * rhs).sum(1) + (A * second).sum((1, 2))
    if model.offsets:
        residual = residual - 2 * moments[:, -1] + sums[:, -1]
    return columns, residual


def _learn_noise(residual, counts):
    """Noise variance of each column, drawn towards the common one as if by PSEUDO_CELLS more cells."""
    eps = torch.finfo(residual.dtype).eps
    common = residual.sum() / counts.sum()
    noise = (residual + PSEUDO_CELLS * common) / (counts + PSEUDO_CELLS)
    return noise.clamp_min(max(1e-10, 1e3 * eps))  # below it a row with few cells is singular in this precision


def _learn_priors(model, row_second, *, warm):
    """Rotate the factors so that both sides' second moments are diagonal, and take these as the prior variances.

    Among all invertible maps of the factors this one makes the bound largest: the product of a matrix's diagonal is
    smallest, by Hadamard's inequality, where it is diagonal. It orders the components and lets surplus ones die fast.
    Returns the model and what both sides' divergence from their priors is but for the posteriors' determinants.
    `row_second` is the mean over rows of E[u u'].
    """
    n, d = model.mean.shape
    k = d - model.offsets
    column_second = (model.mean.mT @ model.mean + model.cov.sum(0)) / n
    L = torch.linalg.cholesky(row_second[:k, :k])
    variance, Q = torch.linalg.eigh(L.mT @ column_second[:k, :k] @ L)
    T = torch.eye(d, dtype=L.dtype, device=L.device)
    T[:k, :k] = L @ Q.flip(1)

    row_second, column_second = row_second.diagonal().clone(), column_second.diagonal().clone()
    row_second[:k], column_second[:k] = 1, variance.flip(0)
    row_prior, column_prior = row_second.clamp_min(_LEAST_VARIANCE), column_second.clamp_min(_LEAST_VARIANCE)
    if not warm:
        row_prior[k:], column_prior[k:] = 1 / model.row_ridge[k:], 1 / model.column_ridge[k:]
        column_prior[:k] = variance.mean()

    log_stretch = 2 * L.diagonal().log().sum()  # of each column's covariance by the map; the rows' shrink as much
    rows = (row_prior.log() + row_second / row_prior - 1).sum() + log_stretch
    columns = (column_prior.log() + column_second / column_prior - 1).sum() - log_stretch
    model = model._replace(
        mean=model.mean @ T, cov=T.mT @ model.cov @ T, row_ridge=1 / row_prior, column_ridge=1 / column_prior
    )
    return model, rows, columns


def _alive(model):
    """Components whose means are not drowned by their uncertainty: the others would die by themselves, but slowly.

    The first stays, and so do offsets.
    """
    alive = (model.mean**2).sum(0) > _DROWNED * model.cov.diagonal(dim1=1, dim2=2).sum(0)
    alive[0] = True
    if model.offsets:
        alive[-1] = True
    return alive


def _keep(model, alive):
    return model._replace(
        mean=model.mean[:, alive],
        cov=model.cov[:, alive][:, :, alive],
        row_ridge=model.row_ridge[alive],
        column_ridge=model.column_ridge[alive],
    )
