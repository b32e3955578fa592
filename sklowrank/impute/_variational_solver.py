"""Variational Bayes for matrix completion: noise, priors and the number of components are learnt with the factors."""

import math
from functools import partial
from typing import NamedTuple

import torch

from .._core.iterate import Step
from ._row_equations import (
    Model,
    column_sums_and_moments,
    gather_rows,
    moment_sums,
    posterior,
    refit_linear_term,
    row_equations,
    unpacked,
    with_ridge,
)

FIRST_COMPONENTS = 5  # that a fit begins with; more are added as long as all of them explain something
WARM_SWEEPS = 10  # sweeps before the priors are learnt
PSEUDO_CELLS = 5.0  # weight, in cells, of the common noise variance in that of one column
_SEPARATE_EVERY = 4  # sweeps: one is enough to go far along a direction in which sweeps are slow
_LEAST_SIGNAL = 0.01  # a component whose means have less than this share of its posterior variances is switched off
_LEAST_VARIANCE = 1e-8  # of a prior; the values have mean square 1
_LOOSE_GAP = 1e-2  # at which a fit has nearly converged: enough to say whether it needs more components


def variational(cells, sample, options, ws, *, offset_variance=0.0):
    """Yield the model after each sweep of variational Bayes with learnt noise and priors.

    The values are expected with mean square 1. Components are added to a fit that has nearly converged, as many again
    as it has; where that does not help, half as many, down to one. A fit that begins with all of them ends more often
    in a worse optimum, and pays for each in every sweep. Their number is found on the cells of `sample`, which may be
    some of the rows; the last sweeps are over `cells`. `offset_variance` is the least prior variance of the columns'
    offsets.
    """
    most = options.n_components
    k = more = min(FIRST_COMPONENTS, most)
    model = variational_start(cells.shape[1], k, options.offsets, ws)
    best_model, n_in_use, best, doubling = None, 0, math.inf, True
    while True:
        for step in _sweeps(model, sample, options, offset_variance, n_warm=WARM_SWEEPS):
            yield step._replace(gap=math.inf)  # of a fit that may need more components no gap is known
            if step.gap <= _LOOSE_GAP:
                break
        alive = step.state.mean.shape[1] - options.offsets
        better = step.loss < best if options.selects_components else alive > n_in_use
        if better:
            best_model, best, n_in_use = step.state, step.loss, alive
        doubling = doubling and better
        more = n_in_use if doubling else more // 2
        if alive < k or more == 0 or n_in_use == most or not (doubling or options.selects_components):
            break
        k = min(n_in_use + more, most)
        model = _with_more_components(best_model, k, options.offsets, ws)
    yield from _sweeps(best_model, cells, options, offset_variance, n_warm=0)


def variational_start(n, k, offsets, ws):
    """Return a model of n columns with random factors and little noise, so that all components are in use."""
    d = k + offsets
    mean = 0.1 * ws.randn(n, d)
    prior = torch.ones(d, dtype=ws.dtype, device=ws.device)
    row_prior, column_prior = prior.clone(), 0.1 * prior
    if offsets:
        mean[:, -1], row_prior[-1] = 0, 0.1
    cov = 0.01 * torch.eye(d, dtype=ws.dtype, device=ws.device).repeat(n, 1, 1)
    noise = torch.full((n,), 0.01, dtype=ws.dtype, device=ws.device)
    return Model(mean, cov, noise, 1 / row_prior, 1 / column_prior)


def _with_more_components(model, k, offsets, ws):
    """Return a model with k components, the new ones behind the old ones as in the start."""
    start = variational_start(len(model.mean), k, offsets, ws)
    old = torch.arange(model.mean.shape[1], device=ws.device)
    if offsets:
        old[-1] = k
    start.mean[:, old] = model.mean
    start.cov[:, old] = 0
    start.cov[:, :, old] = 0
    start.cov[:, old[:, None], old] = model.cov
    start.row_ridge[old], start.column_ridge[old] = model.row_ridge, model.column_ridge
    return start._replace(noise=model.noise)


def _sweeps(model, cells, options, offset_variance, *, n_warm):
    """Yield the model after each sweep; the first ones keep equal priors, so that no component dies too early."""
    collect = partial(column_sums_and_moments, cells.covariates is not None)
    total, bound, sweep = cells.column_counts.sum(), model.noise.new_tensor(math.inf), 0
    while True:
        sweep += 1
        sums, moments, *rows, means = gather_rows(cells, collect, row_equations(model, options))
        rows = _moments(cells.shape[0], *rows)
        solved, columns, residual = _solve_columns(cells, sums, moments, model, options)
        if cells.covariates is not None:
            refit_linear_term(cells, torch.cat(means), model._replace(mean=solved.mean), options)

        old, noise = model.noise, _learn_noise(residual, cells.column_counts)
        model = model._replace(mean=solved.mean, cov=solved.cov, noise=noise)
        misfit = (cells.column_counts * torch.log(2 * math.pi * noise) + residual / noise).sum()
        warm = sweep > n_warm
        if warm and options.offsets and (sweep - n_warm) % _SEPARATE_EVERY == 1:
            model, rows, columns = _separate(model, rows, columns)
        model, divergence, alive = _learn_priors(model, rows, columns, options.offsets, offset_variance, warm=warm)

        previous, bound = bound, (misfit + divergence) / (2 * total)
        gap = torch.maximum((noise.mean().log() - old.mean().log()).abs(), (previous - bound).abs())
        gap, loss, n_alive = torch.stack([gap, bound, alive.sum().to(gap.dtype)]).tolist()
        all_in_use = warm and n_alive == len(alive)
        model = _only(model, alive) if n_alive < len(alive) else model
        yield Step(model, gap if all_in_use else math.inf, loss)


class _Moments(NamedTuple):
    """What the priors of one side, rows or columns, are learnt from; u is a row of it, factors and offset."""

    size: int
    second: torch.Tensor  # (d, d): mean over the side of E[u u']
    signal: torch.Tensor  # (d, d): mean over the side of E[u] E[u]'
    mean: torch.Tensor  # (d,): mean over the side of E[u]
    log_det: torch.Tensor  # sum over the side of the log-determinants of the posterior covariances


def _moments(size, gram, cov, total, log_det):
    return _Moments(size, (gram + cov) / size, gram / size, total / size, log_det)


def _solve_columns(cells, sums, moments, model, options):
    """Solve all columns; return their posterior, its moments, and each column's expected sum of squared residuals."""
    A, rhs = unpacked(sums, moments, options)
    scaled = A / model.noise[:, None, None]
    scaled = with_ridge(scaled, model.column_ridge)
    columns = posterior(scaled, rhs / model.noise.unsqueeze(1), covariances=True)
    residual = expected_squares(cells, A, rhs, sums, moments, columns, options)
    return columns, _moments(cells.shape[1], *moment_sums(columns)), residual


def expected_squares(cells, A, rhs, sums, moments, columns, options):
    """Return the expected sum of squared residuals of each column, given its posterior and sums over its cells.

    A and `rhs` are `sums` and `moments`, unpacked.
    """
    second = columns.mean.unsqueeze(2) * columns.mean.unsqueeze(1) + columns.cov
    squares = cells.column_squares - 2 * (columns.mean * rhs).sum(1) + (A * second).sum((1, 2))
    return squares - 2 * moments[:, -1] + sums[:, -1] if options.offsets else squares


def _learn_noise(residual, counts):
    """Noise variance of each column, drawn on the log scale towards the common one as if by PSEUDO_CELLS more cells."""
    least = max(1e-10, 1e3 * torch.finfo(residual.dtype).eps)  # below it a row with few cells is singular
    own = (residual / counts.clamp_min(1)).clamp_min(least).log()
    common = (residual.sum() / counts.sum()).clamp_min(least).log()
    return ((counts * own + PSEUDO_CELLS * common) / (counts + PSEUDO_CELLS)).exp()


def _separate(model, rows, columns):
    """Take from the rows' offsets what depends on their factors, and from the columns' likewise.

    u . v + b is the same with b + u . a and v - a in place of b and v, for any a: a sweep moves slowly along such
    directions, this goes there at once. The posteriors' determinants do not change.
    """
    rows, columns, a = _decorrelate(rows, columns)
    mean = torch.cat([model.mean[:, :-1] - a, model.mean[:, -1:]], 1)
    columns, rows, e = _decorrelate(columns, rows)
    T = _shear(e)
    return model._replace(mean=mean @ T.mT, cov=T @ model.cov @ T.mT), rows, columns


def _decorrelate(side, other):
    """Return both sides after b + u . a and v - a, and the best of a few a between 0 and no correlation of b and u."""
    A, r, v = side.second[:-1, :-1], side.second[:-1, -1], other.mean[:-1]
    steps = torch.linspace(0, -1, 5, dtype=r.dtype, device=r.device).unsqueeze(1) * torch.linalg.solve(A, r)
    offset = side.second[-1, -1] + 2 * steps @ r + ((steps @ A) * steps).sum(1)
    factors = other.second[:-1, :-1] + (steps.unsqueeze(2) - v.unsqueeze(1)) * (steps.unsqueeze(1) - v) - v.outer(v)
    cost = side.size * offset.log() + other.size * torch.logdet(factors)
    a = steps.index_select(0, cost.nan_to_num(nan=torch.inf).argmin()[None])[0]

    T, shift = _shear(a), torch.nn.functional.pad(a, (0, 1))
    side = side._replace(second=T @ side.second @ T.mT, signal=T @ side.signal @ T.mT, mean=T @ side.mean)
    change = shift.outer(shift) - shift.outer(other.mean) - other.mean.outer(shift)
    other = other._replace(second=other.second + change, signal=other.signal + change, mean=other.mean - shift)
    return side, other, a


def _shear(a):
    """The map of (u, b) to (u, b + u . a)."""
    T = torch.eye(len(a) + 1, dtype=a.dtype, device=a.device)
    T[-1, :-1] = a
    return T


def _learn_priors(model, rows, columns, offsets, offset_variance, *, warm):
    """Rotate the factors so that both sides' second moments are diagonal, and take these as the prior variances.

    Among all invertible maps of the factors this one makes the bound largest: the product of a matrix's diagonal is
    smallest, by Hadamard's inequality, where it is diagonal. It orders the components and lets surplus ones die fast.
    Returns the model, both sides' divergence from their priors, and which components are alive: those drowned by their
    own uncertainty would die by themselves, but slowly.
    """
    d = model.mean.shape[1]
    k = d - offsets
    L = torch.linalg.cholesky(with_ridge(rows.second[None, :k, :k].clone(), 0.0)[0])
    variance, Q = torch.linalg.eigh(L.mT @ columns.second[:k, :k] @ L)
    T = torch.eye(d, dtype=L.dtype, device=L.device)
    T[:k, :k] = L @ Q.flip(1)
    mean, cov = model.mean @ T, T.mT @ model.cov @ T

    row_second, column_second = rows.second.diagonal().clone(), columns.second.diagonal().clone()
    row_second[:k], column_second[:k] = 1, variance.flip(0)
    row_prior, column_prior = row_second.clamp_min(_LEAST_VARIANCE), column_second.clamp_min(_LEAST_VARIANCE)
    if not warm:
        row_prior[k:], column_prior[k:] = 1 / model.row_ridge[k:], 1 / model.column_ridge[k:]
        column_prior[:k] = variance.mean()

    log_stretch = 2 * L.diagonal().log().sum()  # of each column's covariance by the map; the rows' shrink as much
    divergence = rows.size * ((row_prior.log() + row_second / row_prior - 1).sum() + log_stretch) - rows.log_det
    per_column = (column_prior.log() + column_second / column_prior - 1).sum() - log_stretch
    divergence = divergence + columns.size * per_column - columns.log_det

    alive = torch.ones(d, dtype=torch.bool, device=L.device)
    if warm:
        alive = (mean**2).mean(0) > _LEAST_SIGNAL * cov.diagonal(dim1=1, dim2=2).mean(0)
        alive[0], alive[k:] = True, True
        row_prior[k:] = _offset_prior(rows, row_prior, model.row_ridge)[k:]
        column_prior[k:] = _offset_prior(columns, column_prior, model.column_ridge)[k:].clamp_min(offset_variance)
    model = model._replace(mean=mean, cov=cov, row_ridge=1 / row_prior, column_ridge=1 / column_prior)
    return model, divergence, alive


def _offset_prior(side, prior, old_ridge):
    """Prior variances by MacKay's fixed point: squares of the means over how well these are determined.

    Its limit is that of the plain second moments, `prior`, but superfluous offsets vanish geometrically.
    """
    signal = side.signal.diagonal()
    uncertainty = side.second.diagonal() - signal
    determined = 1 - uncertainty * old_ridge
    variance = torch.where(determined > 0, signal / determined, prior).minimum(2 * prior)
    return torch.where(signal > _LEAST_SIGNAL * uncertainty, variance, 0.0).clamp_min(_LEAST_VARIANCE)


def _only(model, alive):
    return model._replace(
        mean=model.mean[:, alive],
        cov=model.cov[:, alive][:, :, alive],
        row_ridge=model.row_ridge[alive],
        column_ridge=model.column_ridge[alive],
    )
