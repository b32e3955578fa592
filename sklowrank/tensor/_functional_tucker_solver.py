"""Functional Tucker regression by mean-field coordinate ascent; knows no estimator.

Second moments of mode functions and of the core are symmetric: they are kept as the entries on and below the diagonal,
and products over modes are taken of these.
"""

import math
from functools import reduce
from typing import NamedTuple

import torch

from .._core.blocks import in_blocks, rows_per_block
from .._core.iterate import Step
from ._state_space import Chain, Process, draws, moments, observed_chain, smoothed, total

_START_PRECISION = 10.0  # of the noise, in units of y: at 1 many columns or few rows end with noise alone
_START_VARIANCE = 0.1
_WAVES = 8  # cosines of a random curve
_EVERY = 3  # sweeps between searches of the length scales
_LONGEST = 10.0  # length scale, in ranges of the coordinate
_SEARCHES = (0.8, 0.2)  # spacings of the lengths tried, on a logarithmic scale
_SURE_OF_CP = 6  # more modes than these start from functions near one


class TuckerOptions(NamedTuple):
    """Parameters that the solver reads; checked, those of modes are lists of one value for each."""

    rank: list[int]
    core: str
    kernel: list[str]
    length_scale: list[float]
    signal_variance: float
    categorical_features: list[bool]
    fit_intercept: bool
    optimize_hyperparameters: bool
    noise_prior: tuple[float, float]
    damping: float
    n_init: int
    batch_size: int | str

    @property
    def cp(self) -> bool:
        return self.core == "cp"


class Grid(NamedTuple):
    """The distinct coordinates of a mode."""

    points: torch.Tensor  # (T,), from 0 to 1; labels as they are
    gaps: torch.Tensor  # (T,) to the point before, infinite for the first and for labels
    labels: bool
    process: Process


class Cells(NamedTuple):
    """Distinct rows, and what is known of each."""

    codes: torch.Tensor  # (n, K), positions in the grids
    weight: torch.Tensor  # (n,)
    y: torch.Tensor  # (n,), means
    order: list[torch.Tensor]  # of each mode, rows sorted by its coordinate
    total_weight: float
    squares: float  # weighted sum of the squares of all y, not of the means


class TuckerProblem(NamedTuple):
    """Rows in the units of the solver, and by what they were brought there."""

    grids: list[Grid]
    cells: Cells
    options: TuckerOptions
    values: list[torch.Tensor]  # distinct coordinates of each mode, in the user's units
    low: torch.Tensor  # (K,), coordinates are (x - low) / span
    span: torch.Tensor
    intercept: float
    scale: float


class ModeState(NamedTuple):
    """The posterior of the functions of a mode."""

    length: torch.Tensor  # ()
    linear: torch.Tensor | None  # (T, R) and (T, R, R), the message that made it; None at the start
    quadratic: torch.Tensor | None
    chain: Chain | None
    mean: torch.Tensor  # (T, R)
    covariance: torch.Tensor  # (T, R, R)
    evidence: torch.Tensor | float  # of the message

    @property
    def moment(self) -> torch.Tensor:
        """Second moments (T, R, R)."""
        return second_moment(self.mean, self.covariance)


class TuckerState(NamedTuple):
    """The posterior of everything, in units of the scaled y."""

    modes: list[ModeState]
    core: torch.Tensor  # (P,); ones (R,) for cp
    core_covariance: torch.Tensor  # (P, P); zeros for cp
    noise: tuple[torch.Tensor, torch.Tensor]  # shape and rate of the precision
    loss: torch.Tensor  # minus the bound

    @property
    def precision(self):
        return self.noise[0] / self.noise[1]


# Sweeps


def sweeps(problem: TuckerProblem, ws):
    """Yield the best of `n_init` states after each sweep."""
    states = [start(problem, ws) for _ in range(problem.options.n_init)]
    losses, sweep = [math.inf] * len(states), 0
    while True:
        search = problem.options.optimize_hyperparameters and sweep % _EVERY == _EVERY - 1
        states = [swept(state, problem, search) for state in states]
        now = torch.stack([state.loss for state in states]).tolist()
        gap = max(abs(old - new) / max(abs(new), 1.0) for old, new in zip(losses, now))
        losses, sweep = now, sweep + 1
        best = min(range(len(now)), key=now.__getitem__)
        yield Step(states[best], gap, now[best])


def swept(state: TuckerState, problem: TuckerProblem, search: bool) -> TuckerState:
    """Return the state after one sweep over modes, core and noise; its bound is no lower."""
    options, cells = problem.options, problem.cells
    modes, gain = list(state.modes), state.precision
    for k, grid in enumerate(problem.grids):
        damping = 0.0 if search or modes[k].linear is None else options.damping
        if not (options.cp or options.damping or modes[k].linear is None):
            state = rotated(k, modes[k], state, options.rank)
        first, second = sums_by_value(k, modes, problem)
        linear, quadratic = seen_through_core(k, first, second, state, options)
        if search and torch.isfinite(grid.gaps).any():
            length, scale = best_length(grid, modes[k].length, gain * linear, gain * quadratic, state, options)
            state = state._replace(core=scale * state.core, core_covariance=scale**2 * state.core_covariance)
            modes[k], linear, quadratic = modes[k]._replace(length=length), scale * linear, scale**2 * quadratic
        modes[k] = fitted_mode(grid, modes[k], gain * linear, gain * quadratic, damping)
    if options.cp:
        core, core_covariance, core_loss = state.core, state.core_covariance, 0.0
        residual = cells.squares - 2 * (linear * modes[-1].mean).sum() + (quadratic * modes[-1].moment).sum()
    else:
        first, second = core_sums(first, second, modes[-1], options.rank)
        core, core_covariance, core_loss = fitted_core(gain * first, gain * second)
        moment = second_moment(core, core_covariance)
        residual = cells.squares - 2 * core @ first + (moment * second).sum()
    noise, noise_loss = fitted_noise(residual, cells.total_weight, options.noise_prior)
    loss = sum(map(mode_loss, modes)) + core_loss + noise_loss
    return TuckerState(modes, core, core_covariance, noise, loss)


def sums_by_value(k, modes, problem):
    """Return, by values of mode k, weighted sums of y E[z] (T, Q) and packed E[z z'] (T, .) over the other modes."""
    options, cells = problem.options, problem.cells
    others = [j for j in range(len(modes)) if j != k]
    tables = [(modes[j].mean, packed(modes[j].moment)) for j in others]
    times = torch.mul if options.cp else _kron
    widths = _widths(options, others)
    found = [cells.y.new_zeros(len(modes[k].mean), width) for width in widths]
    order = cells.order[k]

    def of_rows(part):
        rows = order[part]
        codes, weight = cells.codes[rows], cells.weight[rows, None]
        low, high = codes[0, k], codes[-1, k] + 1  # rows are sorted
        sums = []
        for i, (width, factor) in enumerate(zip(widths, (weight * cells.y[rows, None], weight))):
            parts = (table[i].index_select(0, codes[:, j]) for j, table in zip(others, tables))
            product = reduce(times, parts, factor.expand(-1, width if options.cp else 1))
            sums.append(product.new_zeros(high - low, width).index_add_(0, codes[:, k] - low, product))
        return low, sums

    size = 24 * sum(widths)
    block = rows_per_block(options.batch_size, len(order), size)
    for low, sums in in_blocks(of_rows, len(order), block, bytes_per_row=size):
        for out, part in zip(found, sums):
            out[low : low + len(part)] += part
    return found


def seen_through_core(k, first, second, state, options):
    """Return what the sums by value say of the functions of mode k: linear (T, R) and quadratic (T, R, R) parts."""
    if options.cp:
        return first, unpacked(second, options.rank[k])
    rank, order = options.rank, [k, *(j for j in range(len(options.rank)) if j != k)]
    core = state.core.reshape(rank).permute(order).reshape(rank[k], -1)
    moment = second_moment(state.core, state.core_covariance).reshape(*rank, *rank)
    folded = folded_moment(moment, order[1:])  # (R, R, packed pairs of the other modes)
    return first @ core.T, (second @ folded.reshape(rank[k] ** 2, -1).T).reshape(-1, rank[k], rank[k])


def rotated(k, mode: ModeState, state: TuckerState, rank) -> TuckerState:
    """Return the state with a core of a better basis in mode k, whose functions are fitted to it next.

    Functions M u and a core M^-T G fit the data as well as u and G; W = M'M minimises their divergences from the priors,
    tr(W S) + tr(W^-1 E) - (T - Q) log|W|, with S the functions' squares in the norm of the prior and E = E[G G'].
    Without this, core and functions trade scales over hundreds of sweeps.
    """
    R, P = rank[k], len(state.core)
    T, Q = len(mode.mean), P // R
    first = [k, *(j for j in range(len(rank)) if j != k)]
    turn = torch.arange(P, device=state.core.device).reshape(rank).permute(first).flatten()
    back = turn.argsort()
    core, covariance = state.core[turn].reshape(R, Q), state.core_covariance[turn][:, turn].reshape(R, Q, R, Q)
    E = core @ core.T + torch.einsum("aibi->ab", covariance)
    S = T * torch.eye(R, dtype=core.dtype, device=core.device) + mode.linear.T @ mode.mean
    S = S - torch.einsum("tab,tbc->ac", mode.quadratic, mode.moment)
    M = _better_basis((S + S.T) / 2, E, T - Q)
    core = torch.linalg.solve(M.T, core)
    covariance = torch.einsum("ab,biqj,pq->aipj", torch.linalg.inv(M.T), covariance, torch.linalg.inv(M.T)).reshape(P, P)
    return state._replace(core=core.flatten()[back], core_covariance=covariance[back][:, back])


def _better_basis(S, E, surplus):
    """Return M of which W = M'M solves W S W = surplus W + E."""
    values, vectors = torch.linalg.eigh(S)
    root = vectors * values.clamp(min=1e-12 * values.max()).sqrt() @ vectors.T
    values, vectors = torch.linalg.eigh(root @ E @ root)
    half = (surplus / 2 + (surplus**2 / 4 + values.clamp(min=0)).sqrt()).sqrt()
    return torch.linalg.solve(root, vectors * half).T


def best_length(grid: Grid, length, linear, quadratic, state: TuckerState, options):
    """Return a length scale and a factor of the core with which the bound is no lower, by trials of several at once.

    The message stays as it is, but for the factor. Lengths are tried alone, and with functions that grow by the power
    of the kernel's smoothness: for lengths beyond the range of the coordinates the data tell these two apart from others,
    but not from one another.
    """
    lowest = grid.gaps[torch.isfinite(grid.gaps)].min().clamp(max=_LONGEST)
    energy = state.core @ state.core + state.core_covariance.trace()
    steps = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=length.dtype, device=length.device)
    growth = torch.zeros_like(steps) if options.cp else torch.cat([0 * steps, (grid.process.order - 0.5) * steps])
    steps, log_scale = steps.repeat(len(growth) // len(steps)), torch.zeros_like(length)
    for spacing in _SEARCHES:
        lengths = (length * torch.exp(spacing * steps)).clamp(lowest, _LONGEST)
        lengths, logs = torch.cat([length[None], lengths]), log_scale + torch.cat([0 * length[None], spacing * growth])
        h, L = torch.exp(logs)[:, None] * linear[:, None], torch.exp(2 * logs)[:, None, None] * quadratic[:, None]
        evidence = total(observed_chain(grid.process, grid.gaps, lengths, h, L)).factor[:, -1, -1] / -2
        best = (evidence - energy * torch.exp(2 * logs) / 2 + len(state.core) * logs).argmax()
        length, log_scale = lengths[best], logs[best]
    return length, torch.exp(log_scale)


def fitted_mode(grid: Grid, mode: ModeState, linear, quadratic, damping) -> ModeState:
    """Return the posterior of the functions of a mode given the message of all else."""
    if damping:
        linear, quadratic = torch.lerp(linear, mode.linear, damping), torch.lerp(quadratic, mode.quadratic, damping)
    chain, mean, covariance, evidence = smoothed(grid.process, grid.gaps, mode.length, linear, quadratic)
    return ModeState(mode.length, linear, quadratic, chain, mean, covariance, evidence)


def mode_loss(mode: ModeState):
    """Return the divergence of the functions of a mode from their prior."""
    return (mode.linear * mode.mean).sum() - (mode.quadratic * mode.moment).sum() / 2 - mode.evidence


def core_sums(first, second, mode: ModeState, rank):
    """Return weighted sums of y E[z] (P,) and E[z z'] (P, P) over all modes, from those by the values of the last."""
    P, K = math.prod(rank), len(rank)
    second = second.T @ packed(mode.moment)
    second = second.reshape([r * (r + 1) // 2 for r in rank])
    for k, r in enumerate(rank):  # entries of pairs, one mode after the other
        second = second.movedim(k, -1)[..., _places(r, second.device)].flatten(-2).movedim(-1, k)
    pairs = second.reshape([size for r in rank for size in (r, r)])
    second = pairs.permute([*range(0, 2 * K, 2), *range(1, 2 * K, 2)]).reshape(P, P)
    return (first.T @ mode.mean).flatten(), second


def fitted_core(linear, quadratic):
    """Return mean (P,) and covariance (P, P) of the core, and its divergence from the prior."""
    precision = quadratic + torch.eye(len(linear), dtype=linear.dtype, device=linear.device)
    factor = torch.linalg.cholesky(precision)
    covariance = torch.cholesky_inverse(factor)
    mean = covariance @ linear
    log_determinant = 2 * factor.diagonal().log().sum()
    return mean, covariance, (covariance.trace() + mean @ mean - len(mean) + log_determinant) / 2


def fitted_noise(residual, n, prior):
    """Return the Gamma posterior of the precision, and what noise and data add to the loss."""
    (a0, b0), a, b = prior, prior[0] + n / 2, prior[1] + residual / 2
    constant = n / 2 * math.log(2 * math.pi) - a0 * math.log(b0) + math.lgamma(a0) - math.lgamma(a)
    return (a, b), constant + a * torch.log(b)


# Starts


def start(problem: TuckerProblem, ws) -> TuckerState:
    """Return random smooth functions of each mode, the first near one, and a random core."""
    options = problem.options
    modes = []
    for grid, length in zip(problem.grids, options.length_scale):
        T, R = len(grid.points), grid.process.rank
        mean = random_curves(grid, ws)
        mean[:, : R if len(problem.grids) > _SURE_OF_CP else 1] += 1.0
        covariance = _START_VARIANCE * torch.eye(R, dtype=ws.dtype, device=ws.device).expand(T, R, R)
        modes.append(ModeState(torch.tensor(length, dtype=ws.dtype, device=ws.device), None, None, None, mean, covariance, 0.0))
    if options.cp:
        core = torch.ones(options.rank[0], dtype=ws.dtype, device=ws.device)
    else:
        core = 0.5 * ws.randn(math.prod(options.rank))
    nothing = core.new_zeros(len(core), len(core))
    noise = core.new_tensor(_START_PRECISION), core.new_tensor(1.0)
    return TuckerState(modes, core, nothing, noise, core.new_tensor(math.inf))


def random_curves(grid: Grid, ws):
    """Return R curves (T, R) of standard deviation 0.5: sums of random cosines, or any values of labels."""
    T, R = len(grid.points), grid.process.rank
    if T > 1 and not torch.isfinite(grid.gaps).any():
        return 0.5 * ws.randn(T, R)
    frequency, phase, amplitude = 2 * math.pi * ws.randn(3, _WAVES, R)
    waves = torch.cos(grid.points[:, None, None] * frequency + phase)
    return 0.5 * math.sqrt(2 / _WAVES) * (waves * amplitude / (2 * math.pi)).sum(1)


# Symmetric matrices, packed


def second_moment(mean, covariance):
    """Return E[x x'] (..., R, R)."""
    return covariance + mean[..., :, None] * mean[..., None, :]


def packed(A):
    """Return the entries on and below the diagonal of symmetric matrices (..., R, R)."""
    rows, cols = torch.tril_indices(A.shape[-1], A.shape[-1], device=A.device)
    return A[..., rows, cols]


def unpacked(a, rank):
    """Return symmetric matrices (..., rank, rank) of their packed entries."""
    return a[..., _places(rank, a.device)]


def folded_moment(moment, modes):
    """Return a matrix (r1, ..., rK, r1, ..., rK) with the pairs of entries of some modes summed as they are packed.

    The others' pairs come first: products with packed matrices of `modes` are then those with full ones.
    """
    K = moment.dim() // 2
    rank = moment.shape[:K]
    order = [axis for j in range(K) if j not in modes for axis in (j, K + j)]
    moment = moment.permute(*order, *(axis for j in modes for axis in (j, K + j)))
    for j in modes:  # the first pair that is left goes, its packed form comes last
        r = rank[j]
        moment = moment.flatten(len(order), len(order) + 1)
        shape = list(moment.shape)
        del shape[len(order)]
        out = moment.new_zeros(*shape, r * (r + 1) // 2)
        moment = out.index_add_(-1, _places(r, moment.device).flatten(), moment.movedim(len(order), -1))
    return moment


def _places(rank, device):
    """Return where the entries (rank, rank) of a symmetric matrix are packed."""
    places = torch.zeros(rank, rank, dtype=torch.long, device=device)
    rows, cols = torch.tril_indices(rank, rank, device=device)
    places[rows, cols] = places[cols, rows] = torch.arange(len(rows), device=device)
    return places


def _kron(a, b):
    return torch.einsum("na,nb->nab", a, b).flatten(1)


def _widths(options, others):
    """Return lengths of E[z] and of packed E[z z'] over the other modes."""
    if options.cp:
        rank = options.rank[0]
        return rank, rank * (rank + 1) // 2
    ranks = [options.rank[j] for j in others]
    return math.prod(ranks), math.prod(r * (r + 1) // 2 for r in ranks)


# Predictions


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
        return moments(grid.process, grid.points, length, chain, x)
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
        return [contracted(weights, [table[code[rows]] for table, code in zip(parts, codes)], cp) for weights, parts in tables]

    size = 16 * tables[-1][0].numel()
    block = rows_per_block(batch_size, len(X), size)
    parts = [torch.cat(part) for part in zip(*in_blocks(of_rows, len(X), block, bytes_per_row=size))]
    mean = model.intercept + model.scale * parts[0]
    if not with_variance:
        return mean, None
    return mean, model.scale**2 * (parts[1] - parts[0].square()).clamp(min=0)


def contracted(weights, factors, cp):
    """Return for each row the sum of `weights` times the product of its factors, one a mode."""
    if cp:
        return reduce(torch.mul, factors) @ weights
    found = factors[0] @ weights.reshape(len(weights), -1)
    for factor in factors[1:]:
        found = torch.einsum("na,nab->nb", factor, found.reshape(len(found), factor.shape[1], -1))
    return found[:, 0]


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
        factors = [table[:, code[rows]] for table, code in zip(tables, codes)]
        return torch.stack([contracted(core[s], [f[s] for f in factors], cp) for s in range(n_draws)], 1)

    size = 16 * n_draws * sum(table.shape[2] for table in tables) + 16 * core[0].numel()
    block = rows_per_block(batch_size, len(X), size)
    return model.intercept + model.scale * torch.cat(list(in_blocks(of_rows, len(X), block, bytes_per_row=size)))


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
        chains=[mode.chain for mode in state.modes],
        length_scale=public["length_scale_"],
        low=problem.low,
        span=problem.span,
        intercept=problem.intercept,
        scale=scale,
        noise_variance=public["noise_variance_"],
    )
    return model, public
