"""One release: exact sums of features of private rows, integer noise on top, and the record of what it promises."""

import math
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._core.compat import Interval, StrOptions
from .._core.rows import column_ends
from .._core.warn import warn
from ._accountant import (
    SAMPLER_SHARE,
    BudgetError,
    PrivacyAccountant,
    PrivacyLeakWarning,
    PrivacySpent,
    PrivacyWarning,
    gaussian_scale,
    rho_of,
)
from ._lattice import STEP
from ._noise import FLOAT_ERROR, Words, add_noise, resolve_backend, seeded_words, system_words

_LARGE_DELTA = 1e-3
_COUNT_SHARE = 0.1  # of the sensitivity, for the count under Laplace noise

CONSTRAINTS = {  # of the parameters that all private estimators share
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "delta": [Interval(Real, 0, 1, closed="left")],
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
    secure: bool
    generator: np.random.Generator  # of the features, which are public
    accountant: PrivacyAccountant | None


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

    Only the first of several releases is paid for: the others are about other rows.

    Raises
    ------
    ValueError
        If parameters contradict one another.
    BudgetError
        If no mechanism that is allowed fits into what the accountant has left.
    """
    epsilon, delta = estimator.epsilon, estimator.delta
    if isinstance(epsilon, bool | np.bool_) or not math.isfinite(epsilon):
        raise ValueError(f"epsilon={epsilon} has to be a finite number above 0.")
    if estimator.mechanism == "gaussian" and delta == 0:
        raise ValueError("mechanism='gaussian' needs delta > 0. Pass a delta far below 1 / n_samples, or 'laplace'.")
    if delta >= _LARGE_DELTA:
        warn(
            f"delta={delta:g} is large: with that chance the promise does not hold. Keep it far below 1 / n_samples.",
            PrivacyWarning,
        )
    seeded = estimator.random_state is not None
    words, generator = _sources(estimator, 0 if first else estimator._spent[4])
    if seeded:
        warn(
            "random_state makes the noise reproducible: whoever knows the seed can subtract it. For a release pass "
            "None, and feature_random_state where frequencies have to be the same.",
            PrivacyLeakWarning,
        )
    mechanisms = ("gaussian", "laplace") if estimator.mechanism == "auto" else (estimator.mechanism,)
    allowed = tuple(name for name in mechanisms if delta > 0 or name == "laplace")
    backend = resolve_backend(estimator.noise_backend, seeded)
    accountant = estimator.accountant
    terms = Terms(epsilon, delta, estimator.neighbors, allowed, backend, words, not seeded, generator, accountant)
    if accountant is not None and first:
        terms = terms._replace(allowed=_affordable(terms))
    return terms


def _sources(estimator, n_before):
    """Return the words of the noise and the generator of the features: streams of their own, even of one seed.

    The noise of each of several releases is another, too.
    """
    words, generator = system_words, np.random.default_rng()
    if estimator.random_state is not None:
        seeds = check_random_state(estimator.random_state).randint(np.iinfo(np.int32).max, size=2)
        words, generator = seeded_words(int(seeds[0]), n_before), np.random.default_rng(int(seeds[1]))
    if estimator.feature_random_state is not None:
        seed = check_random_state(estimator.feature_random_state).randint(np.iinfo(np.int32).max)
        generator = np.random.default_rng(int(seed))
    return words, generator


def cost(terms: Terms, mechanism: str) -> dict[str, Any]:
    """Return what a release costs, as an accountant wants it."""
    if mechanism == "laplace":
        return {"epsilon": terms.epsilon, "delta": 0.0, "rho": None}
    return {"epsilon": terms.epsilon, "delta": terms.delta, "rho": rho_of(terms.epsilon, terms.delta)}


def _affordable(terms):
    """Return the allowed mechanisms for which there is enough left."""
    found, refused = [], None
    for mechanism in terms.allowed:
        try:
            terms.accountant.check(**cost(terms, mechanism))
            found.append(mechanism)
        except BudgetError as error:
            refused = error
    if not found:
        raise refused
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
        low, high = (end.cpu().numpy() for end in column_ends(rows))
        return low, np.where(high > low, high, low + 1)
    try:
        low, high = (np.array(np.broadcast_to(np.asarray(end, dtype=np.float64), (d,))) for end in bounds)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"bounds has to be (lowest, highest): numbers, or one number for each of {d} columns."
        ) from error
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError("bounds has to be (lowest, highest), finite, with lowest < highest in every column.")
    return low, high


def count_amplitude(mechanism: str, norms: Norms, weight: float) -> float:
    """Return what each row adds to the count: the user's weight, or a tenth of the sensitivity of Laplace noise."""
    return weight if mechanism == "gaussian" else norms.absolute * _COUNT_SHARE / (1 - _COUNT_SHARE)


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
        If delta is too small for the sampler's float comparisons.
    """
    factor = 2 if terms.neighbors == "substitute" else 1
    if mechanism == "laplace":
        steps = factor * (math.ceil(norms.absolute / STEP) + rounding * norms.entries)
        return Noise("laplace", math.nextafter(steps / terms.epsilon, math.inf), steps * STEP)
    steps = factor * (math.ceil(norms.euclidean / STEP) + rounding * math.ceil(math.sqrt(norms.entries)))
    delta = terms.delta
    if terms.backend == "builtin":
        wrong = norms.entries * FLOAT_ERROR
        if wrong > delta * SAMPLER_SHARE:
            raise ValueError(
                f"delta={delta:g} is too small for {norms.entries} draws of the built-in sampler. Raise delta, lower "
                "n_components, use mechanism='laplace', or install opendp."
            )
        delta -= wrong
    return Noise("gaussian", gaussian_scale(terms.epsilon, delta) * steps, steps * STEP)


def choose(allowed, predicted) -> str:
    """Return the mechanism with the smallest predicted error; `predicted` is a function of its name."""
    return min(allowed, key=predicted) if len(allowed) > 1 else allowed[0]


def release(terms: Terms, noise: Noise, sums: np.ndarray, label: str, charge: bool, count: float, rows: np.ndarray):
    """Pay, add noise to exact sums of lattice steps (groups, entries), and return them in units of the sketch.

    Where each row adds `count`, the numbers of rows (groups,) are released beside them, and returned. Everything an
    estimator stores or answers about the rows is a function of what this returns.
    """
    if charge and terms.accountant is not None:
        price = cost(terms, noise.mechanism)
        terms.accountant.spend(price["epsilon"], price["delta"], label, rho=price["rho"])
    each = int(count / STEP)
    entries = np.hstack([sums, each * rows[:, None]]) if each else sums
    noised = add_noise(entries, noise.mechanism, noise.scale, terms.backend, terms.words) * STEP
    return (noised[:, :-1].copy(), noised[:, -1] / (each * STEP)) if each else (noised, None)


def remember(
    estimator, terms: Terms, noise: Noise, released: np.ndarray, plan: list, *, bounds, gain, ws, first
) -> None:
    """Set the fitted attributes that all private estimators share, or add a release to those before.

    `plan` is what later releases and answers need, arrays and numbers that do not depend on the rows; `gain` is the
    norm of what an answer multiplies the entries of the sketch with.
    """
    if first:
        estimator.sketch_ = ws.store(torch.from_numpy(released))
        estimator.mechanism_, estimator.sensitivity_, estimator.bounds_ = noise.mechanism, noise.sensitivity, bounds
        estimator.noise_backend_, estimator.noise_secure_ = terms.backend, terms.secure
        estimator.neighbors_, estimator._plan = terms.neighbors, plan
        delta = terms.delta if noise.mechanism == "gaussian" else 0.0
        estimator._spent = [float(terms.epsilon), float(delta), noise.mechanism, terms.neighbors, 1]
    else:
        estimator.sketch_ = ws.store(ws.exact().load(estimator.sketch_) + torch.from_numpy(released).to(ws.device))
        estimator._spent = [*estimator._spent[:4], estimator._spent[4] + 1]
        estimator.noise_secure_ = estimator.noise_secure_ and terms.secure
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


def warn_outside() -> None:
    """Say that queries were moved."""
    warn(
        "Some queries lie outside the bounds and were moved to their edge. Widen bounds before the fit, or raise "
        "query_margin where there is one.",
        UserWarning,
    )
