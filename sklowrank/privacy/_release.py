"""One release: exact sums of features of private rows, integer noise on top, and the record of what it promises."""

import hashlib
import math
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._core.compat import Interval, StrOptions
from .._core.rows import column_ends
from .._core.validation import on_host
from .._core.warn import warn
from ._accountant import (
    BudgetError,
    PrivacyAccountant,
    PrivacyLeakWarning,
    PrivacySpent,
    PrivacyWarning,
    float_below,
    gaussian_scale,
    is_number,
    refusal,
    rho_of,
)
from ._families import note_unpaid
from ._lattice import STEP
from ._noise import LARGEST_SCALE, Words, add_noise, resolve_backend, seeded_words, system_words
from ._private_rows import without_cells

_LARGE_DELTA = 1e-3
_LARGEST_EPSILON = 1e18
_COUNT_SHARE = 0.1  # of the sensitivity, for the count under Laplace noise
_LARGEST_COUNT = 1 << 61  # in lattice steps; cutting off above changes no more than a row does
EXTREME = 1e150  # magnitudes of bounds and widths in units of X, above which squares overflow

CONSTRAINTS = {  # of the parameters that all private estimators share
    "epsilon": [Real],  # their ranges are checked by open_terms: scikit-learn's intervals know no fractions
    "delta": [Real],
    "bounds": ["array-like", None],
    "mechanism": [StrOptions({"auto", "gaussian", "laplace"})],
    "neighbors": [StrOptions({"add_remove", "substitute"})],
    "accountant": [PrivacyAccountant, None],
    "noise_backend": [StrOptions({"auto", "opendp", "builtin"})],
    "feature_random_state": ["random_state"],
    "random_state": ["random_state"],
    "device": [str],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
}


class Terms(NamedTuple):
    """What a fit may cost, and where its randomness comes from."""

    epsilon: float
    delta: float
    neighbors: str
    allowed: tuple[str, ...]  # mechanisms
    backend: str
    words: Words  # of the noise
    seed: str | None  # what the noise follows from, where it can be reproduced
    generator: np.random.Generator  # of the features, which are public
    accountant: PrivacyAccountant | None  # None where nothing is to be paid


class Norms(NamedTuple):
    """How much one row can add to the sums, as real numbers, and how many entries there are."""

    euclidean: float
    absolute: float
    entries: int


class Noise(NamedTuple):
    """Calibrated noise."""

    mechanism: str
    scale: float  # in lattice steps: a standard deviation, or Laplace's scale
    sensitivity: float  # in units of the sketch, in the norm of the mechanism

    def deviation(self) -> float:
        """Return the standard deviation of one entry of the sketch."""
        return self.scale * STEP * (math.sqrt(2) if self.mechanism == "laplace" else 1)


def open_terms(estimator, first: bool = True) -> Terms:
    """Read and check the parameters that all private estimators share, before any data are touched.

    Of several releases only the first is paid for: the others are about other rows. An accountant that has not paid for
    the first pays for the next.

    Raises
    ------
    ValueError
        If parameters contradict one another.
    BudgetError
        If no mechanism that is allowed fits into what the accountant has left.
    """
    epsilon, delta = _read_budget(estimator.epsilon, estimator.delta)
    if estimator.mechanism == "gaussian" and delta == 0:
        raise ValueError("mechanism='gaussian' needs delta > 0. Pass a delta far below 1 / n_samples, or 'laplace'.")
    if delta >= _LARGE_DELTA:
        warn(
            f"delta={delta:g} is large: with that chance the promise does not hold. Keep it far below 1 / n_samples.",
            PrivacyWarning,
        )
    seeded = estimator.random_state is not None
    words, seed, generator = _sources(estimator, 0 if first else estimator._spent[4])
    if seeded:
        warn(
            "random_state makes the noise reproducible: whoever knows the seed, or finds it by trying all small "
            "numbers until the frequencies or the noise fit, can subtract it. For a release pass None, and "
            "feature_random_state where frequencies have to be the same.",
            PrivacyLeakWarning,
        )
    mechanisms = ("gaussian", "laplace") if estimator.mechanism == "auto" else (estimator.mechanism,)
    allowed = tuple(name for name in mechanisms if delta > 0 or name == "laplace")
    backend, accountant = resolve_backend(estimator.noise_backend, seeded), estimator.accountant
    if not first:
        allowed = (estimator.mechanism_,)
        if accountant is not None and accountant._name == estimator._payer:
            accountant = None
    terms = Terms(epsilon, delta, estimator.neighbors, allowed, backend, words, seed, generator, accountant)
    return terms if accountant is None else terms._replace(allowed=_affordable(terms))


def _read_budget(epsilon, delta):
    """Return both as floats that claim no less than what was asked for."""
    if not (is_number(epsilon) and 0 < float_below(epsilon) <= _LARGEST_EPSILON):
        raise ValueError(f"epsilon={epsilon!s:.40} has to be a finite number above 0, at most {_LARGEST_EPSILON:g}.")
    if not (is_number(delta) and 0 <= float_below(delta) < 1):
        raise ValueError(f"delta={delta!s:.40} has to be a number from 0 to below 1, far below 1 / n_samples.")
    return float_below(epsilon), float_below(delta)


def _sources(estimator, n_before):
    """Return the words of the noise, what they follow from, and the generator of the features: streams of their own.

    The noise of each of several releases is another, too.
    """
    words, name, generator = system_words, None, np.random.default_rng()
    if estimator.random_state is not None:
        seeds = check_random_state(estimator.random_state).randint(np.iinfo(np.int32).max, size=2)
        words, name = seeded_words(int(seeds[0]), n_before), f"seed {seeds[0]}, release {n_before}"
        generator = np.random.default_rng(int(seeds[1]))
    if estimator.feature_random_state is not None:
        seed = check_random_state(estimator.feature_random_state).randint(np.iinfo(np.int32).max)
        generator = np.random.default_rng(int(seed))
    return words, name, generator


def cost(terms: Terms, mechanism: str) -> dict[str, Any]:
    """Return what a release costs, as an accountant wants it."""
    if mechanism == "laplace":
        return {"epsilon": terms.epsilon, "delta": 0.0, "rho": None}
    return {"epsilon": terms.epsilon, "delta": terms.delta, "rho": rho_of(terms.epsilon, terms.delta)}


def _affordable(terms):
    """Return the allowed mechanisms for which there is enough left."""
    found = []
    for mechanism in terms.allowed:
        try:
            terms.accountant.check(**cost(terms, mechanism))
            found.append(mechanism)
        except BudgetError:
            if terms.accountant._detached:
                raise
    if not found:
        raise refusal(terms.accountant, terms.epsilon, terms.delta)
    return tuple(found)


def read_bounds(bounds, rows, needed: bool, what: str):
    """Return (lowest, highest) of each column, public or read from rows with a warning; None where not needed."""
    if bounds is None and not needed:
        return None
    d = rows.shape[1]
    if bounds is None:
        warn(
            f"{what} needs bounds, and none were given: they are read from the private rows, which reveals the rows at "
            "the ends. Pass bounds=(lowest, highest) that you know without looking.",
            PrivacyLeakWarning,
        )
        low, high = (end.cpu().numpy() for end in without_cells(column_ends, rows))
        if not (np.maximum(np.abs(low), np.abs(high)) <= EXTREME).all():
            raise ValueError(f"X has columns beyond {EXTREME:g}, where squares overflow. Rescale them, or pass bounds.")
        return low, np.where(high - low >= 1 / EXTREME, high, low + np.maximum(1.0, 1e-9 * np.abs(low)))
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise ValueError(f"bounds={bounds!r} has to be a pair (lowest, highest).") from None
    low, high = public_numbers("bounds", low, d), public_numbers("bounds", high, d)
    if not (low < high).all():
        raise ValueError("bounds has to be (lowest, highest), finite, with lowest < highest in every column.")
    if not (high - low >= 1 / EXTREME).all():
        raise ValueError(
            f"bounds are less than {1 / EXTREME:g} apart in some column. Rescale the column, or widen them."
        )
    return low, high


def public_numbers(name: str, values, n_features: int) -> np.ndarray:
    """Return the numbers of a parameter, one for each column: (n_features,), finite, in float64.

    Raises
    ------
    ValueError
        If they are no finite real numbers of moderate size, one or one for each column.
    """
    wanted = f"finite real numbers: one, or one for each of {n_features} columns"
    try:
        given = np.asarray(values)
        numbers = given.astype(np.float64) if given.dtype.kind in "fiubO" else None
    except (TypeError, ValueError, OverflowError):
        numbers = None
    if numbers is None or numbers.shape not in ((), (1,), (n_features,)) or not np.isfinite(numbers).all():
        raise ValueError(f"{name}={values!r} has to hold {wanted}.")
    if not (np.abs(numbers) <= EXTREME).all():
        raise ValueError(f"{name}={values!r} is beyond {EXTREME:g}, where squares overflow. Rescale the columns.")
    return np.array(np.broadcast_to(numbers, (n_features,)))


def count_amplitude(mechanism: str, norms: Norms, weight: float) -> float:
    """Return what each row adds to the count: the user's weight, or a tenth of the sensitivity of Laplace noise.

    Raises
    ------
    ValueError
        If the weight is less than a step of the lattice, where noise would be added to a count of zero.
    """
    if weight < STEP:
        raise ValueError(
            f"count_weight={weight:g} is below 2^-20 = {STEP:.3g}, one step of the noise: the number of rows could not "
            "be released with noise, and would have to be exact. Pass at least 0.01; the default is a good choice."
        )
    return float(weight) if mechanism == "gaussian" else norms.absolute * _COUNT_SHARE / (1 - _COUNT_SHARE)


def with_count(norms: Norms, amplitude: float) -> Norms:
    """Return the norms of features that have a count beside them."""
    euclidean = math.hypot(norms.euclidean, amplitude)
    return Norms(euclidean, norms.absolute + amplitude, norms.entries + 1)


def calibrate(terms: Terms, mechanism: str, norms: Norms, rounding: int = 0) -> Noise:
    """Return noise for which a release keeps its promise.

    One row more or less moves the sums by no more than their norms; one row in place of another by twice as much. Each
    entry may be rounded by `rounding` steps on the way. Scales are rounded up.

    Raises
    ------
    ValueError
        If the noise would be too large for whole numbers of 63 bits.
    """
    factor = 2 if terms.neighbors == "substitute" else 1
    norm, steps_off = norms.euclidean, math.ceil(math.sqrt(norms.entries))
    if mechanism == "laplace":
        norm, steps_off = norms.absolute, norms.entries
    scale = math.inf
    if norm < LARGEST_SCALE:
        steps = factor * (math.ceil(norm / STEP) + rounding * steps_off)
        scale = math.nextafter(steps / terms.epsilon, math.inf)
        if mechanism == "gaussian":
            scale = gaussian_scale(terms.epsilon, terms.delta) * steps
    if not scale <= LARGEST_SCALE:
        raise ValueError(
            f"epsilon={terms.epsilon:g} needs noise of the scale {scale * STEP:.3g}, above {LARGEST_SCALE * STEP:.3g}, "
            "the largest that can be drawn. Raise epsilon, or lower count_weight where it is large."
        )
    return Noise(mechanism, scale, steps * STEP)


def choose(allowed, predicted) -> str:
    """Return the mechanism with the smallest predicted error; `predicted` is a function of its name."""
    return min(allowed, key=predicted) if len(allowed) > 1 else allowed[0]


def release(terms: Terms, noise: Noise, sums: np.ndarray, label: str, count: float, rows: np.ndarray):
    """Pay, add noise to exact sums of lattice steps (groups, entries), and return them in units of the sketch.

    Where each row adds `count`, the numbers of rows (groups,) are released beside them, and returned; None where they
    are public, and `count` is 0. Everything an estimator stores or answers about the rows is a function of what this
    returns.
    """
    if terms.accountant is not None:
        price = cost(terms, noise.mechanism)
        terms.accountant.spend(price["epsilon"], price["delta"], label, rho=price["rho"])
    if not count:
        return add_noise(sums, noise.mechanism, noise.scale, terms.backend, terms.words) * STEP, None
    each = int(count / STEP)
    counted = np.array([[min(each * int(n), _LARGEST_COUNT)] for n in rows])
    entries = np.hstack([sums, counted])
    noised = add_noise(entries, noise.mechanism, noise.scale, terms.backend, terms.words) * STEP
    return noised[:, :-1].copy(), noised[:, -1] / (each * STEP)


def remember(
    estimator, terms: Terms, noise: Noise, released: np.ndarray, plan: list, *, bounds, gain, ws, first
) -> None:
    """Set the fitted attributes that all private estimators share, or add a release to those before.

    `plan` is what later releases and answers need, arrays and numbers that do not depend on the rows; `gain` is the
    norm of what an answer multiplies the entries of the sketch with.
    """
    if first and estimator.accountant is None:
        note_unpaid(estimator)
    if terms.accountant is not None:
        estimator._payer = terms.accountant._name
    elif first:
        estimator._payer = None
    if first:
        estimator.sketch_ = ws.store(torch.from_numpy(released))
        estimator.mechanism_, estimator.sensitivity_, estimator.bounds_ = noise.mechanism, noise.sensitivity, bounds
        estimator.noise_backend_, estimator.noise_secure_ = terms.backend, terms.seed is None
        estimator.neighbors_, estimator._plan = terms.neighbors, plan
        delta = terms.delta if noise.mechanism == "gaussian" else 0.0
        estimator._spent = [terms.epsilon, delta, noise.mechanism, terms.neighbors, 1]
        estimator._parts = [terms.seed] if terms.seed else []
    else:
        estimator._parts = [*_parts_of(estimator), terms.seed or _digest(released)]
        estimator.sketch_ = ws.store(ws.exact().load(estimator.sketch_) + torch.from_numpy(released).to(ws.device))
        estimator._spent = [*estimator._spent[:4], estimator._spent[4] + 1]
        estimator.noise_secure_ = estimator.noise_secure_ and terms.seed is None
    root = estimator._spent[4] ** 0.5
    estimator.noise_scale_, estimator.noise_std_ = noise.scale * STEP * root, noise.deviation() * gain * root


def spent_of(estimator) -> PrivacySpent:
    """Return the record of what a fitted estimator has promised."""
    return PrivacySpent(*estimator._spent)


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


def merge_sketches(estimator, other) -> None:
    """Add the sketch of `other` to that of `estimator`; their rows are not the same.

    Raises
    ------
    ValueError
        If the sketches were not made in the same way, or have a release in common.
    """
    check_is_fitted(estimator)
    check_is_fitted(other)
    if type(estimator) is not type(other) or not alike(_made_of(estimator), _made_of(other)):
        raise ValueError(
            "Only sketches of the same frequencies, mechanism and budget can be added. Fit both with equal parameters "
            "and the same feature_random_state."
        )
    parts = [*_parts_of(estimator), *_parts_of(other)]
    if len(set(parts)) < len(parts):
        raise ValueError(
            "The two sketches have a release in common (one is a copy of the other, or was merged before), or equal "
            "noise from equal random_state: the noise of their sum would not be what is stated. Merge releases of "
            "different rows, with noise of their own."
        )
    estimator.sketch_, estimator._parts = estimator.sketch_ + other.sketch_, parts
    for name in ("noise_scale_", "noise_std_"):
        setattr(estimator, name, float(np.hypot(getattr(estimator, name), getattr(other, name))))
    estimator.noise_secure_ = estimator.noise_secure_ and other.noise_secure_
    estimator._spent = [*estimator._spent[:4], estimator._spent[4] + other._spent[4]]


def _made_of(estimator):
    return [estimator._plan, None if estimator.bounds_ is None else list(estimator.bounds_), estimator._spent[:4]]


def _parts_of(estimator):
    """Return what the releases in a sketch are known by; of a single one it follows from the sketch."""
    return estimator._parts or [_digest(estimator.sketch_)]


def _digest(sketch) -> str:
    return hashlib.sha256(np.ascontiguousarray(on_host(sketch), dtype=np.float64).tobytes()).hexdigest()


def alike(a, b) -> bool:
    """Return whether two plans, lists of arrays and numbers, are equal."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(alike(*pair) for pair in zip(a, b))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def warn_outside() -> None:
    """Say that queries were moved."""
    warn(
        "Some queries lie outside the bounds and were moved to their edge. Widen bounds before the fit, or raise "
        "query_margin where there is one.",
        UserWarning,
    )
