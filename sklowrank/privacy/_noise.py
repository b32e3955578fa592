"""Integer noise: discrete Laplace and discrete Gaussian, by OpenDP or by samplers of our own.

The samplers draw whole numbers from probabilities that are known to many more digits than a float has, so no digit of a
released sum says more than it should. Uniform words come from the operating system, or from a seed where noise has to
be reproducible.
"""

import importlib.util
import math
import os
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

_DIGITS = 60  # of the decimals from which thresholds are made
_WORD = 1 << 64
_NEGLIGIBLE = 89  # exp(-89) is below 2^-128
_MOST_BITS = 62  # of a draw
_LARGEST_SCALE = 2.0**54
FLOAT_ERROR = 2.0**-48  # of one acceptance of the Gaussian sampler, which compares floats

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
        distance = (np.abs(proposed).astype(np.float64) - scale**2 / t) / scale
        uniform = (words(len(proposed)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        accepted = proposed[uniform < np.exp(-(distance**2) / 2)]
        found.append(accepted[:missing])
        missing -= len(found[-1])
    return np.concatenate(found)


def _geometric(scale, count, words):
    """Draw from P(G >= j) = exp(-j / scale), whose binary digits are independent."""
    total = np.zeros(count, dtype=np.int64)
    for i, (high, low) in enumerate(_thresholds(scale)):
        word = words(count)
        bit = word < high
        tied = np.flatnonzero(word == high)
        if len(tied):
            bit[tied] = words(len(tied)) < low
        total += bit.astype(np.int64) << i
    return total


@lru_cache(maxsize=64)
def _thresholds(scale: float) -> tuple[tuple[np.uint64, np.uint64], ...]:
    """Return the probability of each binary digit, times 2^128, in two words."""
    if not 0 < scale <= _LARGEST_SCALE:
        raise ValueError(f"The noise would have the scale {scale:.3g} in steps of 2^-20. Raise epsilon.")
    with localcontext() as context:
        context.prec = _DIGITS
        t = 1 / Decimal(scale)
        found = []
        for i in range(_MOST_BITS):
            exponent = t * 2**i
            if exponent > _NEGLIGIBLE:
                break
            odds = (-exponent).exp()
            whole = int(odds / (1 + odds) * 2**128)
            found.append((np.uint64(whole // _WORD), np.uint64(whole % _WORD)))
    return tuple(found)


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
