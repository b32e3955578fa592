"""Distance correlation agrees with its definition."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from sklowrank.metrics import distance_correlation
from sklowrank.metrics._dependence import _distances_of_columns, _distances_of_rows


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


COLUMNS = {
    "normal": lambda rng: rng.normal(size=(2, 300)),
    "related": lambda rng: np.sort(rng.normal(size=(2, 300)), axis=1),
    "with ties": lambda rng: rng.integers(0, 6, size=(2, 300)) * 1.0,
    "tied in one": lambda rng: np.array([np.repeat([0.0, 1.0, 5.0], 100), rng.normal(size=300)]),
    "far out": lambda rng: rng.standard_cauchy(size=(2, 300)) ** 3,
    "far from zero": lambda rng: 1e6 + rng.normal(size=(2, 300)),
    "a pair": lambda rng: np.array([[0.0, 1.0], [3.0, 2.0]]),
}


@pytest.mark.parametrize("columns", COLUMNS)
def test_two_columns_give_what_all_pairs_give(columns):
    """A column of zeros beside one changes no distance, but means that all pairs are looked at."""
    x, y = COLUMNS[columns](np.random.default_rng(0))
    wide = np.c_[y, np.zeros(len(y))]
    assert distance_correlation(x, y) == pytest.approx(distance_correlation(x, wide), rel=1e-10)
    assert distance_correlation(y, x) == pytest.approx(distance_correlation(x, y), rel=1e-10)
    assert distance_correlation(x, y) == pytest.approx(by_definition(x[:, None], y[:, None]), rel=1e-6)


def test_means_of_products_and_distances_of_columns():
    x, y = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 77)))
    fast, slow = _distances_of_columns(x, y), _distances_of_rows(x[:, None], y[:, None])
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-14)


def test_place_scale_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(100, 2)), rng.normal(size=100)
    assert distance_correlation(1e200 * X[:, 0], 1e-200 * Y) == pytest.approx(
        distance_correlation(X[:, 0], Y), rel=1e-9
    )
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
