"""The sketch behind kernel densities and similarities: which waves, how much noise, and what it answers."""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse

from .._core.blocks import in_blocks, rows_per_block
from ._kernels import grid_size, grid_waves, random_waves
from ._lattice import SHRINK, Waves, sizes, wave_sums
from ._private_rows import without_cells
from ._release import (
    EXTREME,
    Noise,
    Norms,
    Terms,
    calibrate,
    check_same_promise,
    choose,
    count_amplitude,
    public_numbers,
    read_bounds,
    release,
    remember,
    warn_outside,
    with_count,
)

_TOLERANCE = {"gaussian": 1e-4, "laplace": 1e-2}  # of a grid: fewer waves mean less Laplace noise
_MOST_ON_GRID = 4096  # waves, where the grid is chosen by itself
_LARGEST_GRID = 1_000_000
_WAVES = {"gaussian": 1024, "laplace": 256}
_WAVES_PER_ROW = 0.35  # and epsilon, under Laplace noise
_FEWEST, _MOST = 64, 4096
_ROWS = 1000  # for which mechanisms are compared, where no hint is given


class Plan(NamedTuple):
    """All that is decided before a sum is made; nothing of it depends on the rows, but bounds that were not given."""

    waves: Waves
    ratios: np.ndarray  # (M,) weights of waves over their amplitudes: what queries multiply with
    noise: Noise
    count: float  # what each row adds to the count; 0 where the number of rows is public
    bounds: tuple[np.ndarray, np.ndarray] | None
    margin: np.ndarray | None  # (d,) how far outside of its bounds a grid may be queried, in units of X; else None

    def gain(self) -> float:
        """Return the norm of what an answer multiplies the entries of the sketch with."""
        return float(np.linalg.norm(self.ratios)) / SHRINK


def make_plan(
    rows,
    terms: Terms,
    *,
    kernel: str,
    bandwidth: np.ndarray,
    bounds,
    n_components,
    count_weight: float,
    feature_map: str = "rff",
    n_samples: int | None = None,
    margin: float = 0.0,
    n_groups: int | None = None,
) -> Plan:
    """Choose waves, mechanism and noise for a kernel with these bandwidths (d,), and for classes, where there are.

    `n_samples` is a public guess, and `margin` how far outside of the bounds queries may lie, in bandwidths. The number
    of rows is public if one row takes the place of another, but the sizes of classes are not: the label may be what
    differs.
    """
    bounds = read_bounds(bounds, rows, feature_map == "fourier", "feature_map='fourier'")
    if bounds is not None and rows.kind == "csr":
        raise ValueError(
            "bounds cannot be had with sparse X, whose zeros stay zeros. Pass bounds=None, or X.toarray()."
        )
    grids = {}
    if bounds is not None and feature_map != "rff":
        grids = _grids(terms, kernel, bounds, bandwidth, margin, asked=feature_map == "fourier")
    counted = terms.neighbors == "add_remove" or n_groups is not None

    def calibrated(mechanism):
        n_waves = _n_waves(n_components, mechanism, terms.epsilon, n_samples)
        weights = grids[mechanism][1] if grids else np.full(n_waves, 1 / n_waves)
        amplitudes = amplitudes_of(weights, mechanism)
        norms = norms_of(amplitudes)
        count = count_amplitude(mechanism, norms, count_weight) if counted else 0.0
        norms = with_count(norms, count)._replace(entries=(n_groups or 1) * (2 * len(weights) + 1))
        return amplitudes, weights / amplitudes, calibrate(terms, mechanism, norms), count

    def predicted(mechanism):
        _, ratios, noise, _ = calibrated(mechanism)
        missed = _TOLERANCE[mechanism] if grids else (2 * len(ratios)) ** -0.5
        return math.hypot(noise.deviation() * np.linalg.norm(ratios), (n_samples or _ROWS) * missed)

    amplitudes, ratios, noise, count = calibrated(choose(terms.allowed, predicted))
    if grids:
        waves, room = grids[noise.mechanism][0], margin * bandwidth
    else:
        origin = np.zeros(rows.shape[1]) if bounds is None else (bounds[0] + bounds[1]) / 2
        waves, room = random_waves(kernel, len(ratios), origin, bandwidth, terms.generator), None
    return Plan(waves._replace(amplitudes=amplitudes, box=bounds), ratios, noise, count, bounds, room)


def _grids(terms, kernel, bounds, bandwidth, margin, asked):
    """Return the grid of a Gaussian kernel on a box for each mechanism; nothing where random waves are better."""
    if kernel != "gaussian":
        if asked:
            raise ValueError(f"feature_map='fourier' needs kernel='gaussian', not {kernel!r}. Use 'rff'.")
        return {}
    length, found = bounds[1] - bounds[0], {}
    for mechanism in terms.allowed:
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


def release_waves(terms, plan: Plan, rows, groups, n_groups, batch_size, device, label):
    """Return the released sums (n_groups, 2 M), and the released numbers of rows (n_groups,), None where public."""
    sums = without_cells(wave_sums, rows, plan.waves, groups, n_groups, batch_size, device)
    counts = np.array([len(rows)]) if groups is None else sizes(groups, n_groups)
    return release(terms, plan.noise, sums, label, plan.count, counts)


def wave_answers(Y, frequencies, origin, sketch, ratios) -> torch.Tensor:
    """Return the sums of kernels (n_queries, n_groups) that a sketch (n_groups, 2 M) gives, in float64."""
    M = len(ratios)
    weighted = (sketch * torch.cat([ratios, ratios]) / SHRINK).T
    size = 8 * 3 * M
    sparse = issparse(Y)
    F = frequencies.cpu().numpy().T if sparse else frequencies.T

    def part(rows):
        angle = torch.from_numpy(Y[rows] @ F).to(ratios.device) if sparse else (Y[rows] - origin) @ F
        return torch.cos(angle) @ weighted[:M] + torch.sin(angle) @ weighted[M:]

    n = Y.shape[0]
    return torch.cat(list(in_blocks(part, n, rows_per_block("auto", n, size), bytes_per_row=size)))


# What estimators keep: `_plan` holds origin, unit, steps, amplitudes, ratios, noise's scale, count, margin


def store_waves(estimator, terms: Terms, plan: Plan, sums, ws, first: bool) -> None:
    """Set the fitted attributes after a release, or add it to those before."""
    waves = plan.waves
    if first:
        estimator.frequencies_ = ws.store(torch.from_numpy(waves.frequencies()))
        estimator.amplitudes_ = ws.store(torch.from_numpy(waves.amplitudes))
    kept = [waves.origin, waves.unit, waves.steps, waves.amplitudes]
    kept += [plan.ratios, plan.noise.scale, plan.count, plan.margin]
    remember(estimator, terms, plan.noise, sums, kept, bounds=plan.bounds, gain=plan.gain(), ws=ws, first=first)


def former_plan(estimator, terms: Terms) -> Plan:
    """Return the plan of the first release, for the next one.

    Raises
    ------
    ValueError
        If the promise has been changed since.
    """
    check_same_promise(estimator, terms)
    origin, unit, steps, amplitudes, ratios, scale, count, margin = estimator._plan
    waves = Waves(origin, unit, steps, amplitudes, estimator.bounds_)
    return Plan(
        waves, ratios, Noise(estimator.mechanism_, scale, estimator.sensitivity_), count, estimator.bounds_, margin
    )


def is_mostly_noise(sketch: torch.Tensor, plan: Plan, n_samples: float, doubted: bool) -> bool:
    """Return whether kernels sum to less than the noise at a row, its own left out; it follows from the release alone.

    Squares of the entries of all frequencies but zero sum to the kernels between all rows, of which each adds its own,
    and to the variance of the noise. Where rows are few that is known only roughly: within three standard deviations of
    the limit the answer is `doubted`.
    """
    n, variance, laplace = n_samples, plan.noise.deviation() ** 2, plan.noise.mechanism == "laplace"
    used = torch.from_numpy(plan.waves.steps.any(0)).to(sketch.device).repeat(2)
    entries, own = sketch[used].square(), float(np.square(plan.waves.amplitudes[plan.waves.steps.any(0)]).sum())
    if not len(entries):
        return False
    excess = float((entries - variance).sum()) - n * own
    spread = math.sqrt((5 if laplace else 2) * len(entries) * variance**2 + 4 * variance * n * own)
    spread = math.hypot(spread, n * own / math.sqrt(len(entries) / 2))  # of sums of n cosines of unrelated angles
    return excess <= n * plan.noise.deviation() * plan.gain() + (3 * spread if doubted else -3 * spread)


def queries_in_box(estimator, Y: torch.Tensor) -> torch.Tensor:
    """Return queries, those of a grid moved to where its kernel holds, with a warning."""
    margin = estimator._plan[7]
    if margin is None:
        return Y
    low, high, margin = (torch.from_numpy(part).to(Y.device) for part in (*estimator.bounds_, margin))
    inside = Y.clamp(low - margin, high + margin)
    if bool((inside != Y).any()):
        warn_outside()
    return inside


def read_bandwidth(bandwidth, n_features: int) -> np.ndarray:
    """Return the bandwidth of each column, (n_features,).

    Raises
    ------
    ValueError
        If it would be read from the data, or is no positive number, one or one for each column.
    """
    if isinstance(bandwidth, str):
        raise ValueError(
            f"bandwidth={bandwidth!r} would be chosen by looking at the private rows, outside the promise. Pass a "
            "number that you know without looking."
        )
    try:
        widths = public_numbers("bandwidth", bandwidth, n_features)
    except ValueError:
        widths = np.zeros(1)
    if not (widths >= 1 / EXTREME).all():
        raise ValueError(
            f"bandwidth={bandwidth!r} has to be a positive number from {1 / EXTREME:g} to {EXTREME:g}, or one for each "
            f"of {n_features} columns."
        )
    return widths
