"""Integer noise: discrete Laplace and discrete Gaussian, by OpenDP or by samplers of our own.

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

import numpy as np

_DECIMALS, _MORE_DECIMALS = 60, 40  # of a probability at first, and for each further word of the uniform number
_WORD = 1 << 64
_BELOW_A_WORD = 45  # exp(-45) is below 2^-64
_MOST_REST = 31  # of the part of a draw above its binary digits; more has a probability of exp(-45 * 32)
_FARTHEST = 10_000  # exp(-10000) counts as zero
_MARGIN = 2.0**-44  # of an acceptance in float64, whose rounding stays below 2^-47
LARGEST_SCALE = 2.0**50  # so that draws and their sums with whole numbers below 2^62 stay in 63 bits

Words = Callable[[int], np.ndarray]  # so many uniform numbers of 64 bits


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
