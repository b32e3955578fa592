"""The dependence between vectors and random objects that counts how covariances cumulate over balls of objects."""

from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_array, check_consistent_length, check_random_state

from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import Interval, StrOptions, validate_params
from .._core.validation import on_host
from .._core.workspace import open_workspace
from ._metric_spaces import NAMES, distances, points_of, resolve_metric

_TIE = 1e-13  # relative difference up to which two distances are equal but for rounding
_N_THRESHOLDS = 16  # radii of the balls around a landmark
_OF_NUMBERS = ("euclidean", "manhattan", "cityblock", "chebyshev", "sqeuclidean", "frobenius", "wasserstein")
_PAIRS, _CENTRES = 1 << 15, 1 << 10  # of numbers, handled at once: they stay in the cache of a CPU


@validate_params(
    {
        "U": ["array-like"],
        "y": ["array-like"],
        "metric": [StrOptions({"auto", *NAMES}), callable],
        "n_landmarks": [None, Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def frechet_cumulative_covariance(U, y, *, metric="auto", n_landmarks=None, random_state=None):
    """Measure how the mean of vectors U depends on objects y, by the order of distances between objects alone.

    It is zero if, and for many rows only if, the mean of U is the same in all balls of objects. An increasing function
    of all distances changes nothing, so objects far out do little harm.

    Parameters
    ----------
    U : array-like of shape (n_samples, d) or (n_samples,)
        The vectors.
    y : array-like of shape (n_samples, ...)
        The objects, in the form that `metric` asks for.
    metric : str or callable, default="auto"
        Distance between objects: "euclidean" for numbers and vectors, "discrete" for labels, "wasserstein" for samples
        or quantiles of distributions (n_samples, size), "spd_log" (or "spd"), "spd_cholesky", "spd_affine" for positive
        definite matrices (n_samples, k, k), "frobenius" for other matrices, "sphere" for directions of length one,
        names of :func:`scipy.spatial.distance.cdist` such as "manhattan", "precomputed" for distances (n_samples, r) to
        r objects, or a function of two rows of y. "auto" is "discrete" for strings and booleans, else "euclidean".
    n_landmarks : int, default=None
        None is exact. Otherwise this many objects, at most all, are drawn as centres of balls, with 16 radii each.
    random_state : int, RandomState instance or None, default=None
        Seeds the choice of landmarks.

    Returns
    -------
    value : float
        At least 0, in units of the square of U.

    Notes
    -----
    With centred rows :math:`u_j` the exact value is

    .. math:: \\frac1{n^2} \\sum_{i,k} \\Bigl\\| \\frac1n \\sum_j u_j \\, 1\\{d_{ij} \\le d_{ik}\\} \\Bigr\\|^2 .

    It takes O(n² (log n + d)) time, by sorting the distances from each centre, and memory for a block of centres. With
    m landmarks it takes O(n m (log n + d)). Balls of numbers are intervals, whose sums are differences of cumulative
    sums: there the exact value takes n² / 4 binary searches and O(n d) memory. Distances that differ by less than a
    relative 1e-13 count as equal.

    References
    ----------
    .. [1] H. Yuan, C. D. Wang, Z. Yu, "Fréchet cumulative covariance net for deep nonlinear sufficient dimension
       reduction with random objects", arXiv:2502.15374, 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.dimension_reduction import frechet_cumulative_covariance
    >>> u, noise = np.random.default_rng(0).normal(size=(2, 300))
    >>> related, unrelated = (frechet_cumulative_covariance(u, y) for y in (u + noise, noise))
    >>> related > 20 * unrelated
    True
    """
    U = check_array(U, ensure_2d=False, input_name="U")
    check_consistent_length(U, y)
    ws = open_workspace(U, device="auto", random_state=random_state).exact()
    y = on_host(y)
    metric = resolve_metric(metric, y)
    points = points_of(y, metric)
    points = points.to(ws.device) if isinstance(points, torch.Tensor) else points
    U = ws.load(U).double()
    U = U.reshape(len(U), -1)
    U = U - U.mean(0)
    if n_landmarks is None and metric in _OF_NUMBERS and points.shape[1] == 1:
        return _of_numbers(U.cpu().numpy(), points[:, 0].cpu().numpy())
    centres = _centres(points, metric, n_landmarks, random_state)
    n, block = len(U), rows_per_block("auto", len(centres), 8 * len(U) * (U.shape[1] + 3))

    def part(rows):
        D = distances(points, centres[rows], metric).to(ws.device)
        return float(_cumulated(U, D.T, None if n_landmarks is None else _N_THRESHOLDS))

    total = sum(in_blocks(part, len(centres), block, bytes_per_row=8 * n * (U.shape[1] + 3)))
    return total / len(centres)


def _centres(points, metric, n_landmarks, random_state):
    """Return the centres of the balls, all or some: points, or columns of given distances."""
    candidates = points.shape[1] if metric == "precomputed" else points.shape[0]
    chosen = np.arange(candidates)
    if n_landmarks is not None and n_landmarks < candidates:
        chosen = np.sort(check_random_state(random_state).choice(candidates, n_landmarks, replace=False))
    return torch.from_numpy(chosen) if metric == "precomputed" else points[chosen]


def _cumulated(U, D, n_thresholds):
    """Return the sum over centres of the mean squared covariance of U with their balls.

    D (m, n) are distances from the centres. A ball ends with each of them, or with `n_thresholds` order statistics.
    """
    n = len(U)
    sorted_D, order = D.sort(dim=1, stable=True)
    inside = U[order].cumsum(1) / n
    radii = sorted_D
    if n_thresholds is not None:
        levels = (torch.arange(n_thresholds, dtype=torch.float64, device=D.device) + 0.5) / n_thresholds
        radii = sorted_D[:, (levels * (n - 1)).long()]
    ends = radii.contiguous() * (1 + _TIE)  # ties belong to one ball
    last = torch.searchsorted(sorted_D.contiguous(), ends, right=True) - 1
    at = inside.gather(1, last[:, :, None].expand(-1, -1, U.shape[1]))
    return at.square().sum() / radii.shape[1]


# Numbers


def _of_numbers(U, y):
    """Return the exact measure of centred vectors U (n, d) and numbers y (n,)."""
    order = np.argsort(y, kind="stable")
    U, y = U[order], y[order]
    new = np.diff(y) > 8 * np.finfo(np.float64).eps * np.abs(y[1:])  # else equal but for rounding
    y = y[np.maximum.accumulate(np.r_[0, np.where(new, np.arange(1, len(y)), 0)])]
    mirrored = np.ascontiguousarray(U[::-1]), -y[::-1]
    return (_left_of_the_middle(U, y, middle=True) + _left_of_the_middle(*mirrored, middle=False)) / len(y) ** 2


def _left_of_the_middle(U, y, middle):
    """Return the sum over balls of their squared covariance with U, for all centres with fewer numbers to the left.

    Numbers y are in order. Balls that end with a number to the left are looked up one by one. Those that end with a
    number to the right come in runs: between the mirror images of two neighbours to the left their left ends are the
    same, and the sum over a run of squares is made of cumulative sums. Centres with as many numbers on either side are
    counted where `middle`.
    """
    n = len(y)
    P = np.hstack([np.zeros((U.shape[1], 1)), U.T.cumsum(1) / n])  # (d, n + 1) sums of all numbers before
    start, end = np.searchsorted(y, y), np.searchsorted(y, y, side="right")  # of the numbers equal to each
    ended = P[:, end]
    first = np.hstack([np.zeros((U.shape[1], 1)), ended.cumsum(1)])
    second = np.r_[0.0, np.square(ended).sum(0).cumsum()]
    centres = np.unique(start)
    centres = centres[centres < n - end[centres] + middle]
    total, done = 0.0, 0
    while done < len(centres):
        some = centres[done : done + _CENTRES]
        fits = (np.arange(1, len(some) + 1) * some <= _PAIRS).sum()
        at = some[: max(1, fits)][:, None]
        done += len(at)
        stop, c = end[at], y[at]
        steps = np.arange(at[-1, 0])
        j = at - 1 - steps
        there = j >= 0
        j = np.maximum(j, 0)
        r = c - y.take(j)
        b = np.where(there, np.maximum(np.searchsorted(y, c + r * (1 - _TIE)), stop), n)
        inner = np.minimum(b, n - 1)
        reach = np.where((b < n) & (y.take(inner) <= c + r * (1 + _TIE)), end.take(inner), b)
        begin = start.take(j)
        low, high = np.hstack([stop, b]), np.hstack([b, np.full_like(stop, n)])
        outside = np.maximum(at - np.arange(len(steps) + 1), 0)
        sums = (second.take(high) - second.take(low)).sum(1)
        for sums_of_U, sums_of_P in zip(P, first):
            F = sums_of_U.take(outside)
            sums += (F * ((high - low) * F - 2 * (sums_of_P.take(high) - sums_of_P.take(low)))).sum(1)
            sums += (np.square(sums_of_U.take(reach) - sums_of_U.take(begin)) * there).sum(1)
        equal = (stop - at)[:, 0]
        sums += equal * np.square(P[:, stop[:, 0]] - P[:, at[:, 0]]).sum(0)
        total += float(equal @ sums)
    return total
