"""Kernels as mixtures of cosines: random frequencies for any of them, a grid of frequencies for Gaussian kernels."""

import math

import numpy as np

from ._lattice import TURN, Waves

KERNELS = ("gaussian", "exponential", "laplacian", "cauchy", "inverse", "inverse_l1")
_PER_BANDWIDTH = 1 << 10  # steps of a coordinate in a bandwidth
_FINEST = TURN // _PER_BANDWIDTH  # steps of frequency in one turn per bandwidth
_FASTEST = 128  # turns per bandwidth
_UNTOLD = 10**18  # waves, a number that no grid may have


def random_waves(kernel: str, n_waves: int, origin, bandwidth, generator: np.random.Generator) -> Waves:
    """Return waves with random frequencies whose cosines have the kernel as their mean, all of one amplitude.

    `bandwidth` (d,) is that of each column. Amplitudes are such that their squares sum to one.
    """
    radians = _frequencies(kernel, n_waves, len(bandwidth), generator)
    turns = np.clip(radians / (2 * np.pi), -_FASTEST, _FASTEST)
    steps = np.rint(turns * _FINEST).T
    return Waves(origin, bandwidth / _PER_BANDWIDTH, steps, np.full(n_waves, n_waves**-0.5))


def _frequencies(kernel, n_waves, d, generator):
    """Return frequencies (n_waves, d) for bandwidth one."""
    if kernel in ("laplacian", "inverse_l1"):
        radians = generator.standard_cauchy((n_waves, d))
        return radians * generator.exponential(size=(n_waves, 1)) if kernel == "inverse_l1" else radians
    blocks = [orthogonal(d, generator) for _ in range(-(-n_waves // d))]
    radians = np.vstack(blocks)[:n_waves] * np.sqrt(generator.chisquare(d, size=(n_waves, 1)))
    if kernel == "gaussian":
        return radians
    if kernel == "cauchy":
        return radians * np.sqrt(2 * generator.exponential(size=(n_waves, 1)))
    radians = radians / np.abs(generator.standard_normal((n_waves, 1)))
    return radians * generator.exponential(size=(n_waves, 1)) if kernel == "inverse" else radians


def orthogonal(d: int, generator: np.random.Generator) -> np.ndarray:
    """Return a random orthogonal matrix."""
    Q, R = np.linalg.qr(generator.standard_normal((d, d)))
    return Q * np.sign(np.diag(R))


def grid_size(bandwidth, length, tolerance: float, margin: float = 0.0) -> int:
    """Return an upper bound of the number of waves of a grid, before small ones are dropped; at most `_UNTOLD`."""
    size = 1
    for h, side in zip(bandwidth.tolist(), length.tolist()):
        if not math.isfinite(_period(h, side, tolerance, margin)) or size > _UNTOLD:
            return _UNTOLD
        size *= 2 * _highest(h, side, tolerance, margin) + 1
    return min(size + 1, _UNTOLD) // 2


def grid_waves(origin, length, bandwidth, tolerance: float, margin: float = 0.0) -> tuple[Waves, np.ndarray]:
    """Return waves on a grid of frequencies, and their weights, which add up to a Gaussian kernel on a box.

    The kernel is made periodic, with a period that leaves room around the box; waves are dropped, smallest weights
    first, as long as the dropped weights sum to less than `tolerance`.
    """
    d, period, orders, weights = len(length), [], [], []
    for h, side in zip(bandwidth, length):
        room = _period(h, side, tolerance, margin)
        k = np.arange(-_highest(h, side, tolerance, margin), _highest(h, side, tolerance, margin) + 1)
        period.append(room)
        orders.append(k)
        weights.append(h * math.sqrt(2 * np.pi) / room * np.exp(-((2 * np.pi / room * k * h) ** 2) / 2))
    K = np.stack(np.meshgrid(*orders, indexing="ij"), -1).reshape(-1, d)
    weight = weights[0]
    for other in weights[1:]:
        weight = np.multiply.outer(weight, other)
    weight = weight.ravel()
    half = len(K) // 2  # the grid is symmetric: its middle is zero, and what follows are the opposites
    K, weight = K[half:], np.r_[weight[half], 2 * weight[half + 1 :]]
    order = np.argsort(weight, kind="stable")
    dropped = np.cumsum(weight[order]) < tolerance
    kept = np.sort(order[~dropped])
    period = np.array(period)
    waves = Waves(origin, period / TURN, K[kept].T.astype(np.float64), np.sqrt(weight[kept]))
    return waves, weight[kept]


def _reach(tolerance):
    return math.sqrt(2 * math.log(1 / tolerance))


def _period(h, side, tolerance, margin):
    return side + h * (_reach(tolerance) + margin)


def _highest(h, side, tolerance, margin):
    return math.ceil(_reach(tolerance) / (h * 2 * np.pi / _period(h, side, tolerance, margin)))


def log_normalizer(kernel: str, bandwidth) -> float:
    """Return the logarithm of the kernel's integral over all of space; 0 for the inverse kernels, whose is infinite."""
    d, h = len(bandwidth), float(np.log(bandwidth).sum())
    if kernel == "gaussian":
        return d / 2 * math.log(2 * np.pi) + h
    if kernel == "laplacian":
        return d * math.log(2) + h
    if kernel == "exponential":
        return math.log(2) + d / 2 * math.log(np.pi) + math.lgamma(d) - math.lgamma(d / 2) + h
    return 0.0
