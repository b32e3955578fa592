"""Separability by persistence: single linkage by scipy, statistics by numpy, and what the score has to see."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn import config_context
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize
from sklearn.random_projection import GaussianRandomProjection

from sklowrank._math import spanning_tree
from sklowrank.topology import PersistenceSeparability, persistence_separability_score

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
STATISTICS = ["mean", "gap", "components"]
SPREADS = (0, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8)


def groups(spread, n_groups=4, n=600, seed=0):
    """Round groups in 16 dimensions, and which row is of which."""
    r = np.random.RandomState(seed)
    centres = np.linalg.qr(np.random.RandomState(5).randn(16, 16))[0][:n_groups]
    y = r.randint(n_groups, size=n)
    return 1.414 * spread * centres[y] + 0.7 * r.randn(n, 16), y


def score(X, **parameters):
    return persistence_separability_score(X, random_state=0, **parameters)


# A slow reference


def statistic_of(X, statistic, metric="euclidean"):
    """The statistic, its sequence of bars and the number of groups, by loops over a tree of scipy."""
    links = linkage(X, "single", metric)
    sizes = [1] * len(X) + list(links[:, 3])
    bars = np.sort(links[:, 2])[::-1]
    sequence = list(bars)
    if statistic == "components":
        floor, least = np.quantile(bars, 0.9), max(2, np.ceil(0.01 * len(X)))
        large = [h for a, b, h, _ in links if min(sizes[int(a)], sizes[int(b)]) >= least]
        sequence = sorted((max(h, floor) for h in large), reverse=True) + [floor] * 20
    drops = [sequence[k] - sequence[k + 1] for k in range(min(20, len(sequence) - 1))]
    k = int(np.argmax(drops))
    stands_out = drops[k] > 3 * np.median(drops) and drops[k] > 0.1 * sequence[0]
    value = 1 - bars.mean() / bars.max() if statistic == "mean" else drops[k] / sequence[0]
    return value, (sequence[k] + sequence[k + 1]) / 2, k + 2 if stands_out else None


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("spread", [0, 2, 6])
@pytest.mark.parametrize("metric", ["euclidean", "cityblock", "cosine"])
def test_agrees_with_the_reference(statistic, spread, metric):
    X, _ = groups(spread, n=200)
    model = PersistenceSeparability(statistic, metric=metric, calibrate=False).fit(X)
    value, threshold, number = statistic_of(normalize(X - X.mean(0)), statistic, metric)
    assert model.score_ == pytest.approx(value, abs=1e-9)
    assert model.threshold_ == pytest.approx(threshold, abs=1e-9)
    assert model.n_components_estimate_ == number


def test_calibration_is_the_score_against_permuted_columns():
    """Some permutations by numpy have the baseline that ours has, up to their spread."""
    X, _ = groups(3)
    model = PersistenceSeparability(random_state=0).fit(X)
    bare = PersistenceSeparability(calibrate=False).fit(X)
    assert model.score_ == pytest.approx((bare.score_ - model.baseline_) / (1 - model.baseline_), abs=1e-12)
    r = np.random.RandomState(0)
    tables = [np.column_stack([r.permutation(column) for column in X.T]) for _ in range(8)]
    baselines = [score(table, calibrate=False) for table in tables]
    assert abs(model.baseline_ - np.mean(baselines)) <= 4 * np.std(baselines)
    repeated = PersistenceSeparability(n_repeats=20, random_state=0).fit(X)
    assert abs(repeated.score_ - (bare.score_ - np.mean(baselines)) / (1 - np.mean(baselines))) <= 2 * np.std(baselines)


# What it is for


@pytest.mark.parametrize("n_groups", [2, 4])
def test_the_score_follows_the_true_separation(n_groups):
    tables = [groups(spread, n_groups)[0] for spread in SPREADS]
    ours = [score(X) for X in tables]
    assert spearmanr(ours, SPREADS)[0] >= 0.95
    assert ours[0] <= 0.1
    assert ours[-1] >= 0.5
    assert np.ptp([score(X, calibrate=False) for X in tables]) >= 0.5
    assert spearmanr([score(X, statistic="components", calibrate=False) for X in tables], SPREADS)[0] >= 0.9
    found = [PersistenceSeparability(calibrate=False).fit(X).n_components_estimate_ for X in tables]
    assert found[:3] == [None] * 3
    assert found[-3:] == [n_groups] * 3


def test_it_ranks_embeddings_of_different_dimension_where_silhouettes_do_not():
    X, y = load_digits(return_X_y=True)
    X, y, g = X[:600], y[:600], np.random.RandomState(0)
    noisy = [X + noise * g.randn(*X.shape) for noise in (0, 3, 8, 16)]
    projected = [GaussianRandomProjection(k, random_state=0).fit_transform(X) for k in (2, 5, 20)]
    versions = [*noisy, *projected, PCA(10).fit_transform(X)]
    accuracy = [cross_val_score(KNeighborsClassifier(5), E, y, cv=3).mean() for E in versions]
    ours = spearmanr([score(E) for E in versions], accuracy)[0]
    silhouettes = [silhouette_score(E, KMeans(10, n_init=1, random_state=0).fit_predict(E)) for E in versions]
    assert ours >= 0.65
    assert ours >= spearmanr(silhouettes, accuracy)[0] + 0.15


@pytest.mark.parametrize("n_features", [5, 16, 50])
def test_noise_is_not_separable(n_features):
    """Without calibration the score of noise is 0.1 to 0.9, by its dimension."""
    X = np.random.RandomState(1).randn(500, n_features)
    model = PersistenceSeparability(random_state=0).fit(X)
    assert model.score_ <= 0.1
    assert model.n_components_estimate_ is None


@pytest.mark.parametrize("statistic", STATISTICS)
def test_cutting_at_the_threshold_gives_the_groups(statistic):
    X, y = groups(6)
    model = PersistenceSeparability(statistic, random_state=0).fit(X)
    labels = fcluster(linkage(normalize(X - X.mean(0)), "single"), model.threshold_, "distance")
    assert len(np.unique(labels)) == model.n_components_estimate_ == 4
    assert adjusted_rand_score(y, labels) == 1


# Traps


def test_one_outlier():
    """It breaks "mean" where rows keep their norms, hardly where they are normalised, and "components" never."""
    X, _ = groups(5)
    lone = np.vstack([X, X.mean(0) + 35 * np.eye(16)[0]])
    bare = {"normalize": False, "calibrate": False}
    assert score(lone, **bare) - score(X, **bare) >= 0.15
    assert abs(score(lone, calibrate=False) - score(X, calibrate=False)) <= 0.05
    components = {"statistic": "components", "normalize": False}
    assert abs(score(lone, **components) - score(X, **components)) <= 0.05
    model = PersistenceSeparability(**components, random_state=0).fit(lone)
    assert model.n_components_estimate_ == 4
    assert 3 <= np.sum(model.persistence_ > model.threshold_) <= 4


def test_duplicates_have_bars_of_length_zero():
    X = np.random.RandomState(0).randn(100, 5)
    model = PersistenceSeparability(normalize=False).fit(np.vstack([X, X[:40]]))
    assert model.persistence_.shape == (139,)
    assert np.sum(model.persistence_ == 0) == 40
    assert np.allclose(model.persistence_[:99], np.sort(linkage(X, "single")[:, 2])[::-1], atol=1e-12)


def test_equal_rows_score_zero_with_a_warning():
    for X in (np.ones((20, 3)), np.full((20, 3), 0.1), np.zeros((20, 3))):
        with pytest.warns(UserWarning, match="rows are equal"):
            model = PersistenceSeparability().fit(X)
        assert model.score_ == 0
        assert model.n_components_estimate_ is None
        assert not model.persistence_.any()


@pytest.mark.parametrize("statistic", STATISTICS)
def test_two_rows_have_one_bar(statistic):
    X = np.random.RandomState(0).randn(2, 3)
    model = PersistenceSeparability(statistic, calibrate=False).fit(X)
    assert model.persistence_.shape == (1,)
    assert model.score_ == 0
    assert model.n_components_estimate_ is None


def test_a_row_that_is_the_mean_stays_in_the_middle():
    X = np.vstack([np.eye(3), -np.eye(3), np.zeros((1, 3))]) + 0.1
    model = PersistenceSeparability(calibrate=False).fit(X)
    assert np.allclose(model.persistence_, 1)  # and is not thrown onto the sphere by rounding


@pytest.mark.parametrize("scale", [1e-150, 1e-25, 1e3, 1e25, 1e150])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_scale_changes_nothing_but_the_bars(scale, statistic):
    X, _ = groups(3, n=150)
    for normalized in (True, False):
        base = PersistenceSeparability(statistic, normalize=normalized, random_state=0).fit(X)
        model = PersistenceSeparability(statistic, normalize=normalized, random_state=0).fit(scale * X)
        assert model.score_ == pytest.approx(base.score_, abs=1e-9)
        unit = 1 if normalized else scale
        assert np.allclose(model.persistence_ / unit, base.persistence_, rtol=1e-9, atol=0)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", ["groups", "iris"])
def test_order_of_rows_changes_nothing(statistic, name):
    X = groups(3)[0] if name == "groups" else load_iris().data
    order = np.random.default_rng(0).permutation(len(X))
    model, other = (PersistenceSeparability(statistic, random_state=0).fit(rows) for rows in (X, X[order]))
    assert other.score_ == pytest.approx(model.score_, abs=1e-9)
    assert other.baseline_ == pytest.approx(model.baseline_, abs=1e-9)
    assert other.n_components_estimate_ == model.n_components_estimate_


def test_rotations_and_shifts_change_nothing():
    X, _ = groups(3)
    Q = np.linalg.qr(np.random.RandomState(0).randn(16, 16))[0]
    assert score(X @ Q + 3, calibrate=False) == pytest.approx(score(X, calibrate=False), abs=1e-9)


def test_block_size_changes_nothing(monkeypatch):
    X, _ = groups(3)
    expected = score(X)
    monkeypatch.setattr(spanning_tree, "rows_per_block", lambda batch_size, n, size: min(n, 7))
    assert score(X) == pytest.approx(expected, abs=1e-12)


def test_float32_is_computed_in_float64():
    X = groups(3)[0].astype(np.float32)
    model = PersistenceSeparability(random_state=0).fit(X)
    double = PersistenceSeparability(random_state=0).fit(X.astype(np.float64))
    assert model.persistence_.dtype == np.float32
    assert model.score_ == double.score_


# Input


def test_sparse_rows_are_scored_as_dense_ones():
    S = sp.random(200, 30, density=0.2, random_state=0, format="csr")
    S.data -= 0.3  # of both signs
    S = sp.vstack([S, S[:20]]).tocsr()
    for parameters in (
        {},
        {"normalize": False},
        {"statistic": "components"},
        {"normalize": False, "metric": "cityblock"},
    ):
        sparse, dense = (PersistenceSeparability(random_state=0, **parameters).fit(X) for X in (S, S.toarray()))
        assert sparse.score_ == pytest.approx(dense.score_, abs=1e-9)
        assert np.allclose(sparse.persistence_, dense.persistence_, atol=1e-9)
    with pytest.raises(ValueError, match=r"metric='cityblock'.*normalize=False"):
        PersistenceSeparability(metric="cityblock").fit(S)


def test_sparse_rows_are_never_made_dense(monkeypatch):
    """Blocks of distances are, in which one side is not all rows."""
    r = np.random.default_rng(0)
    cells = r.normal(size=30_000), (r.integers(3000, size=30_000), r.integers(40_000, size=30_000))
    X = sp.csr_array(cells, shape=(3000, 40_000))
    widest, toarray = [], sp.csr_array.toarray

    def measured(self, *args, **kwargs):
        widest.append(self.shape[1])
        return toarray(self, *args, **kwargs)

    monkeypatch.setattr(sp.csr_array, "toarray", measured)
    PersistenceSeparability(max_samples=300, calibrate=False, random_state=0).fit(X)
    assert set(widest) == {300}


def test_distances():
    X, _ = groups(4, n=150)
    D = cdist(X, X)
    model = PersistenceSeparability(metric="precomputed").fit(D)
    rows = PersistenceSeparability(normalize=False, calibrate=False).fit(X)
    assert np.allclose(model.persistence_, rows.persistence_, atol=1e-12)
    assert (model.score_, model.baseline_) == (pytest.approx(rows.score_), 0)
    assert model.score(D[:50, :50]) == pytest.approx(score(X[:50], normalize=False, calibrate=False))
    part = PersistenceSeparability(metric="precomputed", max_samples=40, random_state=0).fit(D)
    assert part.persistence_.shape == (39,)
    D[0, 1] += 1
    with pytest.raises(ValueError, match="symmetric"):
        clone(model).fit(D)
    with pytest.raises(ValueError, match="square"):
        clone(model).fit(D[:10])
    with pytest.raises(ValueError, match=r"distance of a row to itself is up to 1.*1 - X for similarities"):
        clone(model).fit(np.exp(-cdist(X, X)))
    with pytest.raises(ValueError, match="least entry is -1"):
        clone(model).fit(-np.ones((3, 3)))
    with pytest.raises(ValueError, match="calibrate=True"):
        PersistenceSeparability(metric="precomputed", calibrate=True).fit(D)


def test_a_function_as_metric():
    X, _ = groups(4, n=40)
    model = PersistenceSeparability(metric=lambda a, b: np.abs(a - b).sum(), calibrate=False).fit(X)
    city = PersistenceSeparability(metric="cityblock", calibrate=False).fit(X)
    assert np.allclose(model.persistence_, city.persistence_)
    with pytest.raises(ValueError, match=r"metric='correlation'.*not finite"):
        PersistenceSeparability(metric="correlation", normalize=False).fit(np.vstack([X, np.ones((1, 16))]))


@pytest.mark.parametrize(
    ("function", "text"),
    [(lambda a, b: (a - b).sum(), "never negative"), (lambda a, b: 1 + a[0] ** 2 * abs(b[0]), "symmetric")],
)
def test_functions_that_give_no_distances_are_refused(function, text):
    with pytest.raises(ValueError, match=text):
        PersistenceSeparability(metric=function).fit(groups(4, n=40)[0])


@pytest.mark.parametrize("metric", ["jaccard", "dice", "hamming", "russellrao"])
def test_metrics_of_cells_need_them_as_they_are(metric):
    X = groups(4, n=80)[0] > 0.5
    X = X[X.any(1)]
    with pytest.raises(ValueError, match=rf"metric='{metric}'.*normalize=False"):
        PersistenceSeparability(metric=metric).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PersistenceSeparability(metric=metric, normalize=False, calibrate=False).fit(X)
    assert np.allclose(model.persistence_, linkage(X, metric=metric)[::-1, 2])


def test_metrics_that_do_not_suit_the_table_are_refused():
    X = groups(4, n=40)[0]
    with pytest.raises(ValueError, match=r"metric='canberra' needs dense X.*toarray"):
        PersistenceSeparability(metric="canberra", normalize=False).fit(sp.csr_array(X))
    with pytest.raises(ValueError, match="needs two columns"):
        PersistenceSeparability(metric="haversine", normalize=False).fit(X)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1.0, 1e300])
def test_scale_of_sparse_rows_changes_nothing_but_the_bars(scale, normalize):
    X = groups(4, n=100)[0]
    X = np.vstack([X, X[:5]])
    dense = PersistenceSeparability(normalize=normalize, random_state=0).fit(X)
    sparse = PersistenceSeparability(normalize=normalize, random_state=0).fit(sp.csr_array(scale * X))
    assert sparse.score_ == pytest.approx(dense.score_, abs=1e-9)
    assert sparse.n_components_estimate_ == dense.n_components_estimate_
    assert (sparse.persistence_[-5:] == 0).all()  # copies


def test_rows_that_are_drawn():
    X, _ = groups(4, n=1500)
    model = PersistenceSeparability(max_samples=300, random_state=0).fit(X)
    assert model.persistence_.shape == (299,)
    assert clone(model).fit(X).score_ == model.score_ == model.score(X) == model.score()
    one = [score(X, max_samples=300, calibrate=False, n_repeats=r) for r in (1, 20)]
    part = {"max_samples": 300, "calibrate": False, "random_state": 1}
    other = [persistence_separability_score(X, n_repeats=r, **part) for r in (1, 20)]
    assert abs(one[1] - other[1]) < abs(one[0] - other[0])
    all_rows = score(X, max_samples=None, calibrate=False)
    assert score(X, max_samples=5000, calibrate=False) == all_rows
    assert abs(one[1] - all_rows) < 0.12


def test_score_of_other_rows_is_theirs_alone():
    X, _ = groups(4)
    model = PersistenceSeparability(random_state=0).fit(X)
    before = dict(vars(model))
    assert model.score(X[:100], np.arange(100)) == score(X[:100])
    assert vars(model) == before
    with pytest.raises(ValueError, match="16 features"):
        model.score(X[:, :3])


def test_search_without_labels():
    X = np.hstack([load_iris().data, 2 * np.random.RandomState(0).randn(150, 12)])
    frame = pd.DataFrame(X).rename(columns=str)
    pipe = make_pipeline(PCA(random_state=0), PersistenceSeparability(random_state=0))
    search = GridSearchCV(pipe, {"pca__n_components": [1, 4, 16]}, cv=3, error_score="raise").fit(frame)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_[-1].score_ >= 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_devices_agree(statistic, device):
    X, _ = groups(3)
    expected = PersistenceSeparability(statistic, device="cpu", random_state=0).fit(X)
    with config_context(array_api_dispatch=True):
        model = PersistenceSeparability(statistic, random_state=0).fit(torch.from_numpy(X).to(device))
    assert model.persistence_.device.type == device
    assert np.allclose(model.persistence_.cpu().numpy(), expected.persistence_, atol=1e-9)
    assert model.score_ == pytest.approx(expected.score_, abs=1e-9)


def test_no_warning_on_ordinary_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PersistenceSeparability(n_repeats=2, max_samples=100, random_state=0).fit(groups(3)[0])
    assert model.score_ > 0
