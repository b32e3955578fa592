"""Classification from one release per class: budgets, labels, counts, probabilities."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestCentroid

from sklowrank.privacy import PrivacyAccountant, PrivacyLeakWarning, PrivateSimilarityClassifier

DIGITS, LABELS = load_digits(return_X_y=True)
X, y = make_blobs(600, centers=3, n_features=4, cluster_std=1.0, random_state=0)


@pytest.fixture(autouse=True)
def _seeds_are_for_tests():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "random_state makes the noise reproducible", PrivacyLeakWarning)
        yield


def mean_kernels(rows, labels, queries, h):
    K = np.exp(-np.square(queries[:, None] - rows).sum(2) / (2 * h * h))
    return np.column_stack([K[:, labels == k].mean(1) for k in np.unique(labels)])


def test_without_noise_similarities_are_mean_kernels():
    model = PrivateSimilarityClassifier(
        epsilon=1e6, classes=[0, 1, 2], bandwidth=2.0, n_components=4096, random_state=0
    )
    model.fit(X, y)
    expected = mean_kernels(X, y, X[:50], 2.0)
    assert np.abs(model.class_similarities(X[:50]) - expected).max() < 0.05
    assert np.allclose(model.class_counts_, 200, atol=0.01)
    assert np.mean(model.predict(X) == mean_kernels(X, y, X, 2.0).argmax(1)) > 0.98


def test_linear_similarity_is_the_nearest_mean():
    params = {"similarity": "linear", "epsilon": 1e6, "classes": range(10), "random_state": 0}
    model = PrivateSimilarityClassifier(bounds=(0, 16), clip_norm=100.0, **params).fit(DIGITS, LABELS)
    exact = NearestCentroid().fit(DIGITS, LABELS)
    assert np.mean(model.predict(DIGITS) == exact.predict(DIGITS)) > 0.99
    embedding = DIGITS / np.linalg.norm(DIGITS, axis=1, keepdims=True)
    dense = PrivateSimilarityClassifier(**params).fit(embedding, LABELS)
    sparse = PrivateSimilarityClassifier(**params).fit(csr_matrix(embedding), LABELS)
    assert np.array_equal(dense.sketch_, sparse.sketch_)
    assert np.allclose(dense.decision_function(embedding), sparse.decision_function(csr_matrix(embedding)))
    with pytest.raises(ValueError, match="class_weighting has to be 'average'"):
        PrivateSimilarityClassifier(class_weighting="sum", **params).fit(embedding, LABELS)


def test_private_digits_are_far_better_than_chance():
    model = PrivateSimilarityClassifier(bounds=(0, 16), classes=range(10), random_state=0)
    assert model.fit(DIGITS[:1200], LABELS[:1200]).score(DIGITS[1200:], LABELS[1200:]) > 0.6
    pure = PrivateSimilarityClassifier(
        similarity="linear", delta=0.0, bounds=(0, 16), classes=range(10), random_state=0
    ).fit(DIGITS[:1200], LABELS[:1200])
    assert pure.score(DIGITS[1200:], LABELS[1200:]) > 0.3


def test_each_class_spends_the_whole_budget_and_has_noise_of_its_own():
    model = PrivateSimilarityClassifier(classes=range(9), bandwidth=2.0, n_components=512)
    blank = model.fit(X[:200], np.zeros(200, int)).sketch_[1:]
    assert blank.std() == pytest.approx(model.noise_scale_, rel=0.04)
    assert model.noise_std_ == pytest.approx(4.531 * math.sqrt(1 + 0.5**2), rel=1e-3)
    C = np.corrcoef(blank)
    assert np.abs(C[~np.eye(8, dtype=bool)]).max() < 0.16
    purse = PrivacyAccountant(epsilon=1.0)
    model.set_params(accountant=purse).fit(X, y)
    assert len(purse.history) == 1


@pytest.mark.parametrize("adjacency", ["add_remove", "substitute"])
@pytest.mark.parametrize("similarity", ["gaussian", "linear"])
def test_sizes_of_classes_are_never_exact(adjacency, similarity):
    """With a label in place of another the number of rows is the same, and the sizes of the classes are not."""
    params = {"classes": [0, 1, 2], "bandwidth": 2.0, "n_components": 16, "similarity": similarity}
    fits = [PrivateSimilarityClassifier(adjacency=adjacency, random_state=s, **params).fit(X, y) for s in range(60)]
    counts = np.array([model.class_counts_ for model in fits])
    sigma = fits[0].noise_scale_ / 0.5
    assert counts.std() == pytest.approx(sigma, rel=0.25)
    assert counts.mean() == pytest.approx(200, abs=4 * sigma / math.sqrt(180))
    assert (fits[0].n_samples_ == 600) == (adjacency == "substitute")


def test_probabilities_decisions_and_predictions_agree():
    for weighting in ("average", "sum", [1.0, 2.0, 3.0]):
        model = PrivateSimilarityClassifier(
            epsilon=0.2, classes=[0, 1, 2], class_weighting=weighting, bandwidth=1.0, n_components=64, random_state=0
        ).fit(X, y)
        P, D = model.predict_proba(X), model.decision_function(X)
        assert np.allclose(P.sum(1), 1)
        assert P.min() > 0
        assert np.array_equal(P.argmax(1), model.predict(X))
        assert np.array_equal(D.argmax(1), model.predict(X))
        assert np.allclose(model.predict_log_proba(X), np.log(P))
    with pytest.raises(ValueError, match="3 numbers above 0"):
        model.set_params(class_weighting=[1.0, 2.0]).predict(X)
    two = PrivateSimilarityClassifier(classes=[0, 1], bandwidth=1.0, random_state=0).fit(X[y < 2], y[y < 2])
    P = two.predict_proba(X)
    assert np.allclose(two.decision_function(X), np.log(P[:, 1] / P[:, 0]))
    one = PrivateSimilarityClassifier(classes=["only"], bandwidth=1.0).fit(X, ["only"] * 600)
    assert set(one.predict(X)) == {"only"}


def test_priors_weight_the_mean_similarities():
    params = {"epsilon": 1e6, "classes": [0, 1, 2], "bandwidth": 2.0, "random_state": 0}
    some = np.r_[np.flatnonzero(y == 0)[:20], np.flatnonzero(y > 0)]
    average = PrivateSimilarityClassifier(**params).fit(X[some], y[some])
    weighted = PrivateSimilarityClassifier(class_weighting="sum", **params).fit(X[some], y[some])
    assert np.allclose(weighted.decision_function(X), average.class_similarities(X) * weighted.class_counts_)


def test_labels_are_not_told():
    names = np.array(["common"] * 599 + ["Ms Hidden"])
    with pytest.raises(ValueError, match="labels that are not among classes") as caught:
        PrivateSimilarityClassifier(classes=["common", "other"]).fit(X, names)
    assert "Hidden" not in str(caught.value)
    with pytest.warns(PrivacyLeakWarning, match="classes are read from y"):
        model = PrivateSimilarityClassifier().fit(X, names)
    assert list(model.classes_) == ["Ms Hidden", "common"]


def test_nothing_of_the_rows_is_kept():
    params = {"classes": [0, 1, 2], "bandwidth": 1.0, "n_components": 16, "feature_random_state": 0}
    for similarity in ("gaussian", "linear"):
        one, two = (
            vars(pickle.loads(pickle.dumps(PrivateSimilarityClassifier(similarity=similarity, **params).fit(*data))))
            for data in ((X, y), (X[:-1], y[:-1]))
        )
        for name in one.keys() - {"sketch_", "n_samples_", "class_counts_"}:
            assert pickle.dumps(one[name]) == pickle.dumps(two[name]), name


@pytest.mark.parametrize("similarity", ["gaussian", "linear"])
def test_pieces_and_other_holders(similarity):
    params = {"epsilon": 30.0, "bandwidth": 2.0, "feature_random_state": 0, "similarity": similarity, "clip_norm": 20.0}
    pieces = PrivateSimilarityClassifier(**params).partial_fit(X[:300], y[:300], classes=[0, 1, 2])
    first = pieces.noise_std_
    pieces.partial_fit(X[300:], y[300:])
    assert pieces.noise_std_ == pytest.approx(first * math.sqrt(2))
    assert pieces.class_counts_.sum() == pytest.approx(600, rel=0.05)
    assert pieces.score(X, y) > 0.85
    assert pieces.privacy_spent_.n_releases == 2
    known = {**params, "classes": [0, 1, 2]}
    here, there = (PrivateSimilarityClassifier(**known).fit(X[s], y[s]) for s in (slice(0, 300), slice(300, 600)))
    assert here.merge(there).score(X, y) > 0.85
    assert here.class_counts_.sum() == pytest.approx(600, rel=0.05)
    for same in (here, there, copy.deepcopy(here)):
        with pytest.raises(ValueError, match="have a release in common"):
            here.merge(same)
    with pytest.raises(ValueError, match="same classes"):
        here.merge(PrivateSimilarityClassifier(**{**known, "classes": [0, 1, 2, 3]}).fit(X, y))


def test_later_releases_are_of_the_kind_of_the_first():
    model = PrivateSimilarityClassifier(classes=[0, 1, 2], bandwidth=2.0, epsilon=30.0).fit(X[:300], y[:300])
    shape = model.sketch_.shape
    model.set_params(similarity="linear", bandwidth=9.0).partial_fit(X[300:], y[300:])
    assert model.sketch_.shape == shape
    assert model.score(X, y) > 0.85
    model.fit(X, y)
    assert not hasattr(model, "frequencies_")
    assert model.sketch_.shape == (3, 4)


def test_bandwidth_follows_the_bounds():
    scaled = PrivateSimilarityClassifier(bounds=(0, 16), classes=range(10), random_state=0).fit(DIGITS, LABELS)
    plain = PrivateSimilarityClassifier(bounds=(0, 16), bandwidth=0.15 * 8 * 16, classes=range(10), random_state=0).fit(
        DIGITS, LABELS
    )
    assert np.array_equal(scaled.sketch_, plain.sketch_)
    with pytest.raises(ValueError, match="looking at the private rows"):
        PrivateSimilarityClassifier(bandwidth="scott").fit(X, y)


def test_a_bandwidth_for_each_column_is_a_change_of_units():
    units, params = np.array([1.0, 1000.0, 0.01, 1.0]), {"classes": [0, 1, 2], "random_state": 0}
    plain = PrivateSimilarityClassifier(bandwidth=1.0, **params).fit(X, y)
    scaled = PrivateSimilarityClassifier(bandwidth=units, **params).fit(X * units, y)
    assert np.allclose(plain.predict_proba(X), scaled.predict_proba(X * units), atol=1e-2)
    with pytest.raises(ValueError, match="one for each of 4 columns"):
        PrivateSimilarityClassifier(bandwidth=[1.0, 2.0, 3.0], **params).fit(X, y)


def test_grid_search():
    model = PrivateSimilarityClassifier(epsilon=5.0, classes=[0, 1, 2], random_state=0)
    search = GridSearchCV(model, {"bandwidth": [0.01, 2.0]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_params_ == {"bandwidth": 2.0}


def test_a_bandwidth_that_does_not_fit_the_units_is_told_from_the_release():
    rng = np.random.default_rng(0)
    ages, incomes = rng.uniform(18, 90, 3000), rng.uniform(1e4, 1e5, 3000)
    X, y, bounds = np.column_stack([ages, incomes]), np.where(ages > 50, "old", "young"), ([18, 0], [100, 200_000])

    def warned(**params):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            PrivateSimilarityClassifier(random_state=0, classes=["old", "young"], **params).fit(X, y)
        return any("indistinguishable from noise" in str(w.message) for w in seen)

    assert warned()
    assert warned(bandwidth=0.15, bounds=bounds)
    assert not warned(bounds=bounds)
    assert not warned(bandwidth=[10.0, 25_000.0])
    assert not warned(similarity="linear")
