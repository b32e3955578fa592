"""The fitted functional Tucker model: what predictions need, and what the user sees."""

from functools import reduce
from typing import NamedTuple

import torch

from .._core.blocks import join_blocks, rows_per_block
from ._coordinates import Grid, TuckerProblem
from ._functional_tucker_solver import TuckerState
from ._packed import folded_moment, packed, second_moment
from ._state_space import Chain, draws, moments, posterior_chain


class TuckerModel(NamedTuple):
    """What predictions need."""

    core: torch.Tensor
    core_covariance: torch.Tensor | None
    grids: list[Grid]
    chains: list[Chain]
    length_scale: torch.Tensor
    low: torch.Tensor  # (K,), coordinates are (x - low) / span
    span: torch.Tensor
    intercept: float
    scale: float
    noise_variance: float


def functions_at(model: TuckerModel, k, x):
    """Return means (m, R) and covariances (m, R, R) of the functions of mode k at any coordinates x (m,)."""
    grid, chain, length = model.grids[k], model.chains[k], model.length_scale[k]
    x = (x - model.low[k]) / model.span[k]
    if not grid.labels:
        size = 128 * (grid.process.rank * grid.process.order) ** 2

        def of_points(part):
            return moments(grid.process, grid.points, length, chain, x[part])

        return join_blocks(of_points, len(x), rows_per_block("auto", len(x), size), bytes_per_row=size)
    at = torch.searchsorted(grid.points, x).clamp(max=len(grid.points) - 1)
    known = (grid.points[at] == x).to(x.dtype)
    prior = grid.process.variance * torch.eye(grid.process.rank, dtype=x.dtype, device=x.device)
    mean, covariance = chain.mean[at], chain.covariance[at]
    return known[:, None] * mean, prior + known[:, None, None] * (covariance - prior)


def predicted(model: TuckerModel, X, batch_size, *, with_variance):
    """Return means (n,) and latent variances (n,) of the regression function, in units of y; variances on demand."""
    cp, K = model.core_covariance is None, X.shape[1]
    values, codes = zip(*(torch.unique(X[:, k], return_inverse=True) for k in range(K)))
    found = [functions_at(model, k, x) for k, x in enumerate(values)]
    means = [mean for mean, _ in found]
    core, rank = model.core, [mean.shape[1] for mean in means]
    tables = [(core, means)]
    if with_variance:
        seconds = [packed(second_moment(mean, covariance)) for mean, covariance in found]
        if cp:
            moment = folded_moment(torch.outer(core, core), [0])
        else:
            moment = second_moment(core.flatten(), model.core_covariance).reshape(*rank, *rank)
            moment = folded_moment(moment, list(range(K)))
        tables.append((moment, seconds))

    def of_rows(rows):
        return [
            contracted(weights, [table[code[rows]] for table, code in zip(parts, codes)], cp)
            for weights, parts in tables
        ]

    size = 16 * tables[-1][0].numel()
    block = rows_per_block(batch_size, len(X), size)
    parts = join_blocks(of_rows, len(X), block, bytes_per_row=size)
    mean = model.intercept + model.scale * parts[0]
    if not with_variance:
        return mean, None
    return mean, model.scale**2 * (parts[1] - parts[0].square()).clamp(min=0)


def contracted(weights, factors, cp):
    """Return for each row the sum of `weights` times the product of its factors, one a mode; any axes before."""
    if cp:
        return (reduce(torch.mul, factors) @ weights[..., None])[..., 0]
    found = factors[0] @ weights.reshape(*weights.shape[: factors[0].dim() - 1], -1)
    for factor in factors[1:]:
        found = torch.einsum("...na,...nab->...nb", factor, found.unflatten(-1, (factor.shape[-1], -1)))
    return found[..., 0]


def drawn(model: TuckerModel, X, n_draws, batch_size, randn):
    """Return joint draws (n, n_draws) of the regression function, in units of y."""
    cp, K = model.core_covariance is None, X.shape[1]
    values, codes = zip(*(torch.unique(X[:, k], return_inverse=True) for k in range(K)))
    tables = [functions_drawn(model, k, x, n_draws, randn).movedim(-1, 0) for k, x in enumerate(values)]
    core = model.core.expand(n_draws, *model.core.shape)
    if not cp:
        factor = torch.linalg.cholesky(model.core_covariance)
        core = core + (randn(n_draws, len(factor)) @ factor.T).reshape(core.shape)

    def of_rows(rows):
        return contracted(core, [table[:, code[rows]] for table, code in zip(tables, codes)], cp).T

    size = 16 * n_draws * (sum(table.shape[2] for table in tables) + core[0].numel())
    block = rows_per_block(batch_size, len(X), size)
    return model.intercept + model.scale * join_blocks(of_rows, len(X), block, bytes_per_row=size)


def functions_drawn(model: TuckerModel, k, x, n_draws, randn):
    """Return joint draws (m, R, n_draws) of the functions of mode k at distinct coordinates x (m,)."""
    grid = model.grids[k]
    if not grid.labels:
        x = (x - model.low[k]) / model.span[k]
        return draws(grid.process, grid.points, model.length_scale[k], model.chains[k], x, randn, n_draws)
    mean, covariance = functions_at(model, k, x)
    return mean[:, :, None] + torch.linalg.cholesky(covariance) @ randn(*mean.shape, n_draws)


def described(problem: TuckerProblem, state: TuckerState):
    """Return the model and the public attributes."""
    options, scale = problem.options, problem.scale
    public = {
        "core_": state.core if options.cp else state.core.reshape(options.rank),
        "mode_values_": problem.values,
        "mode_means_": [mode.mean for mode in state.modes],
        "mode_covariances_": [mode.covariance for mode in state.modes],
        "length_scale_": torch.stack([mode.length for mode in state.modes]),
        "noise_variance_": scale**2 / float(state.precision),
        "intercept_": problem.intercept,
        "scale_": scale,
    }
    if not options.cp:
        public["core_covariance_"] = state.core_covariance
    model = TuckerModel(
        core=public["core_"],
        core_covariance=None if options.cp else state.core_covariance,
        grids=problem.grids,
        chains=[
            posterior_chain(grid.process, grid.gaps, mode.length, mode.linear, mode.quadratic)
            for grid, mode in zip(problem.grids, state.modes)
        ],
        length_scale=public["length_scale_"],
        low=problem.low,
        span=problem.span,
        intercept=problem.intercept,
        scale=scale,
        noise_variance=public["noise_variance_"],
    )
    return model, public
