"""Matérn processes on a line as Markov chains: smoothing in time linear in the number of points.

A process with a Matérn kernel of smoothness 1/2, 3/2 or 5/2 is the first entry of a Markov chain of s = 1, 2 or 3
entries, the function and its derivatives. A chain over many points is a product of segments, and two segments that
follow one another make one. So all marginals come from a scan over the segments: about 2 log2(T) batches of products of
small matrices for T points, on any device.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

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

    The density of x' and of the observations is exp(constant + linear'x - x'quadratic x / 2) N(x'; step x + offset,
    spread). Of batches of segments.
    """

    step: torch.Tensor  # (..., d, d)
    offset: torch.Tensor  # (..., d)
    spread: torch.Tensor  # (..., d, d)
    linear: torch.Tensor  # (..., d)
    quadratic: torch.Tensor  # (..., d, d)
    constant: torch.Tensor  # (...)


class Chain(NamedTuple):
    """The posterior of a chain at its T points, as far as predictions between the points need it."""

    mean: torch.Tensor  # (T, d), given what is observed up to a point, it included
    covariance: torch.Tensor  # (T, d, d)
    linear: torch.Tensor  # (T, d), what is observed from a point on, it included, says of its state
    quadratic: torch.Tensor  # (T, d, d)


# Chains


def joined(first: Segment, second: Segment) -> Segment:
    """Return the segment that two make which follow one another."""
    d = first.offset.shape[-1]
    M = first.spread @ second.quadratic
    M.diagonal(dim1=-2, dim2=-1).add_(1.0)
    factors, pivots, _ = torch.linalg.lu_factor_ex(M)
    moved = first.offset + _times(first.spread, second.linear)
    sides = torch.cat([first.step, first.spread, moved[..., None]], -1)
    step, spread, offset = torch.linalg.lu_solve(factors, pivots, sides).split([d, d, 1], -1)
    surprise = second.linear - _times(second.quadratic, first.offset)
    evidence = _dot(second.linear + surprise, first.offset) + _dot(surprise, _times(spread, surprise))
    evidence = evidence - factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    transposed = step.transpose(-1, -2)
    return Segment(
        step=second.step @ step,
        offset=_times(second.step, offset[..., 0]) + second.offset,
        spread=_symmetric(second.step @ spread @ second.step.transpose(-1, -2)) + second.spread,
        linear=_times(transposed, surprise) + first.linear,
        quadratic=_symmetric(transposed @ second.quadratic @ first.step) + first.quadratic,
        constant=first.constant + second.constant + evidence / 2,
    )


def scan(combine: Callable[[Any, Any], Any], parts: Any) -> Any:
    """Return the combination of the first 1, 2, ... parts; `parts` is a NamedTuple of tensors with equal lengths."""
    n = len(parts[0])
    if n < 2:
        return parts
    pairs = scan(combine, combine(_every_other(parts, 0, n - 1), _every_other(parts, 1, n)))
    odd = combine(_every_other(pairs, 0, (n - 1) // 2, 1), _every_other(parts, 2, n))
    found = [torch.empty_like(part) for part in parts]
    for out, part, pair, single in zip(found, parts, pairs, odd):
        out[0], out[1::2], out[2::2] = part[0], pair, single
    return type(parts)(*found)


def total(segments: Segment) -> Segment:
    """Return what all segments together make."""
    while (n := len(segments.offset)) > 1:
        pairs = joined(_every_other(segments, 0, n - 1), _every_other(segments, 1, n))
        last = _every_other(segments, n - n % 2, n)
        segments = Segment(*(torch.cat(both) for both in zip(pairs, last)))
    return segments


def observed_chain(process: Process, gaps, length, linear, quadratic) -> Segment:
    """Return the segments that end at the points, given factors exp(linear'u - u'quadratic u / 2) of the functions u.

    `gaps` (T,) are the distances to the point before, infinite where nothing is known of it. Where `length` (B,) are
    several lengths to be tried, `linear` (T, B, R) and `quadratic` (T, B, R, R) are the factors that belong to each.
    """
    step, spread = transitions(process, gaps, length)
    zeros = torch.zeros_like(step)
    nothing = zeros[..., 0], zeros[..., 0, 0]
    moves = Segment(step, nothing[0], spread, nothing[0], zeros, nothing[1])
    h, L = zeros[..., 0].clone(), zeros.clone()
    places = slice(None, None, process.order)
    h[..., places], L[..., places, places] = linear, quadratic
    identity = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device).expand_as(L)
    return joined(moves, Segment(identity, nothing[0], zeros, h, L, nothing[1]))


def smoothed(process: Process, gaps, length, linear, quadratic):
    """Return the posterior chain, means (T, R) and covariances (T, R, R) of the functions, and the log evidence."""
    segments = observed_chain(process, gaps, length, linear, quadratic)
    places = slice(None, None, process.order)
    if torch.isinf(gaps).all():  # points that know nothing of one another
        chain = Chain(segments.offset, segments.spread, segments.linear, segments.quadratic)
        evidence = segments.constant.sum()
        mean, covariance = chain.mean, chain.covariance
    else:
        ahead = scan(joined, segments)
        back = _reversed(scan(lambda a, b: joined(b, a), _reversed(segments)))
        later = back.linear.roll(-1, 0), back.quadratic.roll(-1, 0)  # what is observed beyond each point
        for part in later:
            part[-1] = 0.0
        mean, covariance = informed(ahead.offset, ahead.spread, *later)
        own = later[0].clone(), later[1].clone()
        own[0][:, places] += linear
        own[1][:, places, places] += quadratic
        chain, evidence = Chain(ahead.offset, ahead.spread, *own), ahead.constant[-1]
    return chain, mean[:, places], covariance[:, places, places], evidence


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
    drawn = scan(_affine, Affine(step, moved)).moved
    return drawn[where[len(points) :], :: process.order]


class Affine(NamedTuple):
    """Maps x to step x + moved."""

    step: torch.Tensor
    moved: torch.Tensor


def _affine(first, second):
    return Affine(second.step @ first.step, second.step @ first.moved + second.moved)


def transitions(process: Process, gaps, length):
    """Return steps and spreads (..., d, d) of the states over `gaps` (T,), for each of the lengths."""
    order = process.order
    rate = math.sqrt(2 * order - 1) / length
    r = (gaps.reshape(-1, *(1,) * length.dim()) * rate).clamp(max=_FAR)[..., None, None]
    like = {"dtype": r.dtype, "device": r.device}
    N, P = torch.tensor(_NILPOTENT[process.kernel], **like), torch.tensor(_STATIONARY[process.kernel], **like)
    identity = torch.eye(order, **like)
    A = torch.exp(-r) * (identity + r * N + r.square() / 2 * (N @ N))
    Q = process.variance * _symmetric(P - A @ P @ A.transpose(-1, -2))
    return _repeated(A, process.rank), _repeated(Q, process.rank)


def informed(mean, covariance, linear, quadratic):
    """Return mean and covariance of a normal state after a factor exp(linear'x - x'quadratic x / 2)."""
    M = covariance @ quadratic
    M.diagonal(dim1=-2, dim2=-1).add_(1.0)
    sides = torch.cat([covariance, (mean + _times(covariance, linear))[..., None]], -1)
    found = torch.linalg.solve(M, sides)
    return found[..., -1], _symmetric(found[..., :-1])


def _drawn_back(step, spread, linear, quadratic):
    """Return what a factor of the state at the end of a step says of the state at its start."""
    M = spread @ quadratic
    M.diagonal(dim1=-2, dim2=-1).add_(1.0)
    transposed = torch.linalg.solve(M, step).transpose(-1, -2)
    return _times(transposed, linear), _symmetric(transposed @ quadratic @ step)


def _repeated(A, rank):
    """Return block-diagonal matrices of `rank` equal blocks."""
    identity = torch.eye(rank, dtype=A.dtype, device=A.device)
    return torch.einsum("rq,...ij->...riqj", identity, A).flatten(-4, -3).flatten(-2, -1)


def _every_other(parts, start, stop, step=2):
    return type(parts)(*(part[start:stop:step] for part in parts))


def _reversed(parts):
    return type(parts)(*(part.flip(0) for part in parts))


def _padded_front(a):
    return torch.cat([torch.zeros_like(a[:1]), a])


def _padded_end(a):
    return torch.cat([a, torch.zeros_like(a[:1])])


def _times(A, x):
    return (A @ x[..., None])[..., 0]


def _dot(a, b):
    return (a * b).sum(-1)


def _symmetric(A):
    return (A + A.transpose(-1, -2)) / 2
