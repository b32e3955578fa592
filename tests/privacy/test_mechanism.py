"""The noise has exactly the probabilities that the guarantee relies on."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest

from sklowrank.privacy import _mechanism
from sklowrank.privacy._mechanism import add_noise, discrete_gaussian, discrete_laplace, resolve_backend, seeded_words

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
    thresholds = _mechanism._thresholds(3.0)
    assert math.exp(-(2 ** len(thresholds)) / 3) < 2.0**-64
    for i, threshold in enumerate(thresholds[:6]):
        odds = math.exp(-(2**i) / 3)
        assert int(threshold) / 2**64 == pytest.approx(odds / (1 + odds), rel=1e-15)


def test_bounds_of_probabilities_enclose_them_and_close():
    """Against the series of exp in rational arithmetic, which has 40 right decimals here."""
    x = Fraction(7, 3)
    terms, exact = Fraction(1), Fraction(1)
    for k in range(1, 80):
        terms *= x / k
        exact += terms
    for decimals in (20, 30):
        low, high = _mechanism._exponential(x, decimals)
        assert low < 1 / exact < high
        assert high - low < Fraction(10) ** (9 - decimals)
    variance = Fraction(1.7) ** 2
    for proposed in (0, -2, 5):
        low, high = _mechanism._acceptance(proposed, 1.7, 2, 40)
        assert float(low) == pytest.approx(math.exp(-float((abs(proposed) - variance / 2) ** 2 / (2 * variance))))
        assert low <= high <= 1


def test_as_many_words_are_drawn_whatever_comes_out():
    def counting(seed):
        words, counts = seeded_words(seed), []

        def draw(count):
            counts.append(count)
            return words(count)

        discrete_laplace(1000.0, 50, draw)
        return counts

    assert counting(0) == counting(1) == counting(2)


def scripted(*words):
    """Words that come in this order, and ones that decide nothing afterwards."""
    script = [*words, *[2**64 - 1] * 100]
    return lambda count: np.array([script.pop(0) for _ in range(count)], dtype=np.uint64)


def test_a_first_word_that_does_not_decide_is_followed_by_more():
    low, high = _mechanism._digit(1.0, 0, 100)
    digits = int(low * 2**192)
    assert digits == int(high * 2**192)
    first, second, third = (digits >> shift & (2**64 - 1) for shift in (128, 64, 0))
    for words, bit in (
        ([first, second - 1], 1),
        ([first, second + 1], 0),
        ([first, second, third - 1], 1),
        ([first, second, third + 1], 0),
    ):
        assert _mechanism._geometric(1.0, 1, scripted(*words)).tolist() == [bit]


def test_draws_above_the_digits_are_not_cut_off():
    """Words of zero are below every probability: first that of each digit, then that of one more than the digits."""
    n_digits = len(_mechanism._thresholds(1.0))
    most = 2**n_digits - 1
    assert _mechanism._geometric(1.0, 1, scripted(*[0] * n_digits)).tolist() == [most]
    more = _mechanism._geometric(1.0, 1, scripted(*[0] * n_digits, 0, 0))
    assert more.tolist() == [most + 2**n_digits]
    assert _mechanism.discrete_laplace(1e-300, 100, seeded_words(0)).any() == 0  # no digits at all


def test_exact_comparisons_decide_as_floats_do(monkeypatch):
    """With a margin that leaves most proposals to rational arithmetic: the same draws, up to words drawn for ties."""
    plain = discrete_gaussian(1.5, 3000, seeded_words(5))
    asked, is_below = [], _mechanism._is_below

    def counting(*args):
        asked.append(1)
        return is_below(*args)

    monkeypatch.setattr(_mechanism, "_is_below", counting)
    monkeypatch.setattr(_mechanism, "_MARGIN", 0.5)
    assert np.array_equal(discrete_gaussian(1.5, 3000, seeded_words(5)), plain)
    assert len(asked) > 1000


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 0.3, 2.0**49])
def test_extreme_scales(scale):
    with np.errstate(all="raise"):
        draws = discrete_gaussian(scale, 50, seeded_words(1))
    assert np.abs(draws).max() <= max(6 * scale, 0) + 1


def test_sums_keep_their_shape_and_seeds_repeat():
    sums = np.arange(6).reshape(2, 3)
    once, again = (add_noise(sums, "gaussian", 4.0, "builtin", seeded_words(3)) for _ in range(2))
    assert once.shape == (2, 3)
    assert once.dtype == np.int64
    assert np.array_equal(once, again)
    assert not np.array_equal(once, add_noise(sums, "gaussian", 4.0, "builtin", seeded_words(4)))
    assert not np.array_equal(*(add_noise(sums, "gaussian", 1e6, "builtin", _mechanism.system_words) for _ in range(2)))


def test_backends(monkeypatch):
    assert resolve_backend("auto", seeded=True) == "builtin"
    with pytest.raises(ValueError, match="cannot be seeded"):
        resolve_backend("opendp", seeded=True)
    monkeypatch.setattr(_mechanism.importlib.util, "find_spec", lambda name: None)
    assert resolve_backend("auto", seeded=False) == "builtin"
    with pytest.raises(ImportError, match="needs the package opendp"):
        resolve_backend("opendp", seeded=False)
    monkeypatch.setattr(_mechanism.importlib.util, "find_spec", lambda name: sys)
    assert resolve_backend("auto", seeded=False) == "opendp"
    with pytest.raises(ValueError, match="Raise epsilon"):
        discrete_laplace(2.0**60, 1, seeded_words(0))
