"""Distances as sums of cosines along axes or directions, and squared distances as moments.

From the options of a metric to features, their sums over private rows, and answers to queries.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.fft import dct

from .._core.blocks import join_blocks, rows_per_block
from ._cosine_features import orthogonal
from ._lattice import SHRINK, STEP, bin_counts, binned_sums, exact_products
from ._mechanism import Norms, PrivacyOptions, calibrate, deviation, with_count
from ._public_parameters import warn_outside
from ._sketch import Noise

_POINTS = 1 << 16  # at which |u|^p is taken for its cosine series
_FINE = 1 << 19  # steps of a coordinate in half the diagonal of the box, for projections
_FINE_DIRECTION = 1 << 23  # steps of a direction
_FEWEST_DIRECTIONS = 64
_FAR_OUT = 3.0  # of projections, in half diagonals over the root of the number of columns


class Box(NamedTuple):
    """Where rows are: the middle, and half the side of each column."""

    middle: np.ndarray
    half: np.ndarray

    def radius(self) -> float:
        """Return half the diagonal."""
        return float(np.linalg.norm(self.half))


class Series(NamedTuple):
    """Sums of |u|^p over coordinates u in [0, 1], as cosines of pi k u with weights."""

    orders: np.ndarray  # (M,) the whole numbers k
    weights: np.ndarray  # (J, M) of either sign
    constant: float  # what each row adds without any cosine
    unit: float  # of the distance
    directions: np.ndarray  # (d, J) whole numbers, or (0, 0) for the columns themselves
    reach: float  # largest projection, in units of X; 0 for the columns themselves


class DistanceOptions(NamedTuple):
    """The parameters of a metric and of its features."""

    metric: str
    p: float
    bounds: tuple[np.ndarray, np.ndarray]
    n_frequencies: int
    n_directions: Any


class DistanceFeatures(NamedTuple):
    """Features whose products are distances; they do not depend on the rows, but on bounds where none were given."""

    series: Series | None  # None for squared distances, which are a matter of moments
    count: float  # what each row adds to the count; 0 where the number of rows is public
    bounds: tuple[np.ndarray, np.ndarray]
    gain: float  # norm of what an answer multiplies the entries of the sketch with

    def box(self) -> Box:
        """Return where rows are moved to."""
        return _box(self.bounds)


def _box(bounds):
    return Box((bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2)


def distance_features(options: DistanceOptions, privacy: PrivacyOptions) -> tuple[DistanceFeatures, Noise]:
    """Choose frequencies and mechanism for a metric, and calibrate the noise."""
    bounds, box, series = options.bounds, _box(options.bounds), None
    if options.metric == "l2":
        series = along_directions(box, options.n_directions, options.n_frequencies, privacy.generator)
    elif options.metric != "sqeuclidean":
        series = along_columns(box, 1.0 if options.metric == "l1" else float(options.p), options.n_frequencies)

    def calibrated(mechanism):
        norms, count = moment_norms(len(box.half)), 1.0
        if series is not None:
            amplitudes, count = series_amplitudes(series, mechanism)
            norms = series_norms(amplitudes)
        count *= privacy.adjacency == "add_remove"
        return count, calibrate(privacy, mechanism, with_count(norms, count), rounding=1)

    def predicted_error(mechanism):
        count, noise = calibrated(mechanism)
        return deviation(noise) * (1 if series is None else _gain(series, mechanism, count))

    count, noise = calibrated(min(privacy.mechanisms, key=predicted_error))
    gain = 1.25**0.5 * box.radius() ** 2
    if series is not None:
        gain = series.unit * _gain(series, noise.mechanism, count)
    return DistanceFeatures(series, count, bounds, gain), noise


def _gain(series, mechanism, count):
    """Return the norm of what an answer, in units of the series, multiplies the entries of the sketch with."""
    ratios = np.linalg.norm(_ratios(series, mechanism)) / SHRINK
    return float(np.hypot(ratios, series.constant / count if count else 0.0))


def _ratios(series, mechanism):
    """Return weights over amplitudes; 0 where a column is so much narrower than another that it has neither."""
    weights, amplitudes = np.abs(series.weights), series_amplitudes(series, mechanism)[0]
    return np.divide(weights, amplitudes, out=np.zeros_like(weights), where=amplitudes > 0)


def distance_sums(rows, features: DistanceFeatures, mechanism: str, n_bins: int, batch_size) -> np.ndarray:
    """Return the sums of all features over the rows, whole numbers in one dimension."""
    box, series = features.box(), features.series
    if series is None:
        return moment_sums(rows, box, batch_size)
    amplitudes = series_amplitudes(series, mechanism)[0]
    return series_sums(rows, box, series, amplitudes, n_bins, batch_size).ravel()


def distance_answers(
    Y: torch.Tensor, features: DistanceFeatures, sketch: torch.Tensor, mechanism: str, n_samples: float
) -> torch.Tensor:
    """Return the sums of distances from queries (n,), which are moved into the bounds, in float64."""
    box, series = features.box(), features.series
    middle, inside = _moved_into(Y, box)
    if series is None:
        z = (inside - middle) / box.radius()
        sums = (sketch[-1] + n_samples / 2 - 2 * z @ sketch[:-1]) / SHRINK + n_samples * z.square().sum(1)
        return sums * box.radius() ** 2
    ratios = torch.from_numpy(_ratios(series, mechanism)).to(Y.device)
    return (series_answers(inside, box, series, ratios, sketch) + n_samples * series.constant) * series.unit


def distance_errors(Y: torch.Tensor, features: DistanceFeatures, noise_std: float) -> torch.Tensor:
    """Return the standard deviations of the noise in :func:`distance_answers`.

    It is `noise_std` for every query of a series, and for squared distances from the middle of the bounds.
    """
    box = features.box()
    middle, inside = _moved_into(Y, box)
    if features.series is not None:
        return Y.new_full((len(Y),), noise_std)
    length = ((inside - middle) / box.radius()).square().sum(1)
    spread = 1 + 4 * length + ((length + 0.5).square() if features.count else 0)
    return noise_std / features.gain * spread.sqrt() * box.radius() ** 2


def _moved_into(Y, box):
    """Return the middle of a box as a tensor, and queries moved into the box, with a warning for those outside."""
    middle, half = (torch.from_numpy(part).to(Y.device) for part in box)
    inside = Y.clamp(middle - half, middle + half)
    if bool((inside != Y).any()):
        warn_outside()
    return middle, inside


def cosine_series(p: float, n_frequencies: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the constant, the orders and the weights of |u|^p on [-1, 1]; orders without weight are left out."""
    k = np.arange(1, n_frequencies + 1)
    if p == 1:
        k = k[::2]
        return 0.5, k, -4 / (np.pi * k) ** 2
    values = dct(((np.arange(_POINTS) + 0.5) / _POINTS) ** p, type=2) / _POINTS
    return 1 / (p + 1), k, values[k]


def along_columns(box: Box, p: float, n_frequencies: int) -> Series:
    """Return the series of the sum over columns of |x - y|^p."""
    constant, orders, weights = cosine_series(p, n_frequencies)
    size = (2 * box.half) ** p
    unit = float(size.max())
    share = size / unit
    return Series(orders, np.outer(share, weights), constant * float(share.sum()), unit, np.zeros((0, 0)), 0.0)


def along_directions(box: Box, n_directions, n_frequencies: int, generator) -> Series:
    """Return the series of the Euclidean distance: the mean of |direction · (x - y)|, times a constant."""
    d = len(box.half)
    blocks = -(-(max(d, _FEWEST_DIRECTIONS) if n_directions == "auto" else n_directions) // d)
    directions = np.hstack([orthogonal(d, generator) for _ in range(blocks)])
    if n_directions != "auto":
        directions = directions[:, :n_directions]
    J = directions.shape[1]
    constant, orders, weights = cosine_series(1.0, n_frequencies)
    reach = box.radius() * min(1.0, _FAR_OUT / math.sqrt(d))
    mean = math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2)) * math.sqrt(np.pi) / J
    whole = np.rint(directions * _FINE_DIRECTION)
    return Series(orders, np.tile(weights, (J, 1)), constant * J, 2 * reach * mean, whole, reach)


def coordinates(X: torch.Tensor, box: Box, series: Series) -> torch.Tensor:
    """Return rows as coordinates in [0, 1], (n, J), each a function of its row alone, bit for bit."""
    middle, half = (torch.from_numpy(part).to(X.device) for part in box)
    inside = (X - middle).clamp(-half, half).nan_to_num_()
    if not series.directions.size:
        return (inside / half + 1) / 2
    radius = box.radius()
    whole = (inside / radius * _FINE).round_()
    steps = torch.from_numpy(series.directions).to(X.device)
    projected = exact_products(whole, steps).double() * (radius / _FINE / _FINE_DIRECTION / series.reach)
    return (projected.clamp_(-1, 1) + 1) / 2


def series_norms(amplitudes: np.ndarray) -> Norms:
    """Return how much a row adds: cosine and sine of one angle for each amplitude."""
    return Norms(float(np.linalg.norm(amplitudes)), math.sqrt(2) * float(amplitudes.sum()), 2 * amplitudes.size)


def series_amplitudes(series: Series, mechanism: str) -> tuple[np.ndarray, float]:
    """Return the amplitudes (J, M), and that of the count, for which the noise in an answer is least.

    Pairs of cosine and sine count √2 in the 1-norm, and the count 1.
    """
    weights = np.abs(series.weights)
    if mechanism == "gaussian":
        return np.sqrt(weights), math.sqrt(series.constant)
    return np.cbrt(weights**2 / math.sqrt(2)), series.constant ** (2 / 3)


def series_sums(rows, box: Box, series: Series, amplitudes, n_bins: int, batch_size) -> np.ndarray:
    """Return the sums of all features over the rows, (J, 2 M) whole numbers."""
    collect = partial(_bin_counts, box, series, n_bins)
    (counts,) = rows.gather(collect, size=64 * len(amplitudes), batch_size=batch_size)
    return binned_sums(counts.cpu().numpy(), amplitudes, series.orders)


def _bin_counts(box, series, n_bins, X):
    return (bin_counts(coordinates(X.double(), box, series), n_bins),)


def series_answers(Y, box: Box, series: Series, ratios, sketch) -> torch.Tensor:
    """Return what cosines say about each query, without the constant, in units of the series."""
    orders = torch.from_numpy(series.orders * np.pi).to(Y.device)
    J, M = ratios.shape
    weighted = (
        sketch.view(J, 2, M) * (ratios * torch.from_numpy(np.sign(series.weights)).to(Y.device))[:, None] / SHRINK
    )
    size = 8 * 4 * J * M

    def part(rows):
        angle = coordinates(Y[rows], box, series)[:, :, None] * orders
        cosines = torch.einsum("njm,jm->n", torch.cos(angle), weighted[:, 0])
        return cosines + torch.einsum("njm,jm->n", torch.sin(angle), weighted[:, 1])

    return join_blocks(part, len(Y), rows_per_block("auto", len(Y), size), bytes_per_row=size)


def moment_norms(d: int) -> Norms:
    """Return how much a row adds to the moments: a vector of length one at most, and half."""
    return Norms(math.sqrt(1.25), math.sqrt(d) + 0.5, d + 1)


def moment_sums(rows, box: Box, batch_size) -> np.ndarray:
    """Return the sums of z and of |z|² - 1/2 over the rows, z = (x - middle) / half diagonal: (d + 1,) whole numbers.

    Proof of the sensitivity: entries of z are truncated towards zero, so |z| is at most one, and |z|² is computed from
    whole numbers and rounded down once.
    """
    (sums,) = rows.gather(partial(_moment_sums, box), size=48 * rows.shape[1], batch_size=batch_size)
    return sums.cpu().numpy()


def _moment_sums(box, X):
    """What :func:`moment_sums` returns, of a block."""
    middle, half = (torch.from_numpy(part).to(X.device) for part in box)
    inside = (X.double() - middle).clamp(-half, half).nan_to_num_()
    whole = (inside / (box.radius() * STEP)).mul_(SHRINK).trunc_().to(torch.int64)
    squares = (whole.square().sum(1) >> 20) - (1 << 19)
    return (torch.cat([whole.sum(0), squares.sum(0, keepdim=True)]),)
