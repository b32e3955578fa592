"""The mechanisms: calibrated integer noise on exact sums, discrete Laplace or discrete Gaussian.

A release charges the budget, then adds noise, drawn by OpenDP or by samplers of our own.

Our samplers are exact. A uniform number is compared with a probability by its first digits; where these do not decide,
more digits of both are computed, in rational arithmetic. So the argument for differential privacy needs no term for
what a sampler may do wrong: such a term, a total variation distance t, would add (1 + exp(epsilon)) t to delta. (What
has a probability below 10^-400 is left out.) Uniform words come from the operating system, or from a seed where noise
has to be reproducible.
"""

import importlib.util
import math
import os
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from ._accountant import PrivacyAccountant
from ._lattice import STEP
from ._sketch import Noise, ReleaseCounter, Sketch

_DECIMALS, _MORE_DECIMALS = 60, 40  # of a probability at first, and for each further word of the uniform number
_WORD = 1 << 64
_BELOW_A_WORD = 45  # exp(-45) is below 2^-64
_MOST_REST = 31  # of the part of a draw above its binary digits; more has a probability of exp(-45 * 32)
_FARTHEST = 10_000  # exp(-10000) counts as zero
_MARGIN = 2.0**-44  # of an acceptance in float64, whose rounding stays below 2^-47
_COUNT_SHARE = 0.1  # of the sensitivity, for the count under Laplace noise
_LARGEST_COUNT = 1 << 61  # in lattice steps; cutting off above changes no more than a row does
LARGEST_SCALE = 2.0**50  # so that draws and their sums with whole numbers below 2^62 stay in 63 bits

Words = Callable[[int], np.ndarray]  # from a number of words to uniform words of 64 bits


class PrivacyOptions(NamedTuple):
    """The budget of a release, who pays for it, and the sources of randomness."""

    epsilon: float
    delta: float
    adjacency: str
    mechanisms: tuple[str, ...]  # those allowed
    rho: float | None  # of a Gaussian release: concentrated differential privacy
    gaussian_scale: float  # standard deviation for sensitivity one; infinite where delta is 0
    noise_backend: str
    words: Words  # of the noise
    seed: str | None  # identifies reproducible noise; None where it cannot be reproduced
    generator: np.random.Generator  # of the features, which are public
    accountant: PrivacyAccountant | None = None  # None where nothing is charged
    payer: str | None = None  # the accountant that has paid for former releases
    counter: ReleaseCounter | None = None  # of releases without an accountant; None where this one is not counted

    def cost(self, mechanism: str) -> dict[str, Any]:
        """Return what a release costs, as the accountant's arguments."""
        if mechanism == "laplace":
            return {"epsilon": self.epsilon, "delta": 0.0, "rho": None}
        return {"epsilon": self.epsilon, "delta": self.delta, "rho": self.rho}


class Norms(NamedTuple):
    """The norms of what one row adds to the sums, and the number of entries."""

    euclidean: float
    absolute: float
    entries: int


def random_sources(random_state, feature_random_state, n_before: int):
    """Return the words of the noise, an identifier of their seed, and the generator of the features.

    The noise of each of several releases is independent: `n_before` counts those before.
    """
    words, seed, generator = system_words, None, np.random.default_rng()
    if random_state is not None:
        seeds = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=2)
        words, seed = seeded_words(int(seeds[0]), n_before), f"seed {seeds[0]}, release {n_before}"
        generator = np.random.default_rng(int(seeds[1]))
    if feature_random_state is not None:
        generator = np.random.default_rng(int(check_random_state(feature_random_state).randint(np.iinfo(np.int32).max)))
    return words, seed, generator


def system_words(count: int) -> np.ndarray:
    """Return uniform numbers of 64 bits from the operating system's secure generator."""
    return np.frombuffer(os.urandom(8 * count), dtype=np.uint64)


def seeded_words(*seed: int) -> Words:
    """Return a source of reproducible numbers of 64 bits: for tests, because who knows the seed can undo the noise."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    return lambda count: generator.integers(0, _WORD, size=count, dtype=np.uint64)


def resolve_backend(backend: str, seeded: bool) -> str:
    """Return "opendp" or "builtin"; OpenDP cannot be seeded.

    Raises
    ------
    ImportError
        If OpenDP is asked for and not installed.
    """
    if backend == "opendp" and seeded:
        raise ValueError("noise_backend='opendp' cannot be seeded. Use random_state=None, or noise_backend='builtin'.")
    if backend == "builtin" or seeded:
        return "builtin"
    installed = importlib.util.find_spec("opendp") is not None
    if backend == "opendp" and not installed:
        raise ImportError(
            "noise_backend='opendp' needs the package opendp. Install it, or use noise_backend='builtin'."
        )
    return "opendp" if installed else "builtin"


def count_amplitude(mechanism: str, norms: Norms, weight: float) -> float:
    """Return what each row adds to the count: `weight`, or a tenth of the sensitivity under Laplace noise.

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
    """Return the norms of features and a count of this amplitude."""
    euclidean = math.hypot(norms.euclidean, amplitude)
    return Norms(euclidean, norms.absolute + amplitude, norms.entries + 1)


def calibrate(privacy: PrivacyOptions, mechanism: str, norms: Norms, rounding: int = 0) -> Noise:
    """Return the noise for which a release has the guarantee of the options.

    The sensitivity is the norm of a row under "add_remove", and twice the norm under "substitute". Each entry may be
    rounded by `rounding` steps on the way. Scales are rounded up.

    Raises
    ------
    ValueError
        If the noise would be too large for whole numbers of 63 bits.
    """
    factor = 2 if privacy.adjacency == "substitute" else 1
    norm, steps_off = norms.euclidean, math.ceil(math.sqrt(norms.entries))
    if mechanism == "laplace":
        norm, steps_off = norms.absolute, norms.entries
    scale = math.inf
    if norm < LARGEST_SCALE:
        steps = factor * (math.ceil(norm / STEP) + rounding * steps_off)
        scale = math.nextafter(steps / privacy.epsilon, math.inf)
        if mechanism == "gaussian":
            scale = privacy.gaussian_scale * steps
    if not scale <= LARGEST_SCALE:
        raise ValueError(
            f"epsilon={privacy.epsilon:g} needs noise of the scale {scale * STEP:.3g}, above "
            f"{LARGEST_SCALE * STEP:.3g}, the largest that can be drawn. Raise epsilon, or lower count_weight where it "
            "is large."
        )
    return Noise(mechanism, scale, steps * STEP)


def deviation(noise: Noise) -> float:
    """Return the standard deviation of one entry of the sketch."""
    return noise.scale * STEP * (math.sqrt(2) if noise.mechanism == "laplace" else 1)


def release(
    privacy: PrivacyOptions, noise: Noise, sums: np.ndarray, n_rows, count: float, gain: float, label: str
) -> Sketch:
    """Charge the budget, add noise to exact sums of lattice steps, and return the sketch.

    Everything an estimator stores or answers about the rows is a function of what this returns.

    Parameters
    ----------
    privacy : PrivacyOptions
        Budget, payer and sources of randomness.
    noise : Noise
        Calibrated for these sums and their counts.
    sums : ndarray of shape (n_entries,) or (n_groups, n_entries)
        Whole numbers.
    n_rows : int or ndarray of shape (n_groups,)
        The numbers of rows.
    count : float
        What each row adds to its count, which is then released beside the sums; 0 where the number of rows is public.
    gain : float
        Norm of what an answer multiplies the entries of the sketch with.
    label : str
        Names the release in the accountant's history.
    """
    payer = privacy.payer
    if privacy.accountant is not None:
        cost, payer = privacy.cost(noise.mechanism), privacy.accountant._name
        privacy.accountant.spend(cost["epsilon"], cost["delta"], label, rho=cost["rho"])
    entries, each = np.atleast_2d(sums), int(count / STEP)
    if count:
        numbers = [[min(each * int(n), _LARGEST_COUNT)] for n in np.atleast_1d(n_rows)]
        entries = np.hstack([entries, np.array(numbers)])
    noised = add_noise(entries, noise.mechanism, noise.scale, privacy.noise_backend, privacy.words) * STEP
    if privacy.counter is not None:
        privacy.counter.add()
    counts = noised[:, -1] / (each * STEP) if count else None
    n_samples = float(np.sum(n_rows))
    if counts is not None and (sums.ndim == 1 or privacy.adjacency == "add_remove"):
        n_samples = max(1.0, float(counts.sum()))
    return Sketch(
        noised[:, : entries.shape[1] - bool(count)].reshape(sums.shape).copy(),
        n_samples=n_samples,
        class_counts=counts if sums.ndim == 2 else None,
        classes=None,
        mechanism=noise.mechanism,
        scale=noise.scale,
        sensitivity=noise.sensitivity,
        noise_scale=noise.scale * STEP,
        noise_std=deviation(noise) * gain,
        epsilon=privacy.epsilon,
        delta=privacy.delta if noise.mechanism == "gaussian" else 0.0,
        adjacency=privacy.adjacency,
        n_releases=1,
        noise_backend=privacy.noise_backend,
        noise_secure=privacy.seed is None,
        payer=payer,
        releases=[] if privacy.seed is None else [privacy.seed],
    )


def add_noise(sums: np.ndarray, mechanism: str, scale: float, backend: str, words: Words) -> np.ndarray:
    """Return integer sums plus independent integer noise; `scale` is Laplace's, or the Gaussian's deviation."""
    if backend == "opendp":
        return _by_opendp(sums, mechanism, scale)
    sample = discrete_laplace if mechanism == "laplace" else discrete_gaussian
    return sums + sample(scale, sums.size, words).reshape(sums.shape)


def discrete_laplace(scale: float, count: int, words: Words) -> np.ndarray:
    """Draw from P(k) proportional to exp(-|k| / scale): the difference of two geometric variables.

    The time does not depend on what is drawn, but for a chance of 2^-64 a bit.
    """
    return _geometric(scale, count, words) - _geometric(scale, count, words)


def discrete_gaussian(scale: float, count: int, words: Words) -> np.ndarray:
    """Draw from P(k) proportional to exp(-k² / (2 scale²)), by rejection from discrete Laplace (Canonne and others
    2020).

    The time depends on how many proposals are rejected, but not on their values.
    """
    t = math.floor(scale) + 1
    found, missing = [], count
    while missing > 0:
        proposed = discrete_laplace(float(t), missing + missing // 2 + 32, words)
        distance = ((np.abs(proposed).astype(np.float64) - scale**2 / t) / scale).clip(-20, 20)
        chance, word = np.exp(-(distance**2) / 2), words(len(proposed))
        uniform = (word >> np.uint64(11)).astype(np.float64) * 2.0**-53
        accepted = uniform < chance - _MARGIN
        for j in np.flatnonzero(np.abs(uniform - chance) <= _MARGIN):
            accepted[j] = _is_below(partial(_acceptance, int(proposed[j]), scale, t), int(word[j]), words)
        found.append(proposed[accepted][:missing])
        missing -= len(found[-1])
    return np.concatenate(found)


def _geometric(scale, count, words):
    """Draw from P(G >= j) = exp(-j / scale), whose binary digits are independent.

    What is above the digits is geometric, too, and nearly always 0.
    """
    thresholds = _thresholds(scale)
    total = np.zeros(count, dtype=np.int64)
    for i, threshold in enumerate(thresholds):
        word = words(count)
        bit = word < threshold
        for j in np.flatnonzero(word == threshold):
            bit[j] = _is_below(partial(_digit, scale, i), int(word[j]), words)
        total += bit.astype(np.int64) << i
    for j in np.flatnonzero(words(count) == 0):
        total[j] += _rest(scale, len(thresholds), words) << len(thresholds)
    return total


def _rest(scale, n_digits, words):
    """Draw what is above the digits, where the first word of the first trial is 0."""
    trial, word, found = partial(_exponential, Fraction(2**n_digits) / Fraction(scale)), 0, 0
    while found < _MOST_REST and _is_below(trial, word, words):
        word, found = int(words(1)[0]), found + 1
    return found


@lru_cache(maxsize=64)
def _thresholds(scale: float) -> tuple[np.uint64, ...]:
    """Return the first 64 binary digits of the probability of each binary digit of a geometric draw."""
    if not 0 < scale <= LARGEST_SCALE:
        raise ValueError(f"The noise would have the scale {scale:.3g} in steps of 2^-20. Raise epsilon.")
    found = []
    while 2.0 ** len(found) <= _BELOW_A_WORD * scale:
        decimals, low, high = _DECIMALS, 0, 1
        while low != high:
            low, high = (int(bound * _WORD) for bound in _digit(scale, len(found), decimals))
            decimals += _MORE_DECIMALS
        found.append(np.uint64(low))
    return tuple(found)


# Exact comparisons. A probability is a function of a number of decimals that returns rational bounds


def _is_below(probability, word: int, words: Words) -> bool:
    """Return whether a uniform number, of which the first 64 binary digits are `word`, is below a probability."""
    n_digits, decimals = 64, _DECIMALS
    while True:
        low, high = probability(decimals)
        if word + 1 <= low * 2**n_digits:
            return True
        if word >= high * 2**n_digits:
            return False
        word, n_digits, decimals = word << 64 | int(words(1)[0]), n_digits + 64, decimals + _MORE_DECIMALS


def _exponential(x: Fraction, decimals: int) -> tuple[Fraction, Fraction]:
    """Return bounds of exp(-x), x >= 0: decimals are rounded correctly, and an error of x counts x-fold."""
    if x > _FARTHEST:
        return Fraction(0), Fraction(0)
    with localcontext() as context:
        context.prec = decimals
        middle = Fraction((-(Decimal(x.numerator) / Decimal(x.denominator))).exp())
    wrong = middle * Fraction(10) ** (8 - decimals)
    return middle - wrong, middle + wrong


def _digit(scale: float, i: int, decimals: int) -> tuple[Fraction, Fraction]:
    """Return bounds of the probability of binary digit i of a geometric draw."""
    low, high = _exponential(Fraction(2**i) / Fraction(scale), decimals)
    return low / (1 + low), high / (1 + high)


def _acceptance(proposed: int, scale: float, t: int, decimals: int) -> tuple[Fraction, Fraction]:
    """Return bounds of the probability with which a proposal of the Gaussian sampler is accepted, at most 1."""
    variance = Fraction(scale) ** 2
    low, high = _exponential((abs(proposed) - variance / t) ** 2 / (2 * variance), decimals)
    return low, min(high, Fraction(1))


def _by_opendp(sums, mechanism, scale):
    """Let OpenDP add its noise to exact sums."""
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian, make_laplace
    from opendp.metrics import l1_distance, l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    space = vector_domain(atom_domain(T="i64"))
    if mechanism == "laplace":
        measurement = make_laplace(space, l1_distance(T="i64"), scale)
    else:
        measurement = make_gaussian(space, l2_distance(T="f64"), scale)
    return np.array(measurement(sums.ravel().tolist()), dtype=np.int64).reshape(sums.shape)
