"""Functional Tucker regression by mean-field coordinate ascent.

Second moments of functions and core are symmetric: products over modes are taken of their entries on and below the
diagonal.
"""

import math
from functools import reduce
from typing import NamedTuple

import torch

from .._core.blocks import in_blocks, join_blocks, rows_per_block
from .._core.iterate import Step
from ._coordinates import Grid, TuckerProblem
from ._packed import folded_moment, packed, places, second_moment, unpacked
from ._state_space import log_evidence, points_together, smoothed

_START_PRECISION = 10.0  # of the noise, in units of y: at 1 many columns or few rows end with noise alone
_START_VARIANCE = 0.1
_WAVES = 8  # cosines of a random curve
_EVERY = 3  # sweeps between searches of the length scales
_CAUTIOUS = 10  # sweeps in which bases change slowly, and means do not go on
_MOMENTA = (0.3, 0.5, 3.0)  # least, first and largest share of the last change by which means go on
_SMALL = 1e-12
_LONGEST = 10.0  # length scale, in ranges of the coordinate
_SEARCHES = (0.8, 0.2)  # spacings of the lengths tried, on a logarithmic scale
_MANY_MODES = 6  # more modes than these start from functions near one


class ModeState(NamedTuple):
    """The posterior of the functions of a mode."""

    length: torch.Tensor  # ()
    linear: torch.Tensor | None  # (T, R) and (T, R, R), the message that made it; None at the start
    quadratic: torch.Tensor | None
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


class Ascent(NamedTuple):
    """A start and where it has come."""

    state: TuckerState
    former: TuckerState | None  # a sweep before
    momentum: float  # share of the last change of the means by which they go on


# Sweeps


def sweeps(problem: TuckerProblem, ws):
    """Yield the best of `n_init` states after each sweep."""
    ascents = [Ascent(start(problem, ws), None, _MOMENTA[1]) for _ in range(problem.options.n_init)]
    losses, sweep = [math.inf] * len(ascents), 0
    while True:
        ascents = [ascended(ascent, problem, sweep) for ascent in ascents]
        now = torch.stack([ascent.state.loss for ascent in ascents]).tolist()
        gap = max(abs(old - new) / max(abs(new), 1.0) for old, new in zip(losses, now))
        losses, sweep = now, sweep + 1
        best = min(range(len(now)), key=now.__getitem__)
        yield Step(ascents[best].state, gap, now[best])


def ascended(ascent: Ascent, problem: TuckerProblem, sweep: int) -> Ascent:
    """Return the ascent after one more sweep.

    For cp it starts from means that go on as in the sweep before, where the bound is no lower for that: the functions
    of many columns trade scales, and components trade shares, over hundreds of sweeps otherwise.
    """
    state, former, momentum = ascent
    if problem.options.cp and not problem.options.damping and sweep >= _CAUTIOUS:
        further = [
            mode._replace(mean=torch.lerp(before.mean, mode.mean, 1 + momentum))
            for before, mode in zip(former.modes, state.modes)
        ]
        found = swept(state._replace(modes=further), problem, sweep)
        if found.loss <= state.loss:
            return Ascent(found, state, min(1.3 * momentum, _MOMENTA[2]))
        momentum = max(momentum / 2, _MOMENTA[0])
    return Ascent(swept(state, problem, sweep), state, momentum)


def swept(state: TuckerState, problem: TuckerProblem, sweep: int) -> TuckerState:
    """Return the state after one sweep over modes, core and noise; its bound is no lower."""
    options, cells = problem.options, problem.cells
    tables = [moment_tables(mode, options.cp) for mode in state.modes]
    for k in range(len(state.modes)):
        linear, quadratic = sums_by_value(k, tables, problem)
        state = with_mode(k, state, (linear, quadratic), problem, sweep)
        tables[k] = moment_tables(state.modes[k], options.cp)
    last = state.modes[-1]
    if options.cp:
        core, core_covariance, divergence = state.core, state.core_covariance, 0.0
        explained = 2 * (linear * last.mean).sum() - (unpacked(quadratic, options.rank[-1]) * last.moment).sum()
    else:
        linear, quadratic = core_sums(linear, quadratic, last, options.rank)
        core, core_covariance = fitted_core(state.precision * linear, state.precision * quadratic)
        divergence = core_loss(core, core_covariance)
        explained = 2 * core @ linear - (second_moment(core, core_covariance) * quadratic).sum()
    noise, noise_loss = fitted_noise(cells.squares - explained, cells.total_weight, options.noise_prior)
    loss = sum(map(mode_loss, state.modes)) + divergence + noise_loss
    return TuckerState(state.modes, core, core_covariance, noise, loss)


def with_mode(k, state: TuckerState, sums, problem: TuckerProblem, sweep: int) -> TuckerState:
    """Return the state with new functions of mode k.

    A better basis of the core comes first; where it has lowered the bound, which can happen far from the optimum, the
    functions are fitted in the former one.
    """
    mode, options = state.modes[k], problem.options
    search = options.optimize_hyperparameters and sweep % _EVERY == _EVERY - 1
    if not (options.cp or options.damping or mode.linear is None):
        linear, quadratic = message(k, sums, state, options)
        former = (linear * mode.mean).sum() - (quadratic * mode.moment).sum() / 2 - mode_loss(mode)
        former = former - core_loss(state.core, state.core_covariance)
        found = fitted_mode(k, rotated(k, state, options.rank, cautious=sweep < _CAUTIOUS), sums, problem, search)
        if found.modes[k].evidence - core_loss(found.core, found.core_covariance) >= former:
            return found
    return fitted_mode(k, state, sums, problem, search)


def fitted_mode(k, state: TuckerState, sums, problem: TuckerProblem, search: bool) -> TuckerState:
    """Return the state with new functions of mode k, and their length scale where it is to be searched."""
    grid, mode, options = problem.grids[k], state.modes[k], problem.options
    linear, quadratic = message(k, sums, state, options)
    length = mode.length
    if search and grid.smooth:
        length, scale = best_length(grid, length, linear, quadratic, state, options)
        state = state._replace(core=scale * state.core, core_covariance=scale**2 * state.core_covariance)
        linear, quadratic = scale * linear, scale**2 * quadratic
    elif options.damping and mode.linear is not None:
        linear = torch.lerp(linear, mode.linear, options.damping)
        quadratic = torch.lerp(quadratic, mode.quadratic, options.damping)
    mode = ModeState(length, linear, quadratic, *smoothed(grid.process, grid.gaps, length, linear, quadratic))
    return state._replace(modes=[*state.modes[:k], mode, *state.modes[k + 1 :]])


def sums_by_value(k, tables, problem):
    """Return, by values of mode k, weighted sums of y E[z] (T, Q) and packed E[z z'] (T, .) over the other modes."""
    options, cells = problem.options, problem.cells
    others = [j for j in range(len(tables)) if j != k]
    widths = _widths(options, others)
    T, together = len(problem.grids[k].points), [sum(widths)] if options.cp else widths
    found = [cells.y.new_zeros(T, width) for width in together]
    order = cells.order[k]

    def of_rows(part):
        rows = order[part]
        codes, weight = cells.codes[rows], cells.weight[rows, None]
        low, high = codes[[0, -1], k].tolist()  # rows are sorted
        factors = weight * cells.y[rows, None], weight
        if options.cp:
            factors = [torch.cat([factor.expand(-1, width) for factor, width in zip(factors, widths)], 1)]
        sums = []
        for i, (width, factor) in enumerate(zip(together, factors)):
            parts = (tables[j][i].index_select(0, codes[:, j]) for j in others)
            product = reduce(torch.mul if options.cp else _kron, parts, factor)
            sums.append(product.new_zeros(high + 1 - low, width).index_add_(0, codes[:, k] - low, product))
        return low, sums

    size = 24 * sum(widths)
    block = rows_per_block(options.batch_size, len(order), size)
    for low, sums in in_blocks(of_rows, len(order), block, bytes_per_row=size):
        for out, part in zip(found, sums):
            out[low : low + len(part)] += part
    return found[0].split(widths, 1) if options.cp else found


def moment_tables(mode: ModeState, cp: bool):
    """Return E[u] (T, R) and packed E[u u'] (T, .) of a mode; for cp side by side, as rows' products are entrywise."""
    tables = mode.mean, packed(mode.moment)
    return (torch.cat(tables, 1),) if cp else tables


def message(k, sums, state: TuckerState, options):
    """Return what the sums by value say of the functions of mode k: linear (T, R) and quadratic (T, R, R) parts."""
    first, second = (state.precision * part for part in sums)
    if options.cp:
        return first, unpacked(second, options.rank[k])
    rank, order = options.rank, [k, *(j for j in range(len(options.rank)) if j != k)]
    core = state.core.reshape(rank).permute(order).reshape(rank[k], -1)
    moment = second_moment(state.core, state.core_covariance).reshape(*rank, *rank)
    folded = folded_moment(moment, order[1:])  # (R, R, packed pairs of the other modes)
    return first @ core.T, (second @ folded.reshape(rank[k] ** 2, -1).T).reshape(-1, rank[k], rank[k])


def rotated(k, state: TuckerState, rank, *, cautious) -> TuckerState:
    """Return the state with its core in a better basis of mode k, whose functions are to be fitted next.

    Functions M u and a core M^-T G fit the data as well as u and G. W = M'M minimises what both diverge from their
    priors, tr(W S) + tr(W^-1 E) - (D - Q) log|W|, with S the squares of u in the norm of the prior and E = E[G G'].
    Of the T values of u only the D that the data determine are moved, the degrees of freedom of the smoother: all
    others are as under the prior. Where `cautious`, D is T, and the basis changes less: in the first sweeps functions
    that are not fitted yet would vanish. Without this, core and functions trade scales over hundreds of sweeps.
    """
    mode, R, P = state.modes[k], rank[k], len(state.core)
    Q = P // R
    order = torch.arange(P, device=state.core.device).reshape(rank).movedim(k, 0).flatten()
    core, covariance = state.core[order].reshape(R, Q), state.core_covariance[order][:, order].reshape(R, Q, R, Q)
    E = core @ core.T + torch.einsum("aibi->ab", covariance)
    D = core.new_tensor(float(len(mode.mean))) if cautious else (mode.quadratic * mode.covariance).sum() / R
    S = D * torch.eye(R, dtype=core.dtype, device=core.device) + mode.linear.T @ mode.mean
    S = S - torch.einsum("tab,tbc->ac", mode.quadratic, mode.moment)
    B = _better_basis((S + S.T) / 2, E, D - Q)
    core, covariance = B @ core, torch.einsum("ab,biqj,pq->aipj", B, covariance, B).reshape(P, P)
    back = order.argsort()
    return state._replace(core=core.flatten()[back], core_covariance=covariance[back][:, back])


def _better_basis(S, E, surplus):
    """Return M^-T, of which W = M'M solves W S W = surplus W + E."""
    values, vectors = torch.linalg.eigh(S)
    least = (_SMALL * values[-1]).clamp(min=_SMALL)  # data that say nothing leave no squares
    root = vectors * torch.maximum(values, least).sqrt() @ vectors.T
    values, vectors = torch.linalg.eigh(root @ E @ root)
    values = values.clamp(min=0)
    size = surplus.abs() / 2 + (surplus**2 / 4 + values).sqrt()
    squares = torch.where(surplus >= 0, size, values / size)  # the positive root, where nothing cancels
    return (vectors / squares.clamp(min=_SMALL).sqrt()).T @ root


def best_length(grid: Grid, length, linear, quadratic, state: TuckerState, options):
    """Return a length scale and a factor of the core with which the bound is no lower, by trials of several at once.

    The message stays as it is, but for the factor. Lengths are tried alone, and with a core that grows by the power of
    the kernel's smoothness: functions with lengths beyond the range of the coordinate differ from others by the ratio
    of these, and by little else.
    """
    lowest = grid.gaps[1:].min().clamp(max=_LONGEST)
    energy = state.core @ state.core + state.core_covariance.trace()
    steps = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=length.dtype, device=length.device)
    growth = torch.zeros_like(steps) if options.cp else torch.cat([0 * steps, (grid.process.order - 0.5) * steps])
    steps, log_scale = steps.repeat(len(growth) // len(steps)), torch.zeros_like(length)

    def gains(trials):
        scale = torch.exp(logs[trials])[:, None]
        message = linear[:, None], quadratic[:, None]
        if not options.cp:
            message = scale * message[0], scale[..., None] ** 2 * message[1]
        found = log_evidence(grid.process, grid.gaps, lengths[trials], *message)
        return found - energy * torch.exp(2 * logs[trials]) / 2 + len(state.core) * logs[trials]

    width = grid.process.rank * (points_together(grid.process) + grid.process.order)
    size = 64 * len(linear) * width**2 // points_together(grid.process)
    best = None
    for spacing in _SEARCHES:
        lengths = torch.cat([length[None], (length * torch.exp(spacing * steps)).clamp(lowest, _LONGEST)])
        logs = log_scale + torch.cat([0 * length[None], spacing * growth])
        new = (lengths != length) | (logs != log_scale)  # beyond the limits all are alike
        new[0] = best is None
        new = new.nonzero()[:, 0]
        block = rows_per_block("auto", len(new), size)
        found = torch.full_like(lengths, -torch.inf) if best is None else best.repeat(len(lengths))
        found[new] = join_blocks(lambda part, new=new: gains(new[part]), len(new), block, bytes_per_row=size)
        at = found.argmax()
        length, log_scale, best = lengths[at], logs[at], found[at]
    return length, torch.exp(log_scale)


def mode_loss(mode: ModeState):
    """Return the divergence of the functions of a mode from their prior."""
    return (mode.linear * mode.mean).sum() - (mode.quadratic * mode.moment).sum() / 2 - mode.evidence


def core_sums(first, second, mode: ModeState, rank):
    """Return weighted sums of y E[z] (P,) and E[z z'] (P, P) over all modes, from those by the values of the last."""
    P, K = math.prod(rank), len(rank)
    second = second.T @ packed(mode.moment)
    second = second.reshape([r * (r + 1) // 2 for r in rank])
    for k, r in enumerate(rank):  # entries of pairs, one mode after the other
        second = second.movedim(k, -1)[..., places(r, second.device)].flatten(-2).movedim(-1, k)
    pairs = second.reshape([size for r in rank for size in (r, r)])
    second = pairs.permute([*range(0, 2 * K, 2), *range(1, 2 * K, 2)]).reshape(P, P)
    return (first.T @ mode.mean).flatten(), second


def fitted_core(linear, quadratic):
    """Return mean (P,) and covariance (P, P) of the core."""
    precision = quadratic + torch.eye(len(linear), dtype=linear.dtype, device=linear.device)
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    return covariance @ linear, covariance


def core_loss(core, covariance):
    """Return the divergence of the core from its prior."""
    return (covariance.trace() + core @ core - len(core) - torch.linalg.slogdet(covariance).logabsdet) / 2


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
        mean[:, : R if len(problem.grids) > _MANY_MODES else 1] += 1.0
        covariance = _START_VARIANCE * torch.eye(R, dtype=ws.dtype, device=ws.device).expand(T, R, R)
        length = torch.tensor(length, dtype=ws.dtype, device=ws.device)
        modes.append(ModeState(length, None, None, mean, covariance, 0.0))
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
    if grid.labels:
        return 0.5 * ws.randn(T, R)
    frequency, phase, amplitude = 2 * math.pi * ws.randn(3, _WAVES, R)
    waves = torch.cos(grid.points[:, None, None] * frequency + phase)
    return 0.5 * math.sqrt(2 / _WAVES) * (waves * amplitude / (2 * math.pi)).sum(1)


# Shapes


def _kron(a, b):
    return torch.einsum("na,nb->nab", a, b).flatten(1)


def _widths(options, others):
    """Return lengths of E[z] and of packed E[z z'] over the other modes."""
    if options.cp:
        rank = options.rank[0]
        return rank, rank * (rank + 1) // 2
    ranks = [options.rank[j] for j in others]
    return math.prod(ranks), math.prod(r * (r + 1) // 2 for r in ranks)
