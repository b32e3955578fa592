"""Distances between responses are metrics, agree with their definitions, and refuse what is not in the space."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import eigvalsh, logm
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from sklowrank.dimension_reduction._metric_spaces import distances, points_of, resolve_metric

RNG = np.random.default_rng(0)
ROOTS = RNG.normal(size=(12, 3, 5))
SPD = ROOTS @ ROOTS.transpose(0, 2, 1)
SPHERE = ROOTS[:, :, 0] / np.linalg.norm(ROOTS[:, :, 0], axis=1, keepdims=True)
RESPONSES = {
    "euclidean": RNG.normal(size=(12, 2)),
    "manhattan": RNG.normal(size=(12, 2)),
    "discrete": RNG.choice(["a", "b", "c"], 12),
    "wasserstein": RNG.normal(size=(12, 7)),
    "spd_log": SPD,
    "spd_cholesky": SPD,
    "spd_affine": SPD,
    "frobenius": ROOTS,
    "sphere": SPHERE,
}


def between(y, metric):
    points = points_of(y, metric)
    return distances(points, points, metric).numpy()


@pytest.mark.parametrize("metric", RESPONSES)
def test_axioms_of_a_metric(metric):
    D = between(RESPONSES[metric], metric)
    assert D.shape == (12, 12)
    assert np.abs(np.diag(D)).max() < 1e-7  # an arccosine near one has half the digits
    assert np.allclose(D, D.T, atol=1e-7)
    assert D.min() >= 0
    assert np.all(D[:, None, :] <= D[:, :, None] + D[None, :, :] + 1e-7)
    others = D[~np.eye(12, dtype=bool)]
    assert metric == "discrete" or others.min() > 0


def test_definitions():
    assert np.allclose(between(RESPONSES["euclidean"], "euclidean"), cdist(*[RESPONSES["euclidean"]] * 2))
    logs = np.array([logm(S).ravel() for S in SPD])
    assert np.allclose(between(SPD, "spd_log"), cdist(logs, logs))
    affine = [[np.sqrt((np.log(eigvalsh(A, B)) ** 2).sum()) for B in SPD] for A in SPD]
    assert np.allclose(between(SPD, "spd_affine"), affine, atol=1e-7)
    assert np.allclose(between(SPHERE, "sphere"), np.arccos(np.clip(SPHERE @ SPHERE.T, -1, 1)), atol=1e-7)
    assert np.allclose(between(ROOTS, "frobenius")[0, 1], np.linalg.norm(ROOTS[0] - ROOTS[1]))
    L = np.linalg.cholesky(SPD[:2])
    low, diagonal = np.tril(L, -1), np.log(np.diagonal(L, axis1=1, axis2=2))
    step = np.sqrt(((low[0] - low[1]) ** 2).sum() + ((diagonal[0] - diagonal[1]) ** 2).sum())
    assert between(SPD, "spd_cholesky")[0, 1] == pytest.approx(step)
    moved = np.vstack([RESPONSES["wasserstein"][0], RESPONSES["wasserstein"][0] + 3])
    assert between(moved, "wasserstein")[0, 1] == pytest.approx(wasserstein_distance(*moved))


def test_affine_distances_do_not_change_when_all_matrices_are_seen_in_another_basis():
    T = np.random.default_rng(1).normal(size=(3, 3))
    assert np.allclose(between(T @ SPD @ T.T, "spd_affine"), between(SPD, "spd_affine"), atol=1e-7)


def test_matrices_may_lie_in_rows():
    for metric in ("spd_log", "spd_cholesky", "spd_affine", "frobenius"):
        assert np.array_equal(between(SPD.reshape(12, 9), metric), between(SPD, metric))


def test_samples_of_distributions_in_any_order_and_of_any_size():
    y = RESPONSES["wasserstein"]
    assert np.array_equal(
        between(np.random.default_rng(0).permuted(y, axis=1), "wasserstein"), between(y, "wasserstein")
    )
    rng = np.random.default_rng(1)
    ragged = [rng.normal(loc, size=size) for loc, size in ((0, 2000), (0, 3000), (5, 2500))]
    D = between(ragged, "wasserstein")
    assert D[0, 2] == pytest.approx(5, abs=0.1)
    assert D[0, 1] < 0.1
    clouds = rng.normal(size=(3, 400, 2)) + np.array([0, 0, 6])[:, None, None]
    D = between(clouds, "wasserstein")
    assert D[0, 1] < 0.5 < 4 < D[0, 2]


def test_ties_stay_ties():
    y = np.array([0.1, 0.4, 0.7, 1.0]) * 10
    D = between(np.round(y), "euclidean")
    assert D[0, 1] == D[1, 2] == D[2, 3] == 3


def test_functions_and_given_distances():
    y = RESPONSES["euclidean"]
    D = between(y, lambda a, b: np.abs(a - b).max())
    assert np.allclose(D, cdist(y, y, "chebyshev"))
    points = points_of(D, "precomputed")
    assert np.array_equal(distances(points, torch.tensor([3, 1]), "precomputed").numpy(), D[:, [3, 1]])


@pytest.mark.parametrize(
    ("y", "name"),
    [
        (["a", "b"], "discrete"),
        ([True, False], "discrete"),
        (pd.Series(["a", "b"], dtype="category"), "discrete"),
        (pd.Series([1, 2], dtype="category"), "discrete"),
        ([1, 2], "euclidean"),
        (np.ones((2, 3)), "euclidean"),
        (np.array([1.0, 2.0], dtype=object), "euclidean"),
    ],
)
def test_auto(y, name):
    assert resolve_metric("auto", y) == name
    assert resolve_metric("spd", y) == "spd_log"
    assert resolve_metric("sphere", y) == "sphere"


@pytest.mark.parametrize(
    ("y", "metric", "text"),
    [
        (np.vstack([SPHERE, [[1.0, 1.0, 0.0]]]), "sphere", "row 12 of y has length 1.41421"),
        (SPHERE[:, 0], "sphere", r"needs y of shape \(n_samples, q\)"),
        (np.concatenate([SPD, -SPD[:1]]), "spd_log", "row 12 of y has the eigenvalue"),
        (SPD.reshape(12, 9)[:, :8], "spd_affine", r"needs y of shape \(n_samples, k, k\)"),
        (np.full((3, 3), np.nan), "euclidean", "NaN"),
        (np.array([[0.0, 1.0], [-1.0, 0.0]]), "precomputed", "row 1 of y has -1"),
        (np.ones((4, 1)), "precomputed", "two objects at least"),
        (np.ones((4, 2)), "discrete", r"needs y of shape \(n_samples,\)"),
        ([[1.0, 2.0], [np.inf]], "wasserstein", "Row 1 of y"),
        (np.ones(4), "wasserstein", "needs y of shape"),
    ],
)
def test_what_is_not_in_the_space_is_refused(y, metric, text):
    with pytest.raises(ValueError, match=text):
        points_of(y, metric)


def test_unequal_lengths_point_to_distributions():
    with pytest.raises(ValueError, match="metric='wasserstein'"):
        resolve_metric("auto", [[1, 2], [3]])
