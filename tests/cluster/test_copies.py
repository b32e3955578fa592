"""Rows that stand several times or nearly so, and fewer clusters than asked for, in the self-expressive clusterers."""

import re
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning

from sklowrank.cluster import (
    ElasticNetSubspaceClustering,
    LeastSquaresSubspaceClustering,
    LowRankRepresentationClustering,
    SparseSubspaceClustering,
    SparseSubspaceClusteringOMP,
    ThresholdedSubspaceClustering,
)
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.metrics import clustering_accuracy

MAKE = {
    "elastic net": ElasticNetSubspaceClustering,
    "elastic net, positive": partial(ElasticNetSubspaceClustering, positive=True, gamma=500.0),
    "least squares": LeastSquaresSubspaceClustering,
    "low rank": LowRankRepresentationClustering,
    "sparse": SparseSubspaceClustering,
    "sparse, affine": partial(SparseSubspaceClustering, affine=True),
    "pursuit": partial(SparseSubspaceClusteringOMP, n_nonzero_coefs=3),
    "thresholded": ThresholdedSubspaceClustering,
}
SIX = ["elastic net", "least squares", "low rank", "sparse", "pursuit", "thresholded"]
SIGNED = ["elastic net, positive", "sparse, affine"]  # where a row and its negative differ
each = pytest.mark.parametrize("name", SIX)


def build(name, **options):
    return MAKE[name](3, **{"n_dims": 3, "random_state": 0, **options})


@pytest.fixture(scope="module")
def clean():
    return make_union_of_subspaces(180, 20, n_dims=3, n_clusters=3, random_state=0)[:2]


def silent(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return model.fit(X)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("times", [2, 5])
def test_repeated_rows_do_not_tear_the_graph(name, times, clean):
    """Coded by its copy a row would need no other: accuracy 0.6 where each row stood twice."""
    X, y = clean
    model = silent(build(name), np.repeat(X, times, axis=0))
    assert clustering_accuracy(np.repeat(y, times), model.labels_) >= 0.99
    assert np.array_equal(model.labels_, np.repeat(model.labels_[::times], times))
    W, C = model.affinity_matrix_, model.representation_
    assert W.shape == C.shape == (180 * times, 180 * times)
    assert W.format == "csr"
    assert abs(W - W.T).max() < 1e-12
    assert not W.diagonal().any()
    once = build(name).fit(X)
    assert np.array_equal(model.labels_[::times], once.labels_)
    np.testing.assert_allclose(W.toarray()[::times, ::times], once.affinity_matrix_.toarray(), atol=1e-6)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multiples_and_negatives_do_not_tear_the_graph(name, dtype, clean):
    X, y = clean
    rng = np.random.default_rng(0)
    order = rng.permutation(720)
    factors = [1.0, 2.7 if name in SIGNED else -2.7, 0.01, 1e4]
    rows = np.concatenate([factor * X for factor in factors]).astype(dtype)[order]
    model = silent(build(name), rows)
    assert clustering_accuracy(np.tile(y, 4)[order], model.labels_) >= 0.99
    place = np.tile(np.arange(180), 4)[order]
    assert len({(k, label) for k, label in zip(place, model.labels_)}) == 180


@pytest.mark.parametrize("options", [{"normalize": False}, {"center": True}, {"n_pca": 9}, {"refine": "mixture"}])
@pytest.mark.parametrize("name", ["thresholded", "elastic net", "least squares"])
def test_copies_with_other_preparations(name, options, clean):
    X, y = clean
    model = build(name, **options).fit(np.vstack([X, X]))
    assert clustering_accuracy(np.tile(y, 2), model.labels_) >= 0.99
    assert np.array_equal(model.labels_[:180], model.labels_[180:])


@pytest.mark.parametrize("name", ["elastic net", "pursuit", "thresholded"])
def test_copies_in_csr(name, clean):
    X, _ = clean
    X = X * (np.abs(X) > 0.05)  # cells that are not stored
    rows = np.vstack([X, -3 * X])
    dense, sparse = (build(name).fit(form(rows)) for form in (np.asarray, sp.csr_matrix))
    assert np.array_equal(dense.labels_, sparse.labels_)
    assert np.array_equal(sparse.labels_[:180], sparse.labels_[180:])


@each
def test_copies_and_prediction_by_code(name, clean):
    X, y = clean
    rows = np.repeat(X, 3, axis=0)
    model = build(name, predict_method="code").fit(rows)
    labels = model.predict(np.vstack([rows, -X]))
    assert clustering_accuracy(np.r_[np.repeat(y, 3), y], labels) >= 0.99
    assert np.array_equal(labels[:540:3], labels[1:540:3])


@each
@pytest.mark.parametrize("far", [1e-8, 1e-5, 1e-3, 1e-2])
def test_nearly_equal_rows_lead_to_the_right_clusters_or_to_a_warning(name, far, clean):
    """A near copy codes a row nearly alone. Where that tears the graph, a warning names the pieces and the cause."""
    X, y = clean
    rows = np.repeat(X, 4, axis=0) + far * np.random.default_rng(0).normal(size=(720, 20))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        labels = build(name).fit(rows).labels_
    torn = [
        re.search(r"leave \d+ connected components for n_clusters=3, .* nearly equal", str(w.message)) for w in heard
    ]
    assert clustering_accuracy(np.repeat(y, 4), labels) >= 0.97 or any(torn)
    if name in ("thresholded", "pursuit", "sparse") and far in (1e-5, 1e-3):
        assert any(torn)
    if far == 1e-8 or name in ("least squares", "low rank"):
        assert not any(torn)


# Fewer clusters than asked for


def test_codes_that_all_vanish_are_warned_of():
    X = np.random.default_rng(0).normal(size=(200, 6))
    with pytest.warns(ConvergenceWarning, match="clusters found, 1, is smaller than n_clusters=2.*raise .*gamma"):
        ElasticNetSubspaceClustering(2, gamma=1.0, random_state=0).fit(X)
    with pytest.warns(ConvergenceWarning, match="clusters found, 1, is smaller than n_clusters=3.*30 connected"):
        ThresholdedSubspaceClustering(3, random_state=0).fit(np.eye(30))


@each
@pytest.mark.parametrize("n_distinct", [1, 2, 3])
def test_few_distinct_rows(name, n_distinct):
    """Each direction is a cluster of its own, and the rest of the clusters are missing, which is said."""
    which = np.repeat(np.arange(n_distinct), 6)
    X = np.random.default_rng(0).normal(size=(n_distinct, 7))[which]
    if n_distinct == 3:
        model = silent(build(name, n_dims=1), X)
    else:
        with pytest.warns(ConvergenceWarning, match=f"clusters found, {n_distinct}, is smaller than n_clusters=3"):
            model = build(name, n_dims=1).fit(X)
    assert clustering_accuracy(which, model.labels_) == 1
    assert clustering_accuracy(which, model.predict(X)) == 1


def test_rows_that_are_near_by_chance_are_not_warned_of():
    """Few atoms a row make sparse graphs, of which each cluster is one piece all the same."""
    X, y, _ = make_union_of_subspaces(300, 20, n_dims=3, n_clusters=3, random_state=0)
    model = silent(build("pursuit"), X)
    assert clustering_accuracy(y, model.labels_) == 1
