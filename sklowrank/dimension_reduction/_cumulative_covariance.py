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

_N_THRESHOLDS = 16  # radii of the balls around a landmark


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
    m landmarks it takes O(n m (log n + d)).

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
    last = torch.searchsorted(sorted_D.contiguous(), radii.contiguous(), right=True) - 1  # ties belong to one ball
    at = inside.gather(1, last[:, :, None].expand(-1, -1, U.shape[1]))
    return at.square().sum() / radii.shape[1]
