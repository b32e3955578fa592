"""Relative representations against their definition, the maps that they do not see, and their traps."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn import config_context
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.metric_learning import RelativeRepresentation, StitchedClassifier, relative_distance

SIMILARITIES = ("cosine", "euclidean", "rbf", "geodesic")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 6)) * [1, 2, 3, 1, 1, 0.1] + [3, -1, 0, 2, 5, 9]
AT = np.array([4, 70, 13, 2, 33, 61, 8, 29])
Q = np.linalg.qr(RNG.normal(size=(6, 6)))[0]


def relative(rows=X, fitted=None, **settings):
    settings = {"anchors": AT, **settings}
    return RelativeRepresentation(**settings).fit(rows if fitted is None else fitted, settings.get("y")).transform(rows)


def defined(rows, anchors, similarity, center=True):
    """The definition, one pair at a time."""
    mean = anchors.mean(0) * center
    m = len(anchors)
    apart = [np.linalg.norm(a - b) for i, a in enumerate(anchors) for j, b in enumerate(anchors) if i != j]
    out = np.zeros((len(rows), m))
    for i, row in enumerate(rows):
        for j, anchor in enumerate(anchors):
            u, v, d = row - mean, anchor - mean, np.linalg.norm(row - anchor)
            cosine = u @ v / (np.linalg.norm(u) * np.linalg.norm(v))
            out[i, j] = {
                "cosine": cosine,
                "euclidean": -d / np.mean(apart),
                "rbf": np.exp(-(d**2) / np.mean(np.square(apart))),
                "geodesic": 1 - 2 * np.arccos(np.clip(cosine, -1, 1)) / np.pi,
            }[similarity]
    return out


@pytest.fixture(scope="module")
def digits():
    pixels, y = load_digits(return_X_y=True)
    return train_test_split(pixels / 16, y, test_size=0.4, stratify=y, random_state=0)


# The definition, and what it does not see


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_similarities_are_those_of_the_definition(similarity, center):
    found = relative(similarity=similarity, center=center)
    error = np.abs(found - defined(X, X[AT], similarity, center))
    at_anchors = np.zeros_like(error, dtype=bool)
    at_anchors[AT, np.arange(len(AT))] = True
    assert error[~at_anchors].max() <= 1e-12
    assert error[at_anchors].max() <= 1e-6  # where a distance is zero it is known to the root of the precision


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_turned_scaled_and_shifted_rows_are_the_same(similarity):
    np.testing.assert_allclose(
        relative(3.7 * X @ Q + 5, similarity=similarity), relative(similarity=similarity), atol=1e-6
    )


def test_without_centring_a_shift_is_seen_and_a_rotation_is_not():
    raw = relative(center=False)
    np.testing.assert_allclose(relative(2 * X @ Q, center=False), raw, atol=1e-12)
    assert np.abs(relative(X + 5, center=False) - raw).max() > 0.1


def test_whitening_against_the_inverse_root_of_the_covariance():
    anchors, rows = X[:40], X[40:]
    mean, S = anchors.mean(0), np.cov(anchors.T, bias=True)
    value, vector = np.linalg.eigh(S + 1e-3 * np.trace(S) / 6 * np.eye(6))
    W = vector / np.sqrt(value) @ vector.T
    expected = defined((rows - mean) @ W, (anchors - mean) @ W, "cosine")
    found = RelativeRepresentation(40, anchors="first", whiten=True).fit(X).transform(rows)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_whitening_of_more_columns_than_anchors():
    wide = np.random.default_rng(1).normal(size=(30, 50))
    anchors, rows = wide[:10], wide[10:]
    mean, S = anchors.mean(0), np.cov(anchors.T, bias=True)
    value, vector = np.linalg.eigh(S + 1e-3 * np.trace(S) / 50 * np.eye(50))
    W = vector / np.sqrt(value) @ vector.T
    found = RelativeRepresentation(10, anchors="first", whiten=True).fit(wide).transform(rows)
    np.testing.assert_allclose(found, defined((rows - mean) @ W, (anchors - mean) @ W, "cosine"), atol=1e-9)


def test_whitening_undoes_any_linear_map_and_nothing_else_does():
    L = np.random.default_rng(2).normal(size=(6, 6))
    at = np.arange(60)
    off = [np.abs(relative(X @ L, anchors=at, whiten=w) - relative(anchors=at, whiten=w)).mean() for w in (True, False)]
    assert off[0] < 0.2 * off[1]


def test_a_list_concatenates_and_bins_round():
    model = RelativeRepresentation(anchors=AT, similarity=["rbf", "cosine"]).fit(X)
    both = np.hstack([relative(similarity="rbf"), relative()])
    np.testing.assert_allclose(model.transform(X), both, atol=1e-15)
    assert len(model.get_feature_names_out()) == 16
    binned = relative(quantize=0.25)
    assert np.array_equal(binned * 4, np.rint(binned * 4))
    assert np.abs(binned - relative()).max() <= 0.125 + 1e-12


# Stitching


def encoders(digits):
    """Name of a case, training and test rows of two encoders."""
    A, B, *_ = digits
    R = np.linalg.qr(np.random.RandomState(2).randn(64, 64))[0]
    pca = PCA(30, random_state=0).fit(A)
    yield "moved", (A, B), (3.7 * A @ R + 5, 3.7 * B @ R + 5)
    yield "widths", (pca.transform(A), pca.transform(B)), (A @ R + 2, B @ R + 2)


def test_a_classifier_works_for_the_other_encoder_where_absolute_rows_fail(digits):
    *_, a, b = digits
    at = np.random.RandomState(1).permutation(len(a))[:100]
    for _, (A, B), (C, D) in encoders(digits):
        head = LogisticRegression(C=10, max_iter=2000)
        model = StitchedClassifier(head, representation=RelativeRepresentation(anchors=at)).fit(A, a)
        adapted = model.adapt(C[at])
        assert adapted.score(D, b) >= 0.94
        assert adapted.n_features_in_ == D.shape[1]
        assert abs(adapted.score(D, b) - model.score(B, b)) <= 0.01
        if A.shape == C.shape:
            assert head.fit(A, a).score(D, b) <= 0.25


def test_anchors_have_to_be_the_same_things_in_the_same_order(digits):
    A, B, a, b = digits
    R = np.linalg.qr(np.random.RandomState(2).randn(64, 64))[0]

    def score(first, second):
        here, there = RelativeRepresentation(60, **first).fit(A), RelativeRepresentation(60, **second).fit(A @ R)
        return RidgeClassifier().fit(here.transform(A), a).score(there.transform(B @ R), b)

    at = np.arange(60)
    assert score({"random_state": 0}, {"random_state": 0}) > 0.85
    assert score({"random_state": 0}, {"random_state": 1}) < 0.3
    assert score({"anchors": at}, {"anchors": at[::-1]}) < 0.3


def test_adapt_leaves_the_model_and_refuses_other_numbers_of_rows():
    rows, y = load_iris(return_X_y=True)
    model = StitchedClassifier(representation=RelativeRepresentation(30, random_state=0)).fit(rows, y)
    before = model.predict_proba(rows)
    moved = rows[:, ::-1] * 2 - 3
    adapted = model.adapt(moved[model.anchor_indices_])
    np.testing.assert_allclose(adapted.predict_proba(moved), before, atol=1e-10)
    assert np.array_equal(adapted.anchor_indices_, model.anchor_indices_)
    narrow = adapted.adapt(rows[model.anchor_indices_, :2])
    assert (narrow.n_features_in_, adapted.n_features_in_, model.n_features_in_) == (2, 4, 4)
    assert np.array_equal(model.predict_proba(rows), before)
    with pytest.raises(ValueError, match="29 rows, and there are 30 anchors"):
        model.adapt(moved[model.anchor_indices_[1:]])
    with pytest.raises(NotFittedError):
        StitchedClassifier().adapt(moved)
    assert model.n_features_in_ == 4


def test_heads_without_probabilities_and_scaled_heads():
    rows, y = load_iris(return_X_y=True)
    representation = RelativeRepresentation(20, random_state=0)
    ridge = StitchedClassifier(RidgeClassifier(), representation=representation).fit(rows, y)
    assert not hasattr(ridge, "predict_proba")
    assert ridge.decision_function(rows).shape == (150, 3)
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    assert StitchedClassifier(scaled, representation=representation).fit(rows, y).score(rows, y) > 0.8
    assert not hasattr(representation, "anchors_")
    assert not hasattr(scaled[-1], "coef_")


def test_sparse_rows_are_classified_where_they_are_not_centred():
    rows, y = load_digits(return_X_y=True)
    rows, y = rows[:300] / 16, y[:300]
    representation = RelativeRepresentation(50, center=False, random_state=0)
    dense = StitchedClassifier(representation=representation).fit(rows, y)
    sparse = StitchedClassifier(representation=representation).fit(sp.csr_array(rows), y)
    assert np.array_equal(sparse.predict(sp.csr_array(rows)), dense.predict(rows))
    adapted = sparse.adapt(sp.csr_array(2 * rows)[sparse.anchor_indices_])
    assert np.array_equal(adapted.predict(sp.csr_array(2 * rows)), dense.predict(rows))


# Which rows are anchors


@pytest.mark.parametrize("how", ["random", "farthest", "kmeans", "stratified"])
def test_anchors_are_distinct_rows(how):
    y = np.arange(80) % 2
    model = RelativeRepresentation(20, anchor_selection=how, random_state=0).fit(X, y)
    assert len(set(model.anchor_indices_)) == 20
    assert np.array_equal(model.anchors_, X[model.anchor_indices_])
    copies = np.repeat(X[:5], 4, axis=0)
    found = RelativeRepresentation(12, anchor_selection=how, random_state=0).fit(copies, np.arange(20) % 2)
    assert len(set(found.anchor_indices_)) == 12
    if how in ("farthest", "kmeans"):  # each of the five different rows comes before its copies
        assert len(np.unique(found.anchors_[:5], axis=0)) == 5
    equal = RelativeRepresentation(6, anchor_selection=how, random_state=0).fit(np.ones((9, 3)), np.arange(9) % 2)
    assert len(set(equal.anchor_indices_)) == 6


def test_farthest_is_the_greedy_choice():
    chosen = [int(np.argmax(((X - X.mean(0)) ** 2).sum(1)))]
    for _ in range(9):
        chosen.append(int(np.argmax(np.min([((X - X[i]) ** 2).sum(1) for i in chosen], axis=0))))
    assert RelativeRepresentation(10, anchor_selection="farthest").fit(X).anchor_indices_.tolist() == chosen


def test_kmeans_takes_a_row_of_each_group():
    groups = np.arange(60) % 6
    rows = np.random.default_rng(0).normal(size=(60, 3)) + 50 * np.eye(6, 3)[groups] - 50 * np.eye(6, 3, -3)[groups]
    found = RelativeRepresentation(6, anchor_selection="kmeans", random_state=0).fit(rows)
    assert sorted(groups[found.anchor_indices_]) == list(range(6))


def test_stratified_gives_each_class_its_share():
    y = np.repeat(["a", "b", "c"], [10, 20, 50])
    found = RelativeRepresentation(16, anchor_selection="stratified", random_state=0).fit(X, y)
    counts = np.unique(y[found.anchor_indices_], return_counts=True)[1]
    assert counts.tolist() == [2, 4, 10]
    again = RelativeRepresentation(16, anchor_selection="stratified", random_state=1).fit(X, y)
    assert set(again.anchor_indices_) != set(found.anchor_indices_)


def test_numbers_of_anchors():
    assert len(RelativeRepresentation(0.25, random_state=0).fit(X).anchor_indices_) == 20
    assert len(RelativeRepresentation(1.0, random_state=0).fit(X).anchor_indices_) == 80
    assert len(RelativeRepresentation(1e-6, random_state=0).fit(X).anchor_indices_) == 1
    assert RelativeRepresentation(3, anchors="first").fit(X).anchor_indices_.tolist() == [0, 1, 2]
    with pytest.warns(UserWarning, match="n_anchors=100 is more than the 80 rows"):
        assert len(RelativeRepresentation().fit(X).anchor_indices_) == 80
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RelativeRepresentation(anchors=AT).fit(X)  # where n_anchors is not read


# Rows that are odd


def test_rows_at_the_mean_and_zero_rows_are_zeros():
    model = RelativeRepresentation(anchors=AT).fit(X)
    for similarity in ("cosine", "geodesic"):
        assert not model.set_params(similarity=similarity).transform(model.mean_[None]).any()
    raw = RelativeRepresentation(anchors=AT, center=False).fit(X)
    assert not raw.transform(np.zeros((1, 6))).any()
    assert not raw.mean_.any()


@pytest.mark.parametrize("value", [1.0, 0.1, 1e20])
def test_constant_features_change_nothing(value):
    wide = np.c_[X, np.full(80, value)]
    np.testing.assert_allclose(relative(wide), relative(), atol=1e-12)
    assert np.isfinite(relative(wide, whiten=True, similarity=list(SIMILARITIES))).all()


@pytest.mark.parametrize("settings", [{}, {"whiten": True}, {"center": False}])
def test_equal_rows_and_few_rows_are_finite(settings):
    every = list(SIMILARITIES)
    for rows in (np.full((5, 4), 0.1), X[:1], X[:2], np.zeros((3, 2))):
        model = RelativeRepresentation(1.0, similarity=every, **settings).fit(rows)
        assert np.isfinite(model.transform(rows)).all()
        assert np.isfinite(model.transform(rows + 1)).all()
    assert RelativeRepresentation(1, center=False).fit(X[:1]).transform(X[:1]) == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_float32_stays_and_scales(similarity, scale):
    expected = relative(similarity=similarity)
    single = relative((scale * X).astype(np.float32), similarity=similarity)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=2e-3 if similarity == "geodesic" else 1e-5)
    np.testing.assert_allclose(relative(scale**4 * X, similarity=similarity), expected, atol=1e-6)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_blocks_and_the_order_of_rows_change_nothing(similarity):
    expected = relative(similarity=similarity)
    tolerance = 1e-12 if similarity in ("cosine", "rbf") else 1e-7
    np.testing.assert_allclose(relative(similarity=similarity, batch_size=3), expected, atol=tolerance)
    order = np.random.default_rng(0).permutation(80)
    found = relative(X[order], X, similarity=similarity)
    np.testing.assert_allclose(found, expected[order], atol=tolerance)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_rows_are_those_of_the_dense_table(similarity, dtype):
    table = np.where(X > 1, X, 0).astype(dtype)
    dense = relative(table, similarity=similarity, center=False)
    for form in (sp.csr_matrix, sp.csc_array):
        found = relative(form(table), similarity=similarity, center=False, batch_size=7)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, dense, atol=1e-6 if dtype is np.float64 else 2e-3)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("how", ["random", "farthest", "kmeans", "stratified"])
def test_tensors_are_answered_where_they_are(how, device):
    settings = {"anchor_selection": how, "similarity": list(SIMILARITIES), "whiten": True, "random_state": 0}
    y = np.arange(80) % 2
    expected = RelativeRepresentation(10, **settings).fit(X, y)
    with config_context(array_api_dispatch=True):
        rows = torch.from_numpy(X).to(device)
        model = RelativeRepresentation(10, **settings).fit(rows, y)
        found = model.transform(rows)
    assert found.device.type == model.anchors_.device.type == device
    assert model.anchor_indices_.cpu().numpy().tolist() == expected.anchor_indices_.tolist()
    np.testing.assert_allclose(found.cpu().numpy(), expected.transform(X), atol=1e-6)


def test_nothing_is_computed_elsewhere():
    """Under a default device on which a tensor without a device would have no values."""
    settings = {"similarity": list(SIMILARITIES), "whiten": True, "anchor_selection": "farthest", "n_anchors": 10}
    expected = RelativeRepresentation(**settings).fit(X).transform(X)
    likeness = relative_distance(X, X @ Q, AT)
    with torch.device("meta"):
        found = RelativeRepresentation(**settings).fit(X).transform(X)
        assert relative_distance(X, X @ Q, AT) == likeness
    assert np.array_equal(found, expected)


# Two encoders, compared


def test_likenesses_against_a_slow_reference():
    rng = np.random.default_rng(3)
    P = rng.normal(size=(40, 5))
    S = np.c_[P[:, :3] + 0.3 * rng.normal(size=(40, 3)), rng.normal(size=(40, 4))]
    r, s = (defined(Z, Z[:10], "cosine") for Z in (P, S))
    r, s = (Z / np.linalg.norm(Z, axis=1, keepdims=True) for Z in (r, s))
    C = r @ s.T
    near = [np.argsort(-(Z @ Z.T - 9 * np.eye(40)), axis=1)[:, :4] for Z in (r, s)]
    found = relative_distance(P, S, range(10), n_neighbors=4)
    assert found.cosine == pytest.approx(np.diag(C).mean(), abs=1e-12)
    rank = [1 + np.sum(C[i] > C[i, i]) for i in range(40)]
    assert found.reciprocal_rank == pytest.approx(np.mean(1 / np.array(rank)), abs=1e-12)
    jaccard = [len({*p} & {*q}) / len({*p} | {*q}) for p, q in zip(*near)]
    assert found.jaccard == pytest.approx(np.mean(jaccard), abs=1e-12)


def test_images_of_a_table_are_like_it_and_shuffled_ones_are_not():
    same = relative_distance(X, 3 * X @ Q - 2, AT)
    assert list(same) == ["cosine", "reciprocal_rank", "jaccard"]
    assert min(same.values()) == pytest.approx(1, abs=1e-9)
    strange = relative_distance(X, X[np.random.default_rng(0).permutation(80)], AT)
    assert max(strange.values()) < 0.3
    single = relative_distance(X.astype(np.float32), X @ Q, AT)
    assert min(single.values()) > 0.95
    doubled = np.r_[X[:20], X[:20]]  # ties have the best rank
    assert relative_distance(doubled, doubled @ Q, range(8)).reciprocal_rank == 1


def test_few_rows_are_compared():
    assert relative_distance(X[:3], X[:3] @ Q, [0, 1, 2]).jaccard == 1
    with pytest.raises(ValueError, match="at least 2"):
        relative_distance(X[:1], X[:1], [0])


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_anchors": 0}, "n_anchors"),
        ({"n_anchors": 1.5}, "n_anchors"),
        ({"anchors": []}, "anchors has to be a list of at least one integer"),
        ({"anchors": [[0, 1]]}, r"anchors .* got shape \(1, 2\)"),
        ({"anchors": [0.5]}, "anchors .* type float64"),
        ({"anchors": np.ones(80, dtype=bool)}, "anchors .* type bool"),
        ({"anchors": [0, 80]}, "anchors has the index 80, and X has 80 rows"),
        ({"anchors": [-1]}, "anchors has the index -1"),
        ({"anchors": "last"}, "anchors"),
        ({"anchor_selection": "stratified"}, "needs the classes y"),
        ({"anchor_selection": "best"}, "anchor_selection"),
        ({"similarity": "dot"}, "similarity"),
        ({"similarity": ["cosine", "dot"]}, "similarity has 'dot'"),
        ({"similarity": []}, "similarity is empty"),
        ({"quantize": 0.0}, "quantize"),
    ],
)
def test_what_makes_no_anchors_is_refused_with_its_name(settings, message):
    with pytest.raises(ValueError, match=message):
        RelativeRepresentation(**{"n_anchors": 10, **settings}).fit(X)


def test_classes_of_stratified_anchors_are_checked():
    model = RelativeRepresentation(10, anchor_selection="stratified")
    with pytest.raises(ValueError, match="inconsistent"):
        model.fit(X, np.zeros(79, dtype=int))
    with pytest.raises(ValueError, match="Unknown label type"):
        model.fit(X, X[:, 0])


def test_sparse_rows_are_refused_with_the_cure():
    rows = sp.csr_array(X)
    with pytest.raises(TypeError, match="Pass center=False"):
        RelativeRepresentation(10).fit(rows)
    with pytest.raises(TypeError, match="Pass whiten=False"):
        RelativeRepresentation(10, center=False, whiten=True).fit(rows)
    with pytest.raises(ValueError, match="anchor_selection='farthest' needs dense rows"):
        RelativeRepresentation(10, center=False, anchor_selection="farthest").fit(rows)


def test_tables_of_other_lengths_are_not_compared():
    with pytest.raises(ValueError, match="inconsistent"):
        relative_distance(X[:50], X[:40], [0, 1])
    with pytest.raises(ValueError, match="n_neighbors"):
        relative_distance(X, X, [0, 1], n_neighbors=0)
