"""The noise has exactly the probabilities that the promise relies on."""

import math
import sys

import numpy as np
import pytest

from sklowrank.privacy import _noise
from sklowrank.privacy._noise import add_noise, discrete_gaussian, discrete_laplace, resolve_backend, seeded_words

K = np.arange(-200, 201)


def probabilities(mechanism, scale):
    weights = np.exp(-np.abs(K) / scale) if mechanism == "laplace" else np.exp(-(K**2) / (2 * scale**2))
    return weights / weights.sum()


def largest_deviation(draws, p):
    """The largest |z| of the frequencies of -5 to 5."""
    counts = np.array([(draws == k).sum() for k in range(-5, 6)])
    p = p[195:206]
    return np.abs((counts - len(draws) * p) / np.sqrt(len(draws) * p * (1 - p))).max()


@pytest.mark.parametrize("scale", [0.4, 1.5, 3.0])
@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
def test_exact_probabilities(mechanism, scale):
    sample = discrete_laplace if mechanism == "laplace" else discrete_gaussian
    draws = sample(scale, 1_000_000, seeded_words(0))
    assert len(draws) == 1_000_000
    assert largest_deviation(draws, probabilities(mechanism, scale)) < 4.5


def test_opendp_draws_from_the_same_probabilities():
    pytest.importorskip("opendp")
    zeros = np.zeros(100_000, dtype=np.int64)
    for mechanism in ("laplace", "gaussian"):
        draws = add_noise(zeros, mechanism, 1.5, "opendp", None)
        assert largest_deviation(draws, probabilities(mechanism, 1.5)) < 4.5


def test_large_scales_have_the_right_spread_and_uniform_low_bits():
    laplace = discrete_laplace(5e6, 100_000, seeded_words(1))
    gaussian = discrete_gaussian(5e6, 100_000, seeded_words(2))
    assert laplace.std() == pytest.approx(5e6 * math.sqrt(2), rel=0.02)
    assert gaussian.std() == pytest.approx(5e6, rel=0.02)
    for draws in (laplace, gaussian):
        assert abs(draws.mean()) < 5 * draws.std() / 100_000**0.5
        for bit in range(8):
            assert abs(np.mean(draws >> bit & 1) - 0.5) < 5 * 0.5 / 100_000**0.5


def test_thresholds_are_the_probabilities_of_binary_digits():
    for i, (high, low) in enumerate(_noise._thresholds(3.0)[:6]):
        p = (int(high) * 2**64 + int(low)) / 2**128
        odds = math.exp(-(2**i) / 3)
        assert p == pytest.approx(odds / (1 + odds), rel=1e-15)


def test_as_many_words_are_drawn_whatever_comes_out():
    def counting(seed):
        words, counts = seeded_words(seed), []

        def draw(count):
            counts.append(count)
            return words(count)

        discrete_laplace(1000.0, 50, draw)
        return counts

    assert counting(0) == counting(1) == counting(2)


def test_an_equal_first_word_is_decided_by_the_second():
    high, low = _noise._thresholds(1.0)[0]
    for second, bit in ((int(low) - 1, 1), (int(low), 0)):
        n_digits = len(_noise._thresholds(1.0))
        script = [[int(high)], [second], *[[2**64 - 1]] * (n_digits - 1)]
        words = map(np.uint64, script)
        assert _noise._geometric(1.0, 1, lambda count, words=words: next(words)).tolist() == [bit]


def test_sums_keep_their_shape_and_seeds_repeat():
    sums = np.arange(6).reshape(2, 3)
    once, again = (add_noise(sums, "gaussian", 4.0, "builtin", seeded_words(3)) for _ in range(2))
    assert once.shape == (2, 3)
    assert once.dtype == np.int64
    assert np.array_equal(once, again)
    assert not np.array_equal(once, add_noise(sums, "gaussian", 4.0, "builtin", seeded_words(4)))
    assert not np.array_equal(*(add_noise(sums, "gaussian", 1e6, "builtin", _noise.system_words) for _ in range(2)))


def test_backends(monkeypatch):
    assert resolve_backend("auto", seeded=True) == "builtin"
    with pytest.raises(ValueError, match="cannot be seeded"):
        resolve_backend("opendp", seeded=True)
    monkeypatch.setattr(_noise.importlib.util, "find_spec", lambda name: None)
    assert resolve_backend("auto", seeded=False) == "builtin"
    with pytest.raises(ImportError, match="needs the package opendp"):
        resolve_backend("opendp", seeded=False)
    monkeypatch.setattr(_noise.importlib.util, "find_spec", lambda name: sys)
    assert resolve_backend("auto", seeded=False) == "opendp"
    with pytest.raises(ValueError, match="Raise epsilon"):
        discrete_laplace(2.0**60, 1, seeded_words(0))
