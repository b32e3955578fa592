"""Matérn processes on a line as Markov chains: smoothing in time linear in the number of points.

A process with a Matérn kernel of smoothness 1/2, 3/2 or 5/2 is the first entry of a Markov chain of s = 1, 2 or 3
entries, the function and its derivatives. A chain over many points is a product of segments, and two segments that
follow one another make one. So all marginals come from a scan over the segments, in batches of products of small
matrices, on any device. Where segments are single points the calls cost more than the products: stretches of several
points are made segments at once, by a dense solve, and a second one gives the marginals within.
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
_PADS = (0, 0, 0, 1), (0, 1, 0, 1)  # of a step and a spread, by the row and column of the 1
_TOGETHER = 36  # values of functions in a stretch: cost per point is flat around it
_FEW = 32  # segments
_FAR = 700.0  # exp(-700) is 1e-304: points so far apart are independent


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
    """Several points each of functions that are alike, and what is observed at these.

    A function has w entries: its values at the points, and its derivatives at the last one.
    """

    step: torch.Tensor  # (n, ..., w, s), from the state of one function before
    spread: torch.Tensor  # (n, ..., w, w)
    linear: torch.Tensor  # (n, ..., R, w)
    quadratic: torch.Tensor  # (n, ..., R, R, w), of the functions at the same point

    @property
    def points(self) -> int:
        return self.step.shape[-2] - self.step.shape[-1] + 1


class Chain(NamedTuple):
    """The posterior of a chain at its T points, in the form that predictions between the points need."""

    mean: torch.Tensor  # (T, d), given what is observed up to a point, it included
    covariance: torch.Tensor  # (T, d, d)
    linear: torch.Tensor  # (T, d), what is observed from a point on, it included, says of its state
    quadratic: torch.Tensor  # (T, d, d)


# Chains


def joined(first: Segment, second: Segment) -> Segment:
    """Return the segment that two make which follow one another."""
    d = first.step.shape[-1]
    triangles, pivots, _ = torch.linalg.lu_factor_ex(_plus_identity(first.spread @ second.factor))
    found = torch.linalg.lu_solve(triangles, pivots, torch.cat([first.step, first.spread], -1))
    factor = first.factor + found[..., :d].transpose(-1, -2) @ (second.factor @ first.step)
    factor[..., -1, -1] += _log_size(triangles)
    moved = second.step @ found
    return Segment(moved[..., :d], moved[..., d:] @ second.step.transpose(-1, -2) + second.spread, factor)


def stretches(process: Process, gaps, length, linear, quadratic, size: int) -> Stretches:
    """Return stretches of about `size` points, given factors exp(linear'u - u'quadratic u / 2) of the functions u.

    `gaps` (T,) are the distances to the point before, infinite where nothing is known of it; within a stretch they are
    finite. Where `length` (B,) are several lengths to be tried, `linear` (T, B, R) and `quadratic` (T, B, R, R) are the
    factors that belong to each, or (T, 1, R) and (T, 1, R, R) to all.
    """
    n = 2 ** round(math.log2(len(gaps) / size)) if 1 < size < len(gaps) else -(-len(gaps) // size)  # halved evenly
    size = -(-len(gaps) // n)
    n = -(-len(gaps) // size)
    linear, quadratic, gaps = (_in_rows(part, n, size) for part in (linear, quadratic, gaps))  # points without a factor
    within = gaps.clone()
    within[:, 0] = 0
    within = within.cumsum(1)
    moved = _moved_together(process, gaps[:, :1] + within, within, length)
    factors = (torch.nn.functional.pad(part.movedim(1, -1), (0, process.order - 1)) for part in (linear, quadratic))
    return Stretches(*moved, *factors)


def joined_points(parts: Stretches) -> Segment:
    """Return the segments that stretches make."""
    (w, s), R = parts.step.shape[-2:], parts.linear.shape[-2]
    M = _matrix(parts.spread[..., None, :, None, :] * parts.quadratic[..., :, None, :, :])
    triangles, pivots, _ = torch.linalg.lu_factor_ex(_plus_identity(M))
    mean = (parts.linear @ parts.spread).flatten(-2)[..., None]
    sides = [_repeated(parts.step, R), mean, _repeated(parts.spread[..., w - s :], R)]
    found = torch.linalg.lu_solve(triangles, pivots, torch.cat(sides, -1))
    seen = _matrix(parts.quadratic.transpose(-1, -2)[..., None] * parts.step[..., None, :, None, :])
    seen = torch.cat([seen, -parts.linear.flatten(-2)[..., None].expand(*seen.shape[:-1], 1)], -1)
    d = s * R + 1
    factor = seen.transpose(-1, -2) @ found[..., :d]
    factor[..., :-1, -1] = factor[..., -1, :-1]
    factor[..., -1, -1] += _log_size(triangles)
    found = found.unflatten(-2, (R, w))[..., w - s :, :].flatten(-3, -2)
    step, spread = (torch.nn.functional.pad(part, pad) for part, pad in zip(found.split([d, d - 1], -1), _PADS))
    step[..., -1, -1] = 1.0
    return Segment(step, spread, factor)


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
    parts = torch.stack(segments, 1)
    while (n := len(parts)) > 1:
        parts = torch.cat([_joined(parts[: n - 1 : 2], parts[1::2]), parts[n - n % 2 :]])
    return Segment(*parts[0])


def scans(segments: Segment) -> tuple[Segment, Segment]:
    """Return what the segments up to each make, and what those from each on make."""
    ahead, back = _scans(torch.stack(segments, 1))
    return Segment(*ahead.unbind(1)), Segment(*back.unbind(1))


def _scans(parts):
    """Return the scans of stacked segments (n, 3, d, d)."""
    n = len(parts)
    if n <= _FEW:
        return _scans_of_few(parts)
    if n % 2:
        nothing = torch.zeros_like(parts[:1])
        _plus_identity(nothing[:, 0])
        ahead, back = _scans(torch.cat([parts, nothing]))
        return ahead[:n], back[:n]
    ahead, back = _scans(_joined(parts[::2], parts[1::2]))
    middle = n // 2 - 1
    left, right = torch.cat([ahead[:middle], parts[1 : n - 2 : 2]]), torch.cat([parts[2::2], back[1:]])
    between = _joined(left, right)
    firsts, lasts = torch.cat([parts[:1], between[:middle]]), torch.cat([between[middle:], parts[-1:]])
    return torch.stack([firsts, ahead], 1).flatten(0, 1), torch.stack([back, lasts], 1).flatten(0, 1)


def _scans_of_few(parts):
    """Return the scans of few segments, by more products in fewer batches: each takes in twice as many as before."""
    ahead, back, reach = parts, parts, 1
    while reach < (n := len(parts)):
        both = _joined(torch.cat([ahead[:-reach], back[:-reach]]), torch.cat([ahead[reach:], back[reach:]]))
        ahead = torch.cat([ahead[:reach], both[: n - reach]])
        back = torch.cat([both[n - reach :], back[n - reach :]])
        reach *= 2
    return ahead, back


def _joined(first, second):
    return torch.stack(joined(Segment(*first.unbind(1)), Segment(*second.unbind(1))), 1)


def smoothed(process: Process, gaps, length, linear, quadratic):
    """Return means (T, R) and covariances (T, R, R) of the functions at the points, and the log evidence."""
    alone = bool(torch.isinf(gaps).all())  # independent points
    parts = stretches(process, gaps, length, linear, quadratic, 1 if alone else points_together(process))
    segments = joined_points(parts)
    if alone or len(segments.step) == 1:
        evidence, before, later = segments.factor[:, -1, -1].sum() / -2, None, None
    else:
        ahead, back = scans(segments)
        evidence, before, later = back.factor[0, -1, -1] / -2, ahead, back
    mean, covariance = _inside(parts, before, later)
    mean, covariance = (part.movedim(-1, 1).flatten(0, 1)[: len(gaps)] for part in (mean, covariance))
    return mean, covariance, evidence


def _inside(parts: Stretches, ahead: Segment | None, back: Segment | None):
    """Return means (n, R, size) and covariances (n, R, R, size), of stretches among what is before and behind each."""
    (w, s), R = parts.step.shape[-2:], parts.linear.shape[-2]
    spread, linear = _repeated(parts.spread, R), parts.linear.flatten(-2)
    quadratic = _matrix(torch.diag_embed(parts.quadratic, dim1=-3, dim2=-1))
    mean = torch.zeros_like(linear)
    if ahead is not None:
        step = _repeated(parts.step[1:], R)
        mean[1:] = _times(step, ahead.step[:-1, :-1, -1])
        spread[1:] += step @ ahead.spread[:-1, :-1, :-1] @ step.transpose(-1, -2)
        later = back.factor[1:, :-1, :-1].unflatten(-1, (R, s)).unflatten(-3, (R, s))
        quadratic.unflatten(-1, (R, w)).unflatten(-3, (R, w))[:-1, :, w - s :, :, w - s :] += later
        linear = linear.clone()
        linear.unflatten(-1, (R, w))[:-1, :, w - s :] -= back.factor[1:, :-1, -1].unflatten(-1, (R, s))
    mean, covariance = informed(mean, spread, linear, quadratic)
    covariance = covariance.unflatten(-1, (R, w)).unflatten(-3, (R, w)).diagonal(dim1=-3, dim2=-1)
    return mean.unflatten(-1, (R, w))[..., : parts.points], covariance[..., : parts.points]


def posterior_chain(process: Process, gaps, length, linear, quadratic) -> Chain:
    """Return what predictions between the points need."""
    parts = stretches(process, gaps, length, linear, quadratic, 1)
    ahead, later = joined_points(parts), None
    own = parts.linear.flatten(-2).clone(), _matrix(torch.diag_embed(parts.quadratic, dim1=-3, dim2=-1))
    if len(gaps) > 1 and not torch.isinf(gaps).all():
        ahead, later = scans(ahead)
        own[0][:-1] -= later.factor[1:, :-1, -1]
        own[1][:-1] += later.factor[1:, :-1, :-1]
    return Chain(ahead.step[:, :-1, -1], _symmetric(ahead.spread[:, :-1, :-1]), own[0], _symmetric(own[1]))


def log_evidence(process: Process, gaps, lengths, linear, quadratic):
    """Return the log evidence of each of several lengths (B,), of factors as of `stretches`."""
    parts = stretches(process, gaps, lengths, linear, quadratic, points_together(process))
    return total(joined_points(parts)).factor[..., -1, -1] / -2


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


def _matrix(A):
    """Return (..., a, b, c, d) as matrices (..., ab, cd)."""
    return A.flatten(-4, -3).flatten(-2)


def _log_size(triangles):
    """Return the log determinants of matrices, of their LU factors."""
    return triangles.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


def _in_rows(a, n, size):
    """Return a (T, ...) as n rows (n, size, ...), zeros at the end."""
    a = torch.cat([a, a.new_zeros(n * size - len(a), *a.shape[1:])]) if n * size > len(a) else a
    return a.unflatten(0, (n, size))


def _plus_identity(A):
    A.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return A


def _padded_front(a):
    return torch.cat([torch.zeros_like(a[:1]), a])


def _padded_end(a):
    return torch.cat([a, torch.zeros_like(a[:1])])


def _times(A, x):
    return (A @ x[..., None])[..., 0]


def _symmetric(A):
    return (A + A.transpose(-1, -2)) / 2
