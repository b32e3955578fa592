"""The sketch behind kernel densities and similarities: which waves, how much noise, and what it answers."""

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted

from .._core.blocks import in_blocks, rows_per_block
from ._accountant import PrivacySpent
from ._kernels import grid_size, grid_waves, random_waves
from ._lattice import SHRINK, STEP, Waves, wave_sums
from ._release import Noise, Norms, Terms, calibrate, choose, count_amplitude, read_bounds, release, spent, with_count

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
    margin: float | None  # how far outside of the bounds queries of a grid may lie, in units of X; None elsewhere

    def deviation(self) -> float:
        """Return the standard deviation of the noise in one answer."""
        return self.noise.deviation() * float(np.linalg.norm(self.ratios)) / SHRINK


def make_plan(estimator, X, terms: Terms, bandwidth: np.ndarray, n_groups: int | None = None) -> Plan:
    """Choose waves, mechanism and noise for a kernel with these bandwidths (d,), and for classes, where there are.

    The number of rows is public if one row takes the place of another, but the sizes of classes are not: the label may
    be what differs.
    """
    needed = estimator_map(estimator) == "fourier"
    bounds = read_bounds(estimator.bounds, X, needed, "feature_map='fourier'")
    if bounds is not None and issparse(X):
        raise ValueError(
            "bounds cannot be had with sparse X, whose zeros stay zeros. Pass bounds=None, or X.toarray()."
        )
    grids = {}
    if bounds is not None and estimator_map(estimator) != "rff":
        grids = {mechanism: _grid(estimator, mechanism, bounds, bandwidth) for mechanism in terms.allowed}
        if any(grid is None for grid in grids.values()):
            grids = {}

    margin = estimator.query_margin * float(bandwidth[0]) if grids else None

    def weights_of(mechanism):
        if grids:
            return grids[mechanism][1]
        n_waves = _n_waves(estimator, mechanism)
        return np.full(n_waves, 1 / n_waves)

    def planned(mechanism):
        weights = weights_of(mechanism)
        amplitudes = amplitudes_of(weights, mechanism)
        norms = norms_of(amplitudes)
        count = 0.0
        if terms.neighbors == "add_remove" or n_groups is not None:
            count = count_amplitude(mechanism, norms, estimator.count_weight)
            norms = with_count(norms, count)
        noise = calibrate(terms, mechanism, norms._replace(entries=(n_groups or 1) * (2 * len(weights) + 1)))
        return Plan(None, weights / amplitudes, noise, count, bounds, margin), amplitudes

    def predicted(mechanism):
        found, n_rows = planned(mechanism)[0], getattr(estimator, "n_samples_hint", None) or _ROWS
        missed = _TOLERANCE[mechanism] if grids else (2 * len(found.ratios)) ** -0.5
        return math.hypot(found.deviation(), n_rows * missed)

    plan, amplitudes = planned(choose(terms.allowed, predicted))
    if grids:
        waves = grids[plan.noise.mechanism][0]
    else:
        origin = np.zeros(X.shape[1]) if bounds is None else (bounds[0] + bounds[1]) / 2
        waves = random_waves(estimator_kernel(estimator), len(amplitudes), origin, bandwidth, terms.generator)
    return plan._replace(waves=waves._replace(amplitudes=amplitudes, box=bounds))


def estimator_map(estimator) -> str:
    """Return how features are made; classifiers always draw them."""
    return getattr(estimator, "feature_map", "rff")


def estimator_kernel(estimator) -> str:
    """Return the name of the kernel, which classifiers call similarity."""
    return getattr(estimator, "kernel", None) or estimator.similarity


def _grid(estimator, mechanism, bounds, bandwidth):
    """Return the grid of a Gaussian kernel on a box; None where random waves are better."""
    asked, length, tolerance = estimator.feature_map == "fourier", bounds[1] - bounds[0], _TOLERANCE[mechanism]
    if estimator.kernel != "gaussian":
        if asked:
            raise ValueError(f"feature_map='fourier' needs kernel='gaussian', not {estimator.kernel!r}. Use 'rff'.")
        return None
    size = grid_size(bandwidth, length, tolerance, estimator.query_margin)
    if size > (_LARGEST_GRID if asked else 8 * _MOST_ON_GRID):
        if asked:
            raise ValueError(
                f"feature_map='fourier' needs {size} waves here. Raise bandwidth, or use feature_map='rff'."
            )
        return None
    waves, weights = grid_waves(bounds[0], length, bandwidth, tolerance, estimator.query_margin)
    return (waves, weights) if asked or len(weights) <= _MOST_ON_GRID else None


def _n_waves(estimator, mechanism):
    if estimator.n_components != "auto":
        return estimator.n_components
    hint = getattr(estimator, "n_samples_hint", None)
    if mechanism == "laplace" and hint is not None:
        return int(np.clip(round(_WAVES_PER_ROW * estimator.epsilon * hint), _FEWEST, _MOST))
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


def release_waves(terms, plan: Plan, X, groups, n_groups, batch_size, device, label, charge):
    """Return the released sums (n_groups, 2 M), and the released numbers of rows (n_groups,), None where public."""
    sums = wave_sums(X, plan.waves, groups, n_groups, batch_size, device)
    if not plan.count:
        return release(terms, plan.noise, sums, label, charge), None
    each = int(plan.count / STEP)
    rows = [X.shape[0]] if groups is None else torch.bincount(groups, minlength=n_groups).cpu().numpy()
    entries = np.hstack([sums, each * np.array(rows, dtype=np.int64)[:, None]])
    released = release(terms, plan.noise, entries, label, charge)
    return released[:, :-1], released[:, -1] / (each * STEP)


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


# What estimators keep: `_plan` holds origin, unit, limit, steps, amplitudes, ratios, noise's scale, count, margin


def store_release(estimator, terms: Terms, plan: Plan, sums, ws, first: bool) -> None:
    """Set the fitted attributes after a release, or add it to those before."""
    if first:
        waves = plan.waves
        estimator.sketch_ = ws.store(torch.from_numpy(sums))
        estimator.frequencies_ = ws.store(torch.from_numpy(waves.frequencies()))
        estimator.amplitudes_ = ws.store(torch.from_numpy(waves.amplitudes))
        estimator.mechanism_, estimator.sensitivity_ = plan.noise.mechanism, plan.noise.sensitivity
        estimator.noise_backend_, estimator.noise_secure_ = terms.backend, terms.secure
        estimator.neighbors_, estimator.bounds_ = terms.neighbors, plan.bounds
        estimator._spent = list(spent(terms, plan.noise.mechanism, 1))
        estimator._plan = [waves.origin, waves.unit, waves.limit, waves.steps, waves.amplitudes]
        estimator._plan += [plan.ratios, plan.noise.scale, plan.count, plan.margin]
        variance = 1.0
    else:
        exact = ws.exact()
        estimator.sketch_ = ws.store(exact.load(estimator.sketch_) + torch.from_numpy(sums).to(ws.device))
        estimator._spent = [*estimator._spent[:4], estimator._spent[4] + 1]
        estimator.noise_secure_ = estimator.noise_secure_ and terms.secure
        variance = float(estimator._spent[4])
    estimator.noise_scale_ = plan.noise.scale * STEP * variance**0.5
    estimator.noise_std_ = plan.deviation() * variance**0.5


def former_plan(estimator, terms: Terms) -> Plan:
    """Return the plan of the first release, for the next one.

    Raises
    ------
    ValueError
        If the promise has been changed since.
    """
    check_same_promise(estimator, terms)
    origin, unit, limit, steps, amplitudes, ratios, scale, count, margin = estimator._plan
    waves = Waves(origin, unit, limit, steps, amplitudes, estimator.bounds_)
    return Plan(
        waves, ratios, Noise(estimator.mechanism_, scale, estimator.sensitivity_), count, estimator.bounds_, margin
    )


def check_same_promise(estimator, terms: Terms) -> None:
    """Refuse a further release under another promise."""
    before = spent_of(estimator)
    if estimator.noise_backend_ != terms.backend:
        raise ValueError(
            f"The first release had its noise from {estimator.noise_backend_!r}, this one would have it from "
            f"{terms.backend!r}. Keep noise_backend and random_state, or call fit."
        )
    if (terms.epsilon, terms.neighbors) != (before.epsilon, before.neighbors) or before.delta not in (0.0, terms.delta):
        raise ValueError(
            "epsilon, delta or neighbors have changed since the first release. Set them back, or call fit."
        )


def spent_of(estimator) -> PrivacySpent:
    """Return the record of what a fitted estimator has promised."""
    return PrivacySpent(*estimator._spent)


def merge_sketches(estimator, other) -> None:
    """Add the sketch of `other` to that of `estimator`; their rows are not the same.

    Raises
    ------
    ValueError
        If the sketches were not made in the same way.
    """
    check_is_fitted(estimator)
    check_is_fitted(other)
    if not alike(estimator._plan, other._plan) or estimator.neighbors_ != other.neighbors_:
        raise ValueError(
            "Only sketches of the same frequencies, mechanism and budget can be added. Fit both with equal parameters "
            "and the same feature_random_state."
        )
    estimator.sketch_ = estimator.sketch_ + other.sketch_
    for name in ("noise_scale_", "noise_std_"):
        setattr(estimator, name, float(np.hypot(getattr(estimator, name), getattr(other, name))))
    estimator.noise_secure_ = estimator.noise_secure_ and other.noise_secure_
    estimator._spent = [*estimator._spent[:4], estimator._spent[4] + other._spent[4]]


def alike(a, b) -> bool:
    """Return whether two plans, lists of arrays and numbers, are equal."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(alike(*pair) for pair in zip(a, b))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def queries_in_box(estimator, Y: torch.Tensor) -> torch.Tensor:
    """Return queries, those of a grid moved to where its kernel holds, with a warning."""
    margin = estimator._plan[8]
    if margin is None:
        return Y
    low, high = (torch.from_numpy(end).to(Y.device) for end in estimator.bounds_)
    inside = Y.clamp(low - margin, high + margin)
    if bool((inside != Y).any()):
        warn_outside(stacklevel=5)
    return inside


def warn_outside(stacklevel: int) -> None:
    """Say that queries were moved."""
    warnings.warn(
        "Some queries lie outside the bounds and were moved to their edge. Widen bounds before the fit, or raise "
        "query_margin where there is one.",
        UserWarning,
        stacklevel=stacklevel,  # the user's own line
    )


def check_bandwidth(bandwidth, *, auto: bool = False) -> None:
    """Refuse bandwidths that would be read from the data."""
    if isinstance(bandwidth, str) and not (auto and bandwidth == "auto"):
        raise ValueError(
            f"bandwidth={bandwidth!r} would be chosen by looking at the private rows, outside the promise. Pass a "
            "number that you know without looking."
        )
