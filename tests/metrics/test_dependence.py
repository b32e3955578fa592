"""Distance correlation agrees with its definition."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sklowrank.metrics import distance_correlation


def by_definition(X, Y):
    def centred(T):
        D = cdist(T, T)
        return D - D.mean(0) - D.mean(1)[:, None] + D.mean()

    a, b = centred(X), centred(Y)
    return np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_agrees_with_doubly_centred_distances(dtype):
    rng = np.random.default_rng(0)
    X, noise = rng.normal(size=(150, 3)).astype(dtype), rng.normal(size=(150, 2)).astype(dtype)
    for Y in (noise, X[:, :2] ** 2 + noise):
        assert distance_correlation(X, Y) == pytest.approx(by_definition(X, Y), rel=1e-6)
        assert distance_correlation(Y, X) == pytest.approx(distance_correlation(X, Y), rel=1e-12)


def test_place_scale_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(100, 2)), rng.normal(size=100)
    value = distance_correlation(X, Y)
    assert distance_correlation(1e200 * X, 1e-200 * Y) == pytest.approx(value, rel=1e-9)
    monkeypatch.setattr("sklowrank.metrics._dependence.rows_per_block", lambda *args: 7)
    assert distance_correlation(X + 5, Y) == pytest.approx(value, rel=1e-9)


def test_ends():
    x = np.linspace(-1, 1, 50)
    assert distance_correlation(x, 2 - 3 * x) == pytest.approx(1)
    assert distance_correlation(x, np.ones(50)) == 0
    assert distance_correlation(np.full(50, 0.1), x) == 0
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        distance_correlation(x, x[1:])
