"""Variational Bayes for matrix completion: noise, priors and the number of components are learnt with the factors."""

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


def variational(cells, n_components, *, offsets, batch_size, ws):
    """Yield the model after each sweep of variational Bayes with learnt noise and priors.

    The values are expected with mean square 1. The first sweeps keep equal priors and start from little noise: all
    components are alive, and the surplus ones are switched off from above as noise and priors are learnt. Started from
    much noise, weak components die before their turn comes.
    """
    model = _first_guess(cells, n_components, offsets, ws)
    total, bound, sweep = cells.column_counts.sum(), model.noise.new_tensor(math.inf), 0
    while True:
        sweep += 1
        sums, moments, row_moment, log_det = _row_half(cells, model, batch_size)
        columns, residual = _column_half(cells, sums, moments, model)

        old = model.noise
        noise = _learn_noise(residual, cells.column_counts)
        model = _learn_priors(model._replace(mean=columns.mean, cov=columns.cov, noise=noise), row_moment, sweep)
        if cells.covariates is not None:
            refit_linear_term(cells, model, batch_size)

        previous, bound = bound, _free_energy(cells, model, residual, log_det + columns.log_det) / total
        gap = torch.maximum((noise.mean().log() - old.mean().log()).abs(), (previous - bound).abs())
        alive = _alive(model) if sweep > WARM_SWEEPS else torch.ones_like(model.row_ridge, dtype=torch.bool)
        gap, loss, n_alive = torch.stack([gap, bound, alive.sum().to(gap.dtype)]).tolist()
        if n_alive < len(alive):
            model = _keep(model, alive)
        settled = sweep > WARM_SWEEPS and n_alive == len(alive)
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
        return block.pattern_t @ F, block.values_t @ f, second, part.log_det

    parts = in_row_blocks(one_block, cells, model, batch_size)
    sums, moments, second, log_det = next(parts)
    for part in parts:
        sums, moments, second, log_det = sums + part[0], moments + part[1], second + part[2], log_det + part[3]
    return sums, moments, second / cells.shape[0], log_det


def _column_half(cells, sums, moments, model):
    """Solve all columns; return their posterior and the expected sum of squared residuals of each column."""
    A, rhs = equations(sums, moments, model)
    scaled = A / model.noise[:, None, None]
    columns = posterior(
        with_ridge(scaled, model.column_ridge, cells.column_counts, model),
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


def _learn_priors(model, row_moment, sweep):
    """Rotate the factors so that both sides' second moments are diagonal, and take these as the prior variances.

    Among all invertible maps of the factors this one makes the bound largest: the product of a matrix's diagonal is
    smallest, by Hadamard's inequality, where it is diagonal. It orders the components and lets surplus ones die fast.
    """
    n, d = model.mean.shape
    k = d - model.offsets
    column_moment = (model.mean.mT @ model.mean + model.cov.sum(0)) / n
    L = torch.linalg.cholesky(row_moment[:k, :k])
    variance, Q = torch.linalg.eigh(L.mT @ column_moment[:k, :k] @ L)
    T = torch.eye(d, dtype=L.dtype, device=L.device)
    T[:k, :k] = L @ Q.flip(1)
    row_prior, column_prior = row_moment.diagonal().clone(), column_moment.diagonal().clone()
    row_prior[:k] = 1
    column_prior[:k] = variance.flip(0) if sweep > WARM_SWEEPS else variance.mean()
    if model.offsets and sweep <= WARM_SWEEPS:
        row_prior[k], column_prior[k] = 1 / model.row_ridge[k], 1 / model.column_ridge[k]
    return model._replace(
        mean=model.mean @ T,
        cov=T.mT @ model.cov @ T,
        row_ridge=1 / row_prior.clamp_min(1e-8),
        column_ridge=1 / column_prior.clamp_min(1e-8),
    )


def _free_energy(cells, model, residual, log_dets):
    """Negative lower bound of the log-evidence, the priors being at their optimum."""
    m, n = cells.shape
    fit = (cells.column_counts * torch.log(2 * math.pi * model.noise) + residual / model.noise).sum()
    return 0.5 * (fit - m * model.row_ridge.log().sum() - n * model.column_ridge.log().sum() - log_dets)


def _alive(model):
    """Components whose fitted means are not drowned by their own uncertainty; the first stays, and so do offsets."""
    alive = (model.mean**2).sum(0) > 0.01 * model.cov.diagonal(dim1=1, dim2=2).sum(0)
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
