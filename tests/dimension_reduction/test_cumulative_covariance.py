"""The measure is exact, sees the order of distances alone, and costs what it says."""

import numpy as np
import pytest
import sklearn
import torch
from scipy.spatial.distance import cdist

from sklowrank.datasets import make_frechet_regression
from sklowrank.dimension_reduction import frechet_cumulative_covariance


def by_loops(U, D):
    """The definition: centres, radii, and the covariance with each ball."""
    U, n = U - U.mean(0), len(U)
    balls = ((D[i] <= D[i, k]) for i in range(n) for k in range(n))
    return sum((U[ball].sum(0) / n) @ (U[ball].sum(0) / n) for ball in balls) / n**2


@pytest.fixture(scope="module")
def tied():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 2)), rng.integers(0, 6, 40).astype(float)


def test_exact_with_ties(tied):
    U, y = tied
    D = np.abs(y[:, None] - y)
    value = frechet_cumulative_covariance(U, y)
    assert value == pytest.approx(by_loops(U, D), rel=1e-12)
    assert frechet_cumulative_covariance(U, D, metric="precomputed") == pytest.approx(value, rel=1e-12)
    r = (D[:, None, :] >= D[:, :, None]).sum(2) / 40
    K, Uc = np.minimum(r[:, :, None], r[:, None, :]).mean(0), U - U.mean(0)
    assert value == pytest.approx(np.trace(Uc.T @ K @ Uc) / 40**2, rel=1e-12)


def test_classes_and_one_column(tied):
    U, y = tied
    labels = np.array([f"class {k:.0f}" for k in y])
    value = frechet_cumulative_covariance(U[:, 0], labels)
    assert value == pytest.approx(by_loops(U[:, :1], 1.0 * (y[:, None] != y)), rel=1e-12)


def test_only_the_order_of_distances_counts(tied):
    U, _ = tied
    y = np.random.default_rng(1).normal(size=(40, 3))
    D = cdist(y, y)
    values = [frechet_cumulative_covariance(U, f(D), metric="precomputed") for f in (np.asarray, np.exp, np.sqrt)]
    assert values[0] == values[1] == values[2]


def test_blocks_change_nothing(tied, monkeypatch):
    U, y = tied
    whole = frechet_cumulative_covariance(U, y)
    monkeypatch.setattr("sklowrank.dimension_reduction._cumulative_covariance.rows_per_block", lambda *args: 7)
    assert frechet_cumulative_covariance(U, y) == pytest.approx(whole, rel=1e-12)


NUMBERS = {
    "normal": lambda rng: rng.normal(size=200),
    "with ties": lambda rng: rng.integers(0, 9, 200) * 1.0,
    "decimals": lambda rng: np.round(rng.normal(size=200), 1),
    "far out": lambda rng: rng.standard_cauchy(200),
    "mirrored": lambda rng: np.r_[np.arange(100), -np.arange(100)] * 1.0,
    "mostly zero": lambda rng: np.maximum(rng.normal(size=200) - 1, 0),
    "two": lambda rng: rng.integers(0, 2, 200) * 1.0,
    "far from zero": lambda rng: 1e6 + rng.normal(size=200),
}


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("numbers", NUMBERS)
def test_intervals_of_numbers_give_what_balls_give(numbers, d):
    """Sums of squares of 200 terms each, in float64: both agree to far more than ten digits."""
    rng = np.random.default_rng(0)
    y = NUMBERS[numbers](rng)
    U = rng.normal(size=(200, d)) + np.tanh(y - y.mean())[:, None]
    slow = frechet_cumulative_covariance(U, np.abs(y[:, None] - y), metric="precomputed")
    for responses, metric in (
        (y, "auto"),
        (y[:, None], "euclidean"),
        (-3 * y, "manhattan"),
        (y[:, None], "wasserstein"),
    ):
        assert frechet_cumulative_covariance(U, responses, metric=metric) == pytest.approx(slow, rel=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_few_numbers(n):
    y = np.arange(n) ** 2.0
    U = np.random.default_rng(0).normal(size=(n, 2))
    assert frechet_cumulative_covariance(U, y) == pytest.approx(by_loops(U, np.abs(y[:, None] - y)), abs=1e-15)


def test_blocks_of_numbers_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    y = np.r_[rng.normal(size=150), np.repeat([0.3, 0.7], 25)]
    U = rng.normal(size=(200, 2)) + y[:, None]
    whole = frechet_cumulative_covariance(U, y)
    for name, value in {"_PAIRS": 50, "_CENTRES": 7}.items():
        monkeypatch.setattr(f"sklowrank.dimension_reduction._cumulative_covariance.{name}", value)
    assert frechet_cumulative_covariance(U, y) == pytest.approx(whole, rel=1e-12)


def test_ties_that_rounding_has_broken_are_ties():
    """A grid of tenths: 0.3 - 0.2 and 0.2 - 0.1 are equal, the floats are not."""
    rng = np.random.default_rng(2)
    whole = rng.integers(-8, 9, 120)
    U = rng.normal(size=(120, 2)) + whole[:, None]
    exact = frechet_cumulative_covariance(U, whole * 1.0)
    assert frechet_cumulative_covariance(U, whole * 0.1) == pytest.approx(exact, rel=1e-10)
    plane = np.c_[whole, rng.integers(-4, 5, 120)] * 1.0
    exact = frechet_cumulative_covariance(U, plane)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    assert frechet_cumulative_covariance(U, 0.1 * plane @ turn) == pytest.approx(exact, rel=1e-10)


def test_clouds_of_unequal_size():
    rng = np.random.default_rng(3)
    u, m = rng.normal(size=100), rng.integers(30, 60, 100)
    clouds = [np.array([x, -x]) + 0.3 * rng.normal(size=(k, 2)) for x, k in zip(u, m)]
    equal = frechet_cumulative_covariance(u, np.array([cloud[:30] for cloud in clouds]), metric="wasserstein")
    assert frechet_cumulative_covariance(u, clouds, metric="wasserstein") == pytest.approx(equal, rel=0.1)
    own = frechet_cumulative_covariance(u, clouds, metric=lambda a, b: np.linalg.norm(a.mean(0) - b.mean(0)))
    assert own == pytest.approx(equal, rel=0.2)
    S = np.array([[[2.0, x], [x + 0.2, 2.0]] for x in 0.5 * np.tanh(u)])
    with pytest.raises(ValueError, match="symmetric matrices, but row 0 of y"):
        frechet_cumulative_covariance(u, S, metric="spd")


@pytest.mark.parametrize("response", ["number", "location", "matrix", "direction"])
def test_landmarks_are_near_the_exact_value_and_related_vectors_score_higher(response):
    metric = {"number": "auto", "location": "wasserstein", "matrix": "spd", "direction": "sphere"}[response]
    _, y, S = make_frechet_regression(400, response=response, random_state=0)
    exact = frechet_cumulative_covariance(S, y, metric=metric)
    some = frechet_cumulative_covariance(S, y, metric=metric, n_landmarks=64, random_state=0)
    assert some == pytest.approx(exact, rel=0.15)
    assert exact > 20 * frechet_cumulative_covariance(np.random.default_rng(0).permutation(S), y, metric=metric)


def test_outliers_do_little_harm():
    _, y, S = make_frechet_regression(500, response="number", random_state=0)
    _, spoilt, _ = make_frechet_regression(500, response="number", contamination=0.05, random_state=0)
    clean, after = (frechet_cumulative_covariance(S, v) for v in (y, spoilt))
    assert after > 0.8 * clean


def test_tensors_lists_and_functions_give_the_same():
    _, y, S = make_frechet_regression(80, response="matrix", random_state=0)
    value = frechet_cumulative_covariance(S, y, metric="frobenius")
    with sklearn.config_context(array_api_dispatch=True):
        pair = torch.from_numpy(S), torch.from_numpy(y)
        assert frechet_cumulative_covariance(*pair, metric="frobenius") == pytest.approx(value, rel=1e-12)
    assert frechet_cumulative_covariance(S.tolist(), y.tolist(), metric="frobenius") == value
    own = frechet_cumulative_covariance(S, y, metric=lambda a, b: np.linalg.norm(a - b))
    assert own == pytest.approx(value, rel=1e-9)


def test_bad_input():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        frechet_cumulative_covariance(np.ones((3, 2)), np.ones(4))
    with pytest.raises(ValueError, match="'metric' parameter"):
        frechet_cumulative_covariance(np.ones((3, 2)), np.ones(3), metric="nearness")
    with pytest.raises(ValueError, match="NaN"):
        frechet_cumulative_covariance(np.full((3, 2), np.nan), np.ones(3))
    assert frechet_cumulative_covariance(np.eye(3), np.ones(3)) == pytest.approx(0, abs=1e-30)
