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
