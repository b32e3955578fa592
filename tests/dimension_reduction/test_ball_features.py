"""Balls of responses: their features, their measure, weights, ties and classes."""

import numpy as np
import pandas as pd
import pytest
import torch

from sklowrank.datasets import make_frechet_regression
from sklowrank.dimension_reduction import frechet_cumulative_covariance
from sklowrank.dimension_reduction._ball_features import (
    ball_features,
    explained_shares,
    loading_sums,
    loadings_from,
    number_of,
)
from sklowrank.dimension_reduction._metric_spaces import distances


def features_of(y, metric="auto", n_landmarks=64, n_thresholds=16, **kwargs):
    device = torch.device("cpu")
    return ball_features(y, metric=metric, n_landmarks=n_landmarks, n_thresholds=n_thresholds, device=device, **kwargs)


def indicators(features, D):
    """Centred and weighted indicators, from the distances of rows (n, m) to the landmarks."""
    balls = features.balls
    inside = (D[:, :, None] <= balls.radii.numpy()).reshape(len(D), -1)
    return (inside - balls.means.numpy()) * balls.weights.numpy() ** 0.5


def test_targets_are_the_principal_components_of_the_indicators_of_balls():
    y = np.random.default_rng(0).normal(size=(300, 3))
    features = features_of(y, n_landmarks=40, n_thresholds=8)
    F = indicators(features, distances(torch.from_numpy(y), features.balls.centres, "euclidean").numpy())
    assert np.allclose(F.mean(0), 0, atol=1e-15)
    assert np.allclose(features.targets, F @ features.basis.numpy())
    kept = float(features.targets.square().sum()) / (F**2).sum()
    assert 0.95 <= kept < 1
    assert np.allclose(features.basis.T @ features.basis, np.eye(features.basis.shape[1]), atol=1e-12)


@pytest.mark.parametrize("response", ["number", "matrix", "direction"])
def test_covariance_with_all_features_is_near_the_exact_measure(response):
    _, y, S = make_frechet_regression(400, response=response, random_state=0)
    metric = {"number": "euclidean", "matrix": "spd_log", "direction": "sphere"}[response]
    U = torch.from_numpy(S - S.mean(0))
    value = float((U.T @ features_of(y, metric).targets / 400).square().sum())
    assert value == pytest.approx(frechet_cumulative_covariance(S, y, metric=metric), rel=0.06)


def test_only_the_order_of_distances_counts():
    y = np.random.default_rng(1).normal(size=200)
    D = np.abs(y[:, None] - y)
    once, cubed = (features_of(distance, "precomputed") for distance in (D, D**3))
    assert torch.equal(once.targets, cubed.targets)


def test_radii_are_order_statistics_and_ties_are_merged():
    y = np.repeat([0.0, 1.0, 4.0], [50, 30, 20])
    features = features_of(y, n_landmarks=10, n_thresholds=10)
    values, shares = y[features.landmarks], features.balls.weights.reshape(3, -1).numpy()
    assert values.tolist() == [0, 1, 4]
    assert features.balls.radii.tolist() == [[0, 1, 4], [0, 1, 3], [0, 3, 4]]
    assert np.allclose(shares.sum(1), [0.5, 0.3, 0.2])
    assert np.allclose(shares[0], [0.25, 0.15, 0.1])


def test_a_weight_is_a_number_of_rows():
    rng = np.random.default_rng(2)
    y, count = rng.normal(size=(80, 2)), rng.integers(0, 4, 80)
    weighted, repeated = features_of(y, sample_weight=count.astype(float)), features_of(np.repeat(y, count, axis=0))
    assert np.array_equal(y[weighted.landmarks], np.repeat(y, count, axis=0)[repeated.landmarks])
    assert torch.equal(weighted.balls.radii, repeated.balls.radii)
    assert np.allclose(weighted.balls.means, repeated.balls.means)
    rows = np.repeat(np.arange(80), count)
    assert np.allclose((weighted.targets @ weighted.basis.T)[rows], repeated.targets @ repeated.basis.T, atol=1e-9)


def test_each_class_is_one_ball():
    labels = np.array(["a"] * 300 + ["b"] * 95 + ["rare"] * 5)
    features = features_of(labels, n_landmarks=8)
    assert set(labels[features.landmarks]) == {"a", "b", "rare"}
    assert not features.balls.radii.any()
    assert features.targets.shape[1] == 2  # the indicators of three classes sum to one
    most = features_of(labels, n_landmarks=2)
    assert set(labels[most.landmarks]) == {"a", "b"}
    no_rare = features_of(labels, n_landmarks=8, sample_weight=(labels != "rare").astype(float))
    assert set(labels[no_rare.landmarks]) == {"a", "b"}


def test_labels_of_data_frames():
    labels = ["a", "b", "b", "a"] * 3
    plain = features_of(labels)
    for y in (pd.Series(labels), pd.Series(labels, dtype="category"), np.array(labels, dtype=object)):
        assert torch.equal(features_of(y).targets, plain.targets)


def test_constant_responses_are_refused():
    for y in (np.ones(20), ["same"] * 20, np.ones((20, 3))):
        with pytest.raises(ValueError, match="y is constant"):
            features_of(y)


def test_blocks_and_selected_rows_change_little(monkeypatch):
    y = np.random.default_rng(3).normal(size=(600, 2))
    whole = features_of(y)
    module = "sklowrank.dimension_reduction._ball_features"
    monkeypatch.setattr(f"{module}.rows_per_block", lambda *args: 71)
    assert np.allclose(features_of(y).targets, whole.targets, atol=1e-12)
    monkeypatch.setattr(f"{module}._RADII_ROWS", 300)
    monkeypatch.setattr(f"{module}._PRINCIPAL_ROWS", 300)
    some = features_of(y)
    assert float(some.targets.square().sum()) == pytest.approx(float(whole.targets.square().sum()), rel=0.05)


def test_explained_is_one_minus_the_residual_share():
    rng = np.random.default_rng(4)
    U = torch.from_numpy(rng.normal(size=(150, 2)))
    y, new = U.numpy() + 0.5 * rng.normal(size=(2, 150, 2))
    features, weight = features_of(y), torch.ones(150, dtype=torch.float64)
    loadings = loadings_from(*loading_sums(U, weight, features.targets), features.basis)
    F = indicators(features, np.linalg.norm(new[:, None] - y[features.landmarks], axis=2))
    expected = [1 - ((F - (U[:, :k] @ loadings[:k]).numpy()) ** 2).sum() / (F**2).sum() for k in (1, 2)]
    assert np.allclose(explained_shares(features.balls, new, U, loadings, [1, 2]).cumsum(), expected)
    F = indicators(features, np.linalg.norm(y[:, None] - y[features.landmarks], axis=2)) @ features.basis.numpy()
    slow = np.linalg.lstsq(U.numpy(), F, rcond=None)[0] @ features.basis.numpy().T
    assert np.allclose(loadings, slow)


def test_number_of_components():
    eigenvalues = torch.tensor([5.0, 3.0, 2.0])
    asked = (2, 0.4, 0.5, 0.51, 0.9, np.int64(1))
    assert [number_of(eigenvalues, n) for n in asked] == [2, 1, 1, 2, 3, 1]
