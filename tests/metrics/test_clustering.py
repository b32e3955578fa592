"""Clustering accuracy, distance of subspaces, misplaced weight of codes: against counting and dense projections."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sklowrank.metrics import clustering_accuracy, rate_reduction, subspace_preserving_error, subspace_recovery_error


@pytest.mark.parametrize(
    "labels",
    [
        [0, np.nan],
        [np.inf, 1.0],
        [None, "a"],
        np.array(["a", np.nan], dtype=object),
        pd.Series(["a", pd.NA], dtype="string"),
        pd.Series([1, pd.NA], dtype="Int64"),
        pd.Categorical(["a", None]),
        np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
    ],
)
def test_missing_labels_are_refused(labels):
    with pytest.raises(ValueError, match="labels has 1 missing or infinite values, the first at position"):
        clustering_accuracy([0, 1], labels)
    with pytest.raises(ValueError, match="y has 1 missing or infinite values"):
        clustering_accuracy(labels, [0, 1])
    with pytest.raises(ValueError, match="y has 1 missing or infinite values"):
        subspace_preserving_error(np.zeros((2, 2)), labels)
    with pytest.raises(ValueError, match="membership has 1 missing or infinite values"):
        rate_reduction(np.eye(2), labels)


def test_no_labels_at_all_are_refused():
    with pytest.raises(ValueError, match="y has n_samples=0"):
        clustering_accuracy([], [])
    with pytest.raises(ValueError, match="0 sample"):
        subspace_preserving_error(np.zeros((0, 0)), [])


def frame(D, d, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(D, d)))[0]


def test_accuracy_is_the_best_over_all_matchings():
    rng = np.random.default_rng(0)
    y, labels = rng.integers(4, size=50), rng.integers(4, size=50)
    best = max(np.mean(y == np.array(p)[labels]) for p in permutations(range(4)))
    assert clustering_accuracy(y, labels) == pytest.approx(best)


def test_accuracy_of_other_numbers_of_clusters_and_other_types():
    assert clustering_accuracy([0, 0, 1, 1], [2, 2, 0, 1]) == pytest.approx(0.75)
    assert clustering_accuracy([0, 0, 1, 2], [5, 5, 5, 5]) == pytest.approx(0.5)
    assert clustering_accuracy(["a", "b"], [-1, 0]) == 1
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clustering_accuracy([0, 1], [0, 1, 2])


def test_recovery_error_is_the_distance_of_the_projections():
    a, b = [frame(9, 3, s) for s in (0, 1)], [frame(9, 3, s) for s in (2, 3)]
    dense = np.array([[np.linalg.norm(U @ U.T - V @ V.T) / np.sqrt(6) for V in b] for U in a])
    best = min(dense[0, 0] + dense[1, 1], dense[0, 1] + dense[1, 0]) / 2
    assert subspace_recovery_error(a, b) == pytest.approx(best, rel=1e-12)


def test_recovery_error_knows_neither_order_nor_rotation_nor_rounding():
    a = [frame(9, 3, 0), frame(9, 2, 1)]
    b = [a[1] @ frame(2, 2, 5), a[0] @ frame(3, 3, 6)]
    assert subspace_recovery_error(a, b) < 1e-14  # the difference of squares would leave 1e-8
    assert subspace_recovery_error([np.eye(4)[:, :2]], [np.eye(4)[:, 2:]]) == pytest.approx(1)
    tilt = 1e-9
    line = np.array([[np.cos(tilt)], [np.sin(tilt)]])
    assert subspace_recovery_error([np.eye(2)[:, :1]], [line]) == pytest.approx(tilt, rel=1e-6)


def test_recovery_error_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match=r"bases_a has 2 subspaces and bases_b has 1"):
        subspace_recovery_error([frame(5, 2, 0), frame(5, 2, 1)], [frame(5, 2, 0)])
    with pytest.raises(ValueError, match=r"n_features in \[5, 6\]"):
        subspace_recovery_error([frame(5, 2, 0)], [frame(6, 2, 0)])
    with pytest.raises(ValueError, match=r"bases_b\[0\].*not orthonormal.*np.linalg.qr"):
        subspace_recovery_error([frame(5, 2, 0)], [frame(5, 2, 0).T])


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_array])
def test_preserving_error_counts_weight_row_by_row(form):
    rng = np.random.default_rng(3)
    codes, y = rng.normal(size=(12, 12)) * (rng.random((12, 12)) < 0.4), rng.integers(3, size=12)
    codes[4] = 0
    shares = [
        sum(abs(c) for c, other in zip(row, y) if other != own) / max(abs(row).sum(), 1e-300)
        for row, own in zip(codes, y)
    ]
    assert subspace_preserving_error(form(codes), y) == pytest.approx(np.mean(shares))
    assert subspace_preserving_error(form(codes * (y[:, None] == y)), y) == 0
    with pytest.raises(ValueError, match="but y has n_samples=11"):
        subspace_preserving_error(form(codes), y[1:])
