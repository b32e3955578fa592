"""Functional maps between two shapes: coarse correspondences, and their refinement in the spectrum."""

import itertools

import torch

from .._core.blocks import join_blocks, rows_per_block
from .._math.neighbors import farthest_points, nearest_neighbors
from ._laplacians import Spectrum

_SIGNED = 4  # eigenfunctions whose signs are tried
_TIE = 1.25  # residuals up to this multiple of the least count as equal
_AXES = 4  # principal axes of which both directions are tried
_SCOUTS = 300  # points of either cloud that poses are compared with
_BETTER = 0.8  # share of the distance from the given pose that another pose has to reach
_STILL = 1e-9  # distance of clouds, in units of their size, that is none
_ROUNDS = 20
_WIDE = 64  # dimensions in which poses are compared


# Refinement


def refined_map(
    source: Spectrum, target: Spectrum, C: torch.Tensor, sizes: list[int], *, symmetric: bool
) -> torch.Tensor:
    """Return the map after refinements with the given numbers of eigenfunctions (ZoomOut).

    A refinement takes the partners that the map gives and makes a map of them, with `symmetric` the mean of that of the
    partners of target rows and of the transposed one of the partners of source rows.
    """
    for k in sizes:
        codes, target_codes = aligned_codes(source, target, C)
        C = spectral_map(source, target, nearest_codes(codes, target_codes), k)
        if symmetric:
            C = (C + spectral_map(target, source, nearest_codes(target_codes, codes), k).mT) / 2
    return C


def spectral_map(source: Spectrum, target: Spectrum, partners: torch.Tensor, k: int) -> torch.Tensor:
    """Return the matrix (k, k) that takes coefficients of functions on the source to those on the target.

    The solution of a least squares problem: on a sample of rows the eigenfunctions are not orthonormal.
    """
    weighted = target.functions[:, :k] * target.mass[:, None]
    return torch.linalg.lstsq(
        weighted.mT @ target.functions[:, :k], weighted.mT @ source.functions[partners, :k]
    ).solution


def aligned_codes(source: Spectrum, target: Spectrum, C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the eigenfunctions of the source, mapped to the target, and those of the target."""
    k = len(C)
    return source.functions[:, :k] @ C.mT, target.functions[:, :k]


def nearest_codes(codes: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Return for each query which of the codes is nearest, all compared with all in blocks."""
    half = codes.square().sum(1) / 2
    size = 2 * codes.element_size() * len(codes)

    def of_block(rows):
        return torch.addmm(half, queries[rows], codes.mT, alpha=-1).argmin(1)

    block = rows_per_block("auto", len(queries), size)
    return join_blocks(of_block, len(queries), block, bytes_per_row=size)


def sizes_between(k: int, last: int, step: int) -> list[int]:
    """Return the numbers of eigenfunctions after `k` up to `last`."""
    return [*range(k + step, last, step), last] if k < last else []


def sample_of(spectrum: Spectrum, rows: torch.Tensor) -> Spectrum:
    """Return the eigenfunctions at some rows."""
    return Spectrum(spectrum.values, spectrum.functions[rows], torch.full_like(spectrum.mass[rows], 1 / len(rows)))


def spread_rows(points: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Return rows that cover the points evenly, all of them where they are few; the first is far from the mean."""
    if len(points) <= n_rows:
        return torch.arange(len(points), device=points.device)
    first = int((points - points.mean(0)).square().sum(1).argmax())
    return farthest_points(points, n_rows, first)


# The choice of a start


def chosen_map(
    source: Spectrum, target: Spectrum, near: torch.Tensor, points: torch.Tensor, C: torch.Tensor, last: int, step: int
) -> torch.Tensor:
    """Return a map of the lowest eigenfunctions, from the best of several starts.

    These are the map `C` and all choices of signs of the lowest eigenfunctions. Each is refined, and of those with
    nearly the least residual that one is taken which moves the partners least from the rows `near` of the source:
    symmetric shapes have several maps without a residual.
    """
    size = min(_SIGNED, last)
    signs = itertools.product((1.0, -1.0), repeat=size - 1)
    starts = [C, *(torch.diag(C.new_tensor((1.0, *sign))) for sign in signs)]
    maps, residuals, ways = [], [], []
    for start in starts:
        C = refined_map(source, target, start, sizes_between(len(start), last, step), symmetric=False)
        codes, target_codes = aligned_codes(source, target, C)
        partners = nearest_codes(codes, target_codes)
        residuals.append((target.mass[:, None] * (codes[partners] - target_codes).square()).sum() / len(C))
        ways.append((points[partners] - points[near]).square().sum(1).sqrt().mean())
        maps.append(C)
    residual, way = torch.stack(residuals), torch.stack(ways)
    good = residual <= _TIE * residual.amin() + 1e-6
    return maps[int(way.masked_fill(~good, torch.inf).argmin())]


# Starts in space


def posed(points: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return source points after the rigid motion that brings them nearest to the target.

    Closest points are iterated from the given pose and from those that bring principal axes together, each in both
    directions; one of these has to be much better than the given pose to replace it. Where the clouds stay farther
    apart than their points, they are not rigid versions of one another: such a motion often turns a bent shape over,
    and the points are returned as they are.

    In more dimensions than `_WIDE` the motion is one along the axes of most variance of both clouds, and keeps what is
    orthogonal to them.
    """
    if min(len(points), len(target)) < 2:
        return points
    some, goal = points[spread_rows(points, _SCOUTS)], target[spread_rows(target, _SCOUTS)]
    if points.shape[1] <= _WIDE:
        turn, shift = _closest_motion(some, goal)

        def moved(rows):
            return rows @ turn + shift
    else:
        axes = _shared_axes(some, goal)
        turn, shift = _closest_motion(some @ axes, goal @ axes)

        def moved(rows):
            along = rows @ axes
            return rows + (along @ turn + shift - along) @ axes.mT

    spacing = nearest_neighbors(goal, 1)[0].mean()
    return moved(points) if _mean_gaps(torch.cdist(moved(some), goal)) <= spacing else points


def _shared_axes(points, target):
    """Return the axes of most variance of both clouds, (D, _WIDE) at most."""
    both = torch.cat([points - points.mean(0), target - target.mean(0), (points.mean(0) - target.mean(0))[None]])
    return torch.linalg.svd(both, full_matrices=False)[2][:_WIDE].mT


def _closest_motion(points, target):
    """Return the rotation or reflection, and the shift after it, that closest points end with."""
    eye = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    turns = torch.stack([eye, *_axis_turns(points, target)])
    shifts = target.mean(0) - (points @ turns).mean(1)
    shifts[0] = 0
    former = None
    for n in range(_ROUNDS):
        gaps = torch.cdist(points @ turns + shifts[:, None], target)  # (poses, points, target points)
        distances, pairs = _mean_gaps(gaps), gaps.argmin(1)
        settled = former is not None and torch.equal(pairs, former)
        if n == _ROUNDS - 1 or settled or distances.amin() <= _STILL:
            break
        turns, shifts = _closer(points[pairs], target, turns)
        former = pairs
    best = int(distances.argmin())
    best = best if distances[best] < _BETTER * distances[0] else 0
    return turns[best], shifts[best]


def _mean_gaps(gaps):
    """Return the mean distance of points from the closest ones of the other cloud, of both sides."""
    return (gaps.amin(-1).mean(-1) + gaps.amin(-2).mean(-1)) / 2


def _axis_turns(points, target):
    """Return rotations and reflections that take the principal axes of the points to those of the target.

    Axes beyond the first few point to where the points are skewed.
    """
    axes = []
    for cloud in (points, target):
        centred = cloud - cloud.mean(0)
        frame = torch.linalg.eigh(centred.mT @ centred)[1].flip(1)
        skew = (centred @ frame).pow(3).sum(0)
        axes.append(frame * torch.where(skew < 0, -1.0, 1.0))
    n = min(_AXES, points.shape[1])
    for sign in itertools.product((1.0, -1.0), repeat=n):
        flips = torch.ones_like(points[0])
        flips[:n] = flips.new_tensor(sign)
        yield (axes[0] * flips) @ axes[1].mT


def _closer(pairs, goal, turns):
    """Return the motions (c,) that bring the partners (c, m, D) of target points nearest to these.

    They stay rotations or reflections, as they are.
    """
    means, mean = pairs.mean(1, keepdim=True), goal.mean(0)
    U, _, Vh = torch.linalg.svd((pairs - means).mT @ (goal - mean))
    U[:, :, -1] *= torch.sign(torch.linalg.det(U @ Vh) * torch.linalg.det(turns))[:, None]
    new = U @ Vh
    return new, mean - (means @ new)[:, 0]


def landmark_codes(spectrum: Spectrum, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the heat that reaches each row from each landmark, after several times (n, n_times * n_landmarks).

    `values` are eigenvalues that both shapes share, of which the times are made.
    """
    times = torch.logspace(0, 1, 4, dtype=values.dtype, device=values.device) / values[-1].clamp_min(1e-9)
    heat = [(spectrum.functions * torch.exp(-spectrum.values * time)) @ spectrum.functions[rows].mT for time in times]
    return torch.cat([part / part.square().mean().sqrt() for part in heat], 1)
