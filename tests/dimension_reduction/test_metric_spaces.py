"""Distances between responses are metrics, agree with their definitions, and refuse what is not in the space."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import eigvalsh, logm
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from sklowrank.dimension_reduction._metric_spaces import as_objects, distances, form_of, points_of, resolve_metric

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
        (
            [np.ones((4, 2)), np.ones((3, 2)), np.ones((3, 3))],
            "wasserstein",
            "Row 2 of y has samples of 3 numbers each",
        ),
        ([np.ones((4, 2)), np.ones((3, 2, 1))], "wasserstein", "Row 1 of y is empty, or .* no array of vectors"),
        ([[1.0, 2.0], ["a"]], "wasserstein", "Row 1 of y is no sample of numbers"),
        (SPD + np.triu(np.ones((3, 3)), 1), "spd_affine", "symmetric matrices, but row .* of y differs .* by 1"),
        (np.concatenate([SPD[:3], SPD[:1] @ SPD[1:2]]).reshape(4, 9), "spd_log", "symmetric matrices, but row 3 of y"),
        (np.concatenate([SPD[:3], SPD[:1] @ SPD[1:2]]), "spd_cholesky", "symmetric matrices, but row 3 of y"),
        ([[1.0, 2.0], [3.0]], "euclidean", "needs responses of one shape, .* pass metric='wasserstein'"),
        ([np.eye(2), np.eye(3)], "spd_log", "needs responses of one shape"),
        (np.array([[1.0, 2.0], [0.0, 0.0]]), "cosine", "not defined for row 1 of y, which is zero"),
        (np.array([[1.0, 2.0], [3.0, 3.0]]), "correlation", "not defined for row 1 of y, which is constant"),
        (np.ones(4), "wasserstein", "needs y of shape"),
    ],
)
def test_what_is_not_in_the_space_is_refused(y, metric, text):
    with pytest.raises(ValueError, match=text):
        points_of(y, metric)


def test_unequal_lengths_point_to_distributions():
    with pytest.raises(ValueError, match="metric='wasserstein'"):
        resolve_metric("auto", [[1, 2], [3]])


@pytest.mark.parametrize("metric", ["spd_log", "spd_cholesky", "spd_affine"])
def test_matrices_may_be_off_their_transposes_by_rounding(metric):
    rounded = (SPD + 1e-8 * np.triu(np.ones((3, 3)), 1)).astype(np.float32)
    assert np.allclose(between(rounded, metric), between(SPD, metric), atol=1e-5)


def test_near_points_of_the_sphere_have_distances_of_full_accuracy():
    turned = np.array([[1.0, 0.0], [np.cos(1e-9), np.sin(1e-9)], [-1.0, 0.0]])
    D = between(turned, "sphere")
    assert D[0, 1] == pytest.approx(1e-9, rel=1e-6)
    assert D[0, 0] == 0
    assert D[0, 2] == pytest.approx(np.pi)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e307])
def test_distances_of_any_size(scale):
    y = RESPONSES["euclidean"]
    assert np.allclose(between(scale * y, "euclidean") / scale, cdist(y, y))


def wasserstein(samples, form=None):
    return points_of(samples, "wasserstein", form).numpy()


def test_samples_of_equal_size_have_the_exact_distance_and_others_are_brought_to_it():
    rng = np.random.default_rng(2)
    y = rng.normal(size=(6, 5))
    form = form_of(y, "wasserstein")
    assert form["size"] == 5
    assert np.allclose(cdist(wasserstein(y), wasserstein(y)), cdist(np.sort(y), np.sort(y)) / 5**0.5)
    assert np.array_equal(wasserstein(np.repeat(y, 3, axis=1), form).shape, (6, 5))
    long = np.array([np.quantile(row, np.linspace(0, 1, 4001)[1:-1], method="hazen") for row in y])
    assert np.allclose(wasserstein(long, form), wasserstein(y, form), atol=0.02)
    uneven = [row[: 3 + i % 3] for i, row in enumerate(y)]
    assert np.array_equal(wasserstein(uneven, form)[2], wasserstein(y, form)[2])


@pytest.mark.parametrize("vectors", [False, True])
def test_the_form_of_samples_does_not_depend_on_the_rows_beside_them(vectors):
    rng = np.random.default_rng(3)
    y = [rng.normal(size=(m, 2) if vectors else m) for m in rng.integers(4, 9, 20)]
    form = form_of(y, "wasserstein")
    assert form["size"] == 100
    together = wasserstein(y, form)
    assert together.shape == (20, 5000 if vectors else 100)
    alone = np.vstack([wasserstein([sample], form) for sample in y])
    assert np.allclose(alone, together, rtol=0, atol=1e-12)
    series = pd.Series(y, index=np.arange(20)[::-1])
    assert np.array_equal(wasserstein(series, form), together)
    tensors = [torch.from_numpy(sample) for sample in y]
    assert np.array_equal(wasserstein(tensors, form), together)
    if not vectors:
        column = [sample[:, None] for sample in y]
        assert np.array_equal(wasserstein(column, form), together)


def test_rows_without_weight_do_not_decide_the_form():
    rng = np.random.default_rng(4)
    y = [rng.normal(size=(m, 2)) for m in (6, 6, 9, 6)]
    form, without = (
        form_of(y, "wasserstein", np.array([1.0, 2, 0, 1])),
        form_of([y[0], y[1], y[1], y[3]], "wasserstein"),
    )
    assert form["size"] == without["size"] == 6
    assert np.allclose(form["directions"], without["directions"])


def test_clouds_of_unequal_size_are_distributions_of_vectors():
    """Clouds of one mean and one spread of all numbers, but turned: numbers laid out in a row would not tell them."""
    rng = np.random.default_rng(5)
    along = [rng.normal(size=(m, 2)) * [2, 0.2] for m in (400, 500, 450)]
    across = [rng.normal(size=(m, 2)) * [0.2, 2] for m in (420, 480)]
    D = between(along + across, "wasserstein")
    assert D[:3, :3].max() < 0.3 < 0.8 < D[:3, 3:].min()


def test_a_function_sees_arrays_of_any_size():
    rng = np.random.default_rng(6)
    y = [rng.normal(size=m).tolist() for m in (3, 5, 4)]
    D = between(y, lambda a, b: abs(a.mean() - b.mean()))
    assert D[0, 1] == pytest.approx(abs(np.mean(y[0]) - np.mean(y[1])))
    assert as_objects(y).shape == (3,)
    assert as_objects([y[0], y[0]]).shape == (2, 3)
    words = between(["a", "bcd", "ef"], lambda a, b: abs(len(a) - len(b)))
    assert words[0].tolist() == [0, 2, 1]


def test_given_distances_are_to_the_same_objects():
    form = form_of(np.ones((4, 3)), "precomputed")
    with pytest.raises(ValueError, match="y has distances to 2 objects, but fit has seen those to 3"):
        points_of(np.ones((4, 2)), "precomputed", form)
