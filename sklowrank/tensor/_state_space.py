"""Matérn processes on a line as Markov chains: smoothing in time linear in the number of points.

A process with a Matérn kernel of smoothness 1/2, 3/2 or 5/2 is the first entry of a Markov chain of s = 1, 2 or 3
entries, the function and its derivatives. A chain over many points is a product of segments, and two segments that
follow one another make one. So all marginals come from a scan over the segments: about 2 log2(T) batches of products of
small matrices for T points, on any device.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

ORDERS = {"matern12": 1, "matern32": 2, "matern52": 3}  # entries of a state: a function and its derivatives
_NILPOTENT = {  # of the derivative by time times length / sqrt(2 nu), plus the identity
    "matern12": [[0.0]],
    "matern32": [[1.0, 1.0], [-1.0, -1.0]],
    "matern52": [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [-1.0, -3.0, -2.0]],
}
_STATIONARY = {  # covariances of states of unit variance, derivatives in units of (sqrt(2 nu) / length)
    "matern12": [[1.0]],
    "matern32": [[1.0, 0.0], [0.0, 1.0]],
    "matern52": [[1.0, 0.0, -1 / 3], [0.0, 1 / 3, 0.0], [-1 / 3, 0.0, 1.0]],
}
_TOGETHER = 36  # values of functions in a stretch: cost per point is flat around it
_FAR = 700.0  # exp(-700) is 1e-304: points so far apart know nothing of one another


class Process(NamedTuple):
    """The prior of the functions of a mode: independent, with one kernel."""

    kernel: str
    rank: int  # functions
    variance: float

    @property
    def order(self) -> int:
        return ORDERS[self.kernel]


class Segment(NamedTuple):
    """What happens from a state x to a later state x', and what is observed on the way.

    States have a last entry 1, so that steps have offsets, and factors linear and constant terms: the density of x' and
    of the observations is exp(-x' factor x / 2) N(x'; step x, spread). Of batches of segments.
    """

    step: torch.Tensor  # (..., d, d)
    spread: torch.Tensor
    factor: torch.Tensor


class Stretches(NamedTuple):
    """Segments over several points each, before anything is observed, and what is.

    The last state of a segment has, function after function, the values at its points and the derivatives at the last
    one; then the 1.
    """

    prior: Segment  # steps (n, ..., w, d), spreads (n, ..., w, w)
    factor: torch.Tensor  # (n, ..., w, w)
    functions: torch.Tensor  # (R, size), where the values are
    ends: torch.Tensor  # (d,), where the state at the last point is


class Chain(NamedTuple):
    """The posterior of a chain at its T points, as far as predictions between the points need it."""

    mean: torch.Tensor  # (T, d), given what is observed up to a point, it included
    covariance: torch.Tensor  # (T, d, d)
    linear: torch.Tensor  # (T, d), what is observed from a point on, it included, says of its state
    quadratic: torch.Tensor  # (T, d, d)


# Chains


def joined(first: Segment, second: Segment) -> Segment:
    """Return the segment that two make which follow one another."""
    first = observed(first, second.factor)
    spread = second.step @ first.spread @ second.step.transpose(-1, -2) + second.spread
    return Segment(second.step @ first.step, spread, first.factor)


def observed(segment: Segment, factor, at=None) -> Segment:
    """Return the segment after a factor exp(-x' factor x' / 2) of its last state.

    Of that state the entries `at` are kept, the last of which is the 1; all by default.
    """
    M = _plus_identity(segment.spread @ factor)
    triangles, pivots, _ = torch.linalg.lu_factor_ex(M)
    spread = segment.spread if at is None else segment.spread[..., at]
    found = torch.linalg.lu_solve(triangles, pivots, torch.cat([segment.step, spread], -1))
    earlier = segment.step.shape[-1]
    factor = segment.factor + found[..., :earlier].transpose(-1, -2) @ (factor @ segment.step)
    factor[..., -1, -1] += triangles.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    found = found if at is None else found[..., at, :]
    return Segment(found[..., :earlier], found[..., earlier:], factor)


def stretches(process: Process, gaps, length, linear, quadratic, size: int) -> Stretches:
    """Return stretches of about `size` points, given factors exp(linear'u - u'quadratic u / 2) of the functions u.

    `gaps` (T,) are the distances to the point before, infinite where nothing is known of it; within a stretch they are
    finite. Where `length` (B,) are several lengths to be tried, `linear` (T, B, R) and `quadratic` (T, B, R, R) are the
    factors that belong to each.
    """
    T, rank, order = len(gaps), process.rank, process.order
    n = -(-T // size)
    size = -(-T // n)
    linear, quadratic, gaps = (_in_rows(part, n, size) for part in (linear, quadratic, gaps))  # points without a factor
    within = gaps.clone()
    within[:, 0] = 0
    within = within.cumsum(1)
    prior = _repeated_segment(*_moved_together(process, gaps[:, :1] + within, within, length), rank)
    like = {"device": gaps.device}
    firsts = torch.arange(rank, **like)[:, None] * (size + order - 1)
    functions, states = firsts + torch.arange(size, **like), firsts + torch.arange(size - 1, size - 1 + order, **like)
    factor, linear = torch.zeros_like(prior.spread), linear.movedim(1, -1)
    factor[..., functions[:, None], functions] = quadratic.movedim(1, -1)
    factor[..., functions, -1] = factor[..., -1, functions] = -linear
    ends = torch.cat([states.flatten(), states.new_full((1,), factor.shape[-1] - 1)])
    return Stretches(prior, factor, functions, ends)


def _moved_together(process, since, within, length):
    """Return steps (n, ..., w, s) and spreads (n, ..., w, w) of one function over stretches.

    It is moved from its state before a stretch to its values at the points and its derivatives at the last one.
    `since` and `within` (n, size) are the distances of the points to that state and to the first point.
    """
    at_points = _decayed(process, since, length)
    derivatives = at_points[:, -1, ..., 1:, :]
    step = torch.cat([at_points[..., 0, :].movedim(1, -2), derivatives], -2)
    P = _stationary(process, step)
    values = _correlations(process, (within[:, :, None] - within[:, None, :]).abs(), length).movedim((1, 2), (-2, -1))
    cross = _decayed(process, within[:, -1:] - within, length)[..., 1:, :] @ P[:, 0]
    cross = cross.movedim(1, -1)
    corner = P[1:, 1:].expand(*cross.shape[:-1], -1)
    together = torch.cat([torch.cat([values, cross], -2), torch.cat([cross.transpose(-1, -2), corner], -2)], -1)
    return step, process.variance * (together - step @ P @ step.transpose(-1, -2))


def total(segments: Segment) -> Segment:
    """Return what all segments together make."""
    while (n := len(segments.step)) > 1:
        pairs = joined(_part(segments, 0, n - 1, 2), _part(segments, 1, n, 2))
        segments = _rowed(pairs, _part(segments, n - n % 2, n))
    return _part(segments, 0)


def scans(segments: Segment) -> tuple[Segment, Segment]:
    """Return what the segments up to each make, and what those from each on make."""
    n = len(segments.step)
    if n < 2:
        return segments, segments
    if n % 2:
        nothing = torch.zeros_like(segments.step[:1])
        ahead, back = scans(_rowed(segments, Segment(_plus_identity(nothing.clone()), nothing, nothing)))
        return _part(ahead, 0, n), _part(back, 0, n)
    ahead, back = scans(joined(_part(segments, 0, n, 2), _part(segments, 1, n, 2)))
    left = _rowed(_part(ahead, 0, n // 2 - 1), _part(segments, 1, n - 2, 2))
    between = joined(left, _rowed(_part(segments, 2, n, 2), _part(back, 1, n // 2)))
    middle = n // 2 - 1
    firsts = _rowed(_part(segments, 0, 1), _part(between, 0, middle))
    lasts = _rowed(_part(between, middle, n), _part(segments, n - 1, n))
    return _interleaved(firsts, ahead), _interleaved(back, lasts)


def smoothed(process: Process, gaps, length, linear, quadratic):
    """Return means (T, R) and covariances (T, R, R) of the functions at the points, and the log evidence."""
    alone = bool(torch.isinf(gaps).all())  # points that know nothing of one another
    prior, factor, functions, ends = stretches(
        process, gaps, length, linear, quadratic, 1 if alone else points_together(process)
    )
    segments = observed(prior, factor, ends)
    state = torch.zeros_like(segments.step[:, :, -1]), torch.zeros_like(segments.spread)
    evidence = segments.factor[:, -1, -1].sum() / -2
    if len(segments.step) > 1 and not alone:
        ahead, back = scans(segments)
        state = _padded_front(ahead.step[:-1, :, -1]), _padded_front(ahead.spread[:-1])
        state[0][0, -1] = 1
        factor[:-1, ends[:, None], ends] += back.factor[1:]
        evidence = back.factor[0, -1, -1] / -2
    mean, spread = _times(prior.step, state[0]), prior.step @ state[1] @ prior.step.transpose(-1, -2) + prior.spread
    mean, covariance = informed(
        mean[:, :-1], spread[:, :-1, :-1], -factor[:, :-1, -1], _symmetric(factor[:, :-1, :-1])
    )
    mean, covariance = mean[:, functions], covariance[:, functions[:, None], functions]
    mean, covariance = (part.movedim(-1, 1).flatten(0, 1)[: len(gaps)] for part in (mean, covariance))
    return mean, covariance, evidence


def posterior_chain(process: Process, gaps, length, linear, quadratic) -> Chain:
    """Return what predictions between the points need."""
    prior, factor, functions, _ = stretches(process, gaps, length, linear, quadratic, 1)
    ahead, later = observed(prior, factor), torch.zeros_like(factor)
    if not torch.isinf(gaps).all():
        ahead, back = scans(ahead)
        later[:-1] = back.factor[1:]
    later += factor
    states = ahead.step[:, :-1, -1], _symmetric(ahead.spread[:, :-1, :-1])
    return Chain(*states, -later[:, :-1, -1], _symmetric(later[:, :-1, :-1]))


def log_evidence(process: Process, gaps, lengths, linear, quadratic):
    """Return the log evidence of each of several lengths (B,), of factors (T, B, R) and (T, B, R, R)."""
    prior, factor, _, ends = stretches(process, gaps, lengths, linear, quadratic, points_together(process))
    return total(observed(prior, factor, ends)).factor[..., -1, -1] / -2


def points_together(process: Process) -> int:
    """Return how many points a stretch has."""
    return max(1, _TOGETHER // process.rank)


# Between the points of a chain


def moments(process: Process, points, length, chain: Chain, x):
    """Return means (m, R) and covariances (m, R, R) of the functions at any x (m,), in order or not."""
    (mean, covariance), later = _from_both_sides(process, points, length, chain, x)
    mean, covariance = informed(mean, covariance, *later)
    places = slice(None, None, process.order)
    return mean[:, places], covariance[:, places, places]


def _from_both_sides(process, points, length, chain, x):
    """Return the state at x given the points before it, and what the points behind it say of it."""
    before = torch.searchsorted(points, x, right=True)
    ends = torch.cat([points, points.new_full((1,), torch.inf)]), torch.cat([points.new_full((1,), -torch.inf), points])
    step, spread = transitions(process, x - ends[1][before], length)
    mean = _times(step, _padded_front(chain.mean)[before])
    covariance = step @ _padded_front(chain.covariance)[before] @ step.transpose(-1, -2) + spread
    behind = transitions(process, ends[0][before] - x, length)
    later = _drawn_back(*behind, _padded_end(chain.linear)[before], _padded_end(chain.quadratic)[before])
    return (mean, _symmetric(covariance)), later


def draws(process: Process, points, length, chain: Chain, x, randn: Callable[..., torch.Tensor], n_draws: int):
    """Return joint draws (m, R, n_draws) of the functions at any x (m,).

    The chain is followed from left to right, over x and its own points: a step is normal, given what is observed
    behind it.
    """
    places, where = torch.unique(torch.cat([points, x]), return_inverse=True)
    ahead = torch.searchsorted(points, places)
    ends = torch.cat([points, points.new_full((1,), torch.inf)])[ahead]
    further = _padded_end(chain.linear)[ahead], _padded_end(chain.quadratic)[ahead]
    linear, quadratic = _drawn_back(*transitions(process, (ends - places).clamp(min=0), length), *further)
    step, spread = transitions(process, places.diff(prepend=places.new_full((1,), -torch.inf)), length)
    mean, spread = informed(torch.zeros_like(linear), spread, linear, quadratic)
    step = step - spread @ quadratic @ step  # (I + Q J)^-1 A
    variances, vectors = torch.linalg.eigh(spread)
    noise = randn(len(places), spread.shape[-1], n_draws)
    moved = (vectors * variances.clamp(min=0).sqrt()[:, None]) @ noise + mean[..., None]
    drawn = _followed(step, moved)
    return drawn[where[len(points) :], :: process.order]


def _followed(step, moved):
    """Return x_i = step_i x_(i-1) + moved_i (T, d, m) for all i, from x_0 = 0."""
    n = len(step)
    if n < 2:
        return moved
    m = n - n % 2
    odds = _followed(step[1:m:2] @ step[0:m:2], step[1:m:2] @ moved[0:m:2] + moved[1:m:2])
    evens = moved[::2].clone()
    evens[1:] += step[2::2] @ odds[: len(evens) - 1]
    found = torch.empty_like(moved)
    found[::2], found[1::2] = evens, odds
    return found


def transitions(process: Process, gaps, length):
    """Return steps and spreads (T, d, d) of the states over `gaps` (T,)."""
    A = _decayed(process, gaps, length)
    P = _stationary(process, A)
    Q = process.variance * _symmetric(P - A @ P @ A.transpose(-1, -2))
    return _repeated(A, process.rank), _repeated(Q, process.rank)


def _decayed(process, gaps, length):
    """Return how the state of one function is moved by `gaps` (...) on the mean, (..., B, s, s) for lengths (B,)."""
    r = _in_lengths(process, gaps, length)[..., None, None]
    N = torch.tensor(_NILPOTENT[process.kernel], dtype=r.dtype, device=r.device)
    identity = torch.eye(process.order, dtype=r.dtype, device=r.device)
    return torch.exp(-r) * (identity + r * N + r.square() / 2 * (N @ N))


def _correlations(process, gaps, length):
    """Return correlations of a function with itself over `gaps` (...), (..., B) for lengths (B,)."""
    r = _in_lengths(process, gaps, length)
    return torch.exp(-r) * (1.0, 1.0 + r, 1.0 + r + r.square() / 3)[process.order - 1]


def _in_lengths(process, gaps, length):
    rate = math.sqrt(2 * process.order - 1) / length
    return (gaps.reshape(*gaps.shape, *(1,) * length.dim()) * rate).clamp(max=_FAR)


def _stationary(process, like):
    return torch.tensor(_STATIONARY[process.kernel], dtype=like.dtype, device=like.device)


def informed(mean, covariance, linear, quadratic):
    """Return mean and covariance of a normal state after a factor exp(linear'x - x'quadratic x / 2)."""
    M = _plus_identity(covariance @ quadratic)
    sides = torch.cat([covariance, (mean + _times(covariance, linear))[..., None]], -1)
    found = torch.linalg.solve(M, sides)
    return found[..., -1], _symmetric(found[..., :-1])


def _drawn_back(step, spread, linear, quadratic):
    """Return what a factor of the state at the end of a step says of the state at its start."""
    transposed = torch.linalg.solve(_plus_identity(spread @ quadratic), step).transpose(-1, -2)
    return _times(transposed, linear), _symmetric(transposed @ quadratic @ step)


def _repeated(A, rank):
    """Return block-diagonal matrices of `rank` equal blocks."""
    identity = torch.eye(rank, dtype=A.dtype, device=A.device)
    return torch.einsum("rq,...ij->...riqj", identity, A).flatten(-4, -3).flatten(-2, -1)


def _repeated_segment(step, spread, rank):
    """Return the segment of `rank` equal functions, and the 1."""
    step, spread = (torch.nn.functional.pad(_repeated(part, rank), (0, 1, 0, 1)) for part in (step, spread))
    step[..., -1, -1] = 1.0
    return Segment(step, spread, step.new_zeros(*step.shape[:-2], step.shape[-1], step.shape[-1]))


def _in_rows(a, n, size):
    """Return a (T, ...) as n rows (n, size, ...), zeros at the end."""
    a = torch.cat([a, a.new_zeros(n * size - len(a), *a.shape[1:])]) if n * size > len(a) else a
    return a.unflatten(0, (n, size))


def _plus_identity(A):
    A.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return A


def _part(parts, *at):
    return type(parts)(*(part[at[0] if len(at) == 1 else slice(*at)] for part in parts))


def _rowed(first, second):
    return type(first)(*(torch.cat(both) for both in zip(first, second)))


def _interleaved(evens, odds):
    return type(evens)(*(torch.stack(both, 1).flatten(0, 1) for both in zip(evens, odds)))


def _padded_front(a):
    return torch.cat([torch.zeros_like(a[:1]), a])


def _padded_end(a):
    return torch.cat([a, torch.zeros_like(a[:1])])


def _times(A, x):
    return (A @ x[..., None])[..., 0]


def _symmetric(A):
    return (A + A.transpose(-1, -2)) / 2
