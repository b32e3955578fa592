"""Kernels as sums of cosines: random frequencies for any of them, a grid of frequencies for Gaussian kernels.

From the options of a kernel to features, their sums over private rows, and answers to queries.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse

from .._core.blocks import join_blocks, rows_per_block
from .._core.validation import on_host
from ._lattice import SHRINK, STEP, TABLE, TURN, Waves, block_wave_sums
from ._mechanism import Norms, PrivacyOptions, calibrate, count_amplitude, deviation, with_count
from ._public_parameters import warn_outside
from ._sketch import Noise

KERNELS = ("gaussian", "exponential", "laplacian", "cauchy", "inverse", "inverse_l1")
_PER_BANDWIDTH = 1 << 10  # steps of a coordinate in a bandwidth
_FINEST = TURN // _PER_BANDWIDTH  # steps of frequency in one turn per bandwidth
_FASTEST = 128  # turns per bandwidth
_UNTOLD = 10**18  # waves, a number that no grid may have
_TOLERANCE = {"gaussian": 1e-4, "laplace": 1e-2}  # of a grid: fewer waves mean less Laplace noise
_MOST_ON_GRID = 4096  # waves, where the grid is chosen by itself
_LARGEST_GRID = 1_000_000
_WAVES = {"gaussian": 1024, "laplace": 256}
_WAVES_PER_ROW = 0.35  # and epsilon, under Laplace noise
_FEWEST, _MOST = 64, 4096
_ROWS = 1000  # for which mechanisms are compared, where no hint is given


class KernelOptions(NamedTuple):
    """The parameters of a kernel and of its features."""

    kernel: str
    bandwidth: np.ndarray  # (d,)
    bounds: tuple[np.ndarray, np.ndarray] | None
    n_components: Any
    count_weight: float
    feature_map: str
    n_samples_hint: int | None  # public
    query_margin: float  # how far outside of the bounds queries may lie, in bandwidths


class CosineFeatures(NamedTuple):
    """Features whose products are a kernel; they do not depend on the rows, but on bounds where none were given."""

    origin: np.ndarray  # (d,)
    unit: np.ndarray  # (d,)
    steps: np.ndarray  # (d, M) frequencies in whole steps of phase per unit
    frequencies: np.ndarray  # (M, d) the same in radians per unit of X
    amplitudes: np.ndarray  # (M,)
    ratios: np.ndarray  # (M,) weights over amplitudes: what queries multiply with
    count: float  # what each row adds to the count; 0 where the number of rows is public
    bounds: tuple[np.ndarray, np.ndarray] | None
    margin: np.ndarray | None  # (d,) how far outside of its bounds a grid may be queried, in units of X; else None
    log_integral: float  # of the kernel
    gain: float  # norm of what an answer multiplies the entries of the sketch with

    def on_host(self) -> "CosineFeatures":
        """Return the features with all arrays as numpy's."""
        return self._replace(amplitudes=on_host(self.amplitudes), frequencies=on_host(self.frequencies))

    def waves(self) -> Waves:
        """Return what the lattice computes with."""
        return Waves(self.origin, self.unit, self.steps, self.amplitudes, self.bounds)


def cosine_features(
    options: KernelOptions, privacy: PrivacyOptions, *, sparse: bool, n_groups: int | None = None
) -> tuple[CosineFeatures, Noise]:
    """Choose frequencies and mechanism for a kernel, and calibrate the noise.

    Under "substitute" the number of rows is public, but the sizes of `n_groups` classes are not: the label may be what
    differs.
    """
    kernel, bandwidth, bounds, grids = options.kernel, options.bandwidth, options.bounds, {}
    if bounds is not None and sparse:
        raise ValueError(
            "bounds cannot be had with sparse X, whose zeros stay zeros. Pass bounds=None, or X.toarray()."
        )
    if bounds is not None and options.feature_map != "rff":
        asked = options.feature_map == "fourier"
        grids = _grids(privacy.mechanisms, kernel, bounds, bandwidth, options.query_margin, asked=asked)
    counted = privacy.adjacency == "add_remove" or n_groups is not None

    def calibrated(mechanism):
        n_waves = _n_waves(options.n_components, mechanism, privacy.epsilon, options.n_samples_hint)
        weights = grids[mechanism][1] if grids else np.full(n_waves, 1 / n_waves)
        amplitudes = amplitudes_of(weights, mechanism)
        norms = norms_of(amplitudes)
        count = count_amplitude(mechanism, norms, options.count_weight) if counted else 0.0
        norms = with_count(norms, count)._replace(entries=(n_groups or 1) * (2 * len(weights) + 1))
        return amplitudes, weights / amplitudes, calibrate(privacy, mechanism, norms), count

    def predicted_error(mechanism):
        _, ratios, noise, _ = calibrated(mechanism)
        missed = _TOLERANCE[mechanism] if grids else (2 * len(ratios)) ** -0.5
        return math.hypot(deviation(noise) * np.linalg.norm(ratios), (options.n_samples_hint or _ROWS) * missed)

    amplitudes, ratios, noise, count = calibrated(min(privacy.mechanisms, key=predicted_error))
    if grids:
        waves, margin = grids[noise.mechanism][0], options.query_margin * bandwidth
    else:
        origin = np.zeros(len(bandwidth)) if bounds is None else (bounds[0] + bounds[1]) / 2
        waves, margin = random_waves(kernel, len(ratios), origin, bandwidth, privacy.generator), None
    log_integral, gain = log_normalizer(kernel, bandwidth), float(np.linalg.norm(ratios)) / SHRINK
    features = CosineFeatures(
        *(waves.origin, waves.unit, waves.steps, frequencies_of(waves), amplitudes, ratios, count, bounds, margin),
        *(log_integral, gain),
    )
    return features, noise


def _grids(mechanisms, kernel, bounds, bandwidth, margin, asked):
    """Return the grid of a Gaussian kernel on a box for each mechanism; nothing where random waves are better."""
    if kernel != "gaussian":
        if asked:
            raise ValueError(f"feature_map='fourier' needs kernel='gaussian', not {kernel!r}. Use 'rff'.")
        return {}
    length, found = bounds[1] - bounds[0], {}
    for mechanism in mechanisms:
        size = grid_size(bandwidth, length, _TOLERANCE[mechanism], margin)
        if asked and size > _LARGEST_GRID:
            raise ValueError(
                f"feature_map='fourier' needs more than {_LARGEST_GRID} waves here. Raise bandwidth, lower "
                "query_margin, or use feature_map='rff'."
            )
        if not asked and size > 8 * _MOST_ON_GRID:
            return {}
        found[mechanism] = grid_waves(bounds[0], length, bandwidth, _TOLERANCE[mechanism], margin)
        if not asked and len(found[mechanism][1]) > _MOST_ON_GRID:
            return {}
    return found


def _n_waves(n_components, mechanism, epsilon, n_samples):
    if n_components != "auto":
        return n_components
    if mechanism == "laplace" and n_samples is not None:
        return int(np.clip(round(_WAVES_PER_ROW * epsilon * n_samples), _FEWEST, _MOST))
    return _WAVES[mechanism]


def amplitudes_of(weights: np.ndarray, mechanism: str) -> np.ndarray:
    """Return the amplitudes for which the noise in an answer is least; their squares sum to the sum of the weights.

    Gaussian noise is proportional to the 2-norm of the amplitudes, and Laplace noise to their sum; queries multiply by
    weights over amplitudes.
    """
    if mechanism == "gaussian":
        return np.sqrt(weights)
    amplitudes = weights ** (2 / 3)
    return amplitudes * np.sqrt(weights.sum() / np.square(amplitudes).sum())


def norms_of(amplitudes: np.ndarray) -> Norms:
    """Return how much a row adds: cosine and sine of one angle, squared, sum to one; as they are, to √2 at most."""
    return Norms(float(np.linalg.norm(amplitudes)), float(np.sqrt(2) * amplitudes.sum()), 2 * len(amplitudes))


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


def frequencies_of(waves: Waves) -> np.ndarray:
    """Return the frequencies of waves, (M, d), in radians per unit of x."""
    return (2 * np.pi / TURN * waves.steps / waves.unit[:, None]).T


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


def wave_sums(rows, waves: Waves, groups, n_groups: int, batch_size, device) -> np.ndarray:
    """Return the sums of all features over the rows of each group, (n_groups, 2 M) whole numbers: cosines, then sines.

    `groups` (n,) may be None where there is one group.
    """
    steps = torch.from_numpy(waves.steps.astype(np.float64)).to(device)
    fastest = float(np.abs(waves.steps).max())
    collect = partial(block_wave_sums, waves, steps, fastest, *_tables(waves.amplitudes, device), n_groups)
    size = 256 * len(waves.amplitudes)  # some buffers of float64, in blocks that stay in a cache
    (sums,) = rows.gather(collect, groups, size=size, batch_size=batch_size)
    return sums.cpu().numpy()


def _tables(amplitudes, device):
    """Return the tables of cosines and sines, and amplitudes, None where the tables contain the only one."""
    angle = torch.arange(TABLE, dtype=torch.float64, device="cpu") * (2 * np.pi / TABLE)
    quarter = TABLE // 4
    cosine = torch.cos(angle)
    cosine[[quarter, 3 * quarter]] = 0.0
    tables = [cosine, cosine.roll(quarter)]  # the sine is the cosine of a quarter turn less
    if (amplitudes == amplitudes[0]).all():
        size = amplitudes[0] * SHRINK / STEP
        exact = torch.float32 if size < 2**24 else torch.float64
        return [(table * size).trunc().to(device, exact) for table in tables], None
    return [(table * (SHRINK / STEP)).to(device) for table in tables], torch.from_numpy(amplitudes).to(device)


def kernel_answers(Y, features: CosineFeatures, sketch: torch.Tensor) -> torch.Tensor:
    """Return the sums of kernels (n_queries, n_groups) that a sketch (n_groups, 2 M) gives, in float64."""
    frequencies, origin, ratios = (
        torch.from_numpy(part).to(sketch.device) for part in (features.frequencies, features.origin, features.ratios)
    )
    M = len(ratios)
    weighted = (sketch * torch.cat([ratios, ratios]) / SHRINK).T
    size = 8 * 3 * M
    sparse = issparse(Y)
    F = frequencies.cpu().numpy().T if sparse else frequencies.T

    def part(rows):
        angle = torch.from_numpy(Y[rows] @ F).to(ratios.device) if sparse else (Y[rows] - origin) @ F
        return torch.cos(angle) @ weighted[:M] + torch.sin(angle) @ weighted[M:]

    n = Y.shape[0]
    return join_blocks(part, n, rows_per_block("auto", n, size), bytes_per_row=size)


def move_into_bounds(Y: torch.Tensor, features: CosineFeatures) -> torch.Tensor:
    """Return queries, those of a grid moved to where its kernel holds, with a warning."""
    if features.margin is None or features.bounds is None:
        return Y
    low, high, margin = (torch.from_numpy(part).to(Y.device) for part in (*features.bounds, features.margin))
    inside = Y.clamp(low - margin, high + margin)
    if bool((inside != Y).any()):
        warn_outside()
    return inside
