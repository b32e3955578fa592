"""Rows in memory, in blocks and on a cluster: the same fits, and the same answers."""

import os
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from benchmarks.scale import Killer
from sklowrank._core import rows
from sklowrank._nets.wrapping import CalibratedNetwork
from sklowrank.cluster import KSubspaces, SparseSubspaceClustering, _k_subspaces_starts
from sklowrank.compress import FeatureMimickingCompressor, KVCacheCompressor, LowRankCompensator, LowRankCompressor
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.decomposition import MatryoshkaProjection, SupervisedDictionaryLearning, SupervisedDictionaryRegressor
from sklowrank.dimension_reduction import LinearFrechetSDR
from sklowrank.impute import MatrixCompletionImputer
from sklowrank.metric_learning import RelativeRepresentation
from sklowrank.mixture import LowRankGaussianMixture, _problem
from sklowrank.neural import NetworkClassifier
from sklowrank.privacy import PrivateDistanceSum, PrivateKernelDensity, PrivateSimilarityClassifier
from sklowrank.recommend import MatrixFactorizationRegressor

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
dd = pytest.importorskip("dask.dataframe")
from dask.distributed import Client, LocalCluster  # noqa: E402

from sklowrank import distributed  # noqa: E402

CHUNKS = (300, 700, 1, 499)  # rows of partitions, a single row among them
N = sum(CHUNKS)
AGREE = 1e-8  # relative: sums in another order differ by rounding, which no fit here magnifies ten million times
NETWORKS_AGREE = 1e-5  # they compute in float32


@pytest.fixture(autouse=True)
def few_rows_to_start_from(monkeypatch):
    """Clusterings start from 500 rows instead of 5000, so that so few rows are read in blocks at all."""
    for module in (_problem, _k_subspaces_starts):
        monkeypatch.setattr(module, "MOST_ROWS", 500)


def flats():
    return make_union_of_subspaces(N, n_features=12, n_clusters=3, n_dims=2, noise=0.2, affine=True, random_state=0)[0]


def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 8)) @ rng.normal(size=(8, 8)) + 3
    return X, X[:, 0] - 0.5 * X[:, 1] + rng.normal(size=N)


def with_holes():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, 2)) @ rng.normal(size=(2, 10)) + 0.1 * rng.normal(size=(N, 10)) + 5
    X[rng.random(X.shape) < 0.3] = np.nan
    X[7] = np.nan  # a row of which nothing is known
    return X


def pairs():
    rng = np.random.default_rng(2)
    X = np.column_stack([rng.integers(0, 300, N), rng.integers(0, 40, N), rng.normal(size=N)])
    U, V = rng.normal(size=(300, 2)), rng.normal(size=(40, 2))
    i, j = X[:, 0].astype(int), X[:, 1].astype(int)
    return X, (U[i] * V[j]).sum(1) + 0.5 * X[:, 2] + 0.1 * rng.normal(size=N) + 4


def labelled():
    X, y = table()
    return X, np.where(y > y.mean(), "high", "low")


def three_classes():
    X, y = table()
    return X, np.digitize(y, np.quantile(y, [0.3, 0.7]))


def identifiers():
    return np.random.default_rng(3).integers(0, 50, (N, 3)), None


class Clicks(nn.Module):
    """Identifiers are looked up in one table."""

    def __init__(self):
        super().__init__()
        single = {"dtype": torch.float32}
        self.table, self.first = nn.Embedding(50, 16, **single), nn.Linear(48, 32, **single)
        self.second, self.last = nn.Linear(32, 32, **single), nn.Linear(32, 2, **single)

    def forward(self, x):
        return self.last(torch.relu(self.second(torch.relu(self.first(self.table(x).flatten(1))))))


class Attentive(nn.Module):
    """Identifiers are tokens."""

    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(50, 16, dtype=torch.float32), nn.Linear(16, 2, dtype=torch.float32)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True, dtype=torch.float32)

    def forward(self, x):
        x = self.table(x)
        return self.last((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def of_seed(module):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return module()


def network():
    """A fitted network behind a scaler, and a fitted linear model."""
    X, y = labelled()
    layers = {"hidden_layer_sizes": (32, 32), "max_iter": 3, "tol": 0}
    small = make_pipeline(StandardScaler(), NetworkClassifier(**layers, random_state=0)).fit(X[:200], y[:200])
    return FrozenEstimator(small), FrozenEstimator(LogisticRegression().fit(X, y))


def unlabelled():
    return table()[0], None


SEED = {"random_state": 0}
EVERY_ROW = {"n_calibration": None}
NETWORK, LINEAR = network()
NARROW = FrozenEstimator(
    NetworkClassifier((16, 16), max_iter=1, tol=0, **SEED).fit(table()[0][:200, :5], labelled()[1][:200])
)
PRIVATE = {"random_state": 0, "epsilon": 1.0, "bounds": (-20, 20)}
CASES = {
    "mixture": (LowRankGaussianMixture(3, n_dims=2, tol=1e-10, **SEED), lambda: (flats(), None)),
    "mixture, own noise": (LowRankGaussianMixture(3, noise="component", tol=1e-10, **SEED), lambda: (flats(), None)),
    "mixture, denoiser": (
        LowRankGaussianMixture(3, n_dims=2, solver="diffusion", solver_params={"max_steps": 5}, **SEED),
        lambda: (flats(), None),
    ),
    "K-subspaces": (KSubspaces(3, n_dims=2, **SEED), lambda: (flats(), None)),
    "K-subspaces through the origin": (
        KSubspaces(4, n_dims=[1, 2, 2, 3], affine=False, **SEED),
        lambda: (flats(), None),
    ),
    "density": (PrivateKernelDensity(bandwidth=2.0, n_components=64, **PRIVATE), lambda: (table()[0], None)),
    "density, bounds read": (
        PrivateKernelDensity(bandwidth=20.0, feature_map="fourier", random_state=0),
        lambda: (table()[0][:, :2], None),
    ),
    "distances": (PrivateDistanceSum(**PRIVATE), lambda: (table()[0], None)),
    "squared distances": (PrivateDistanceSum(metric="sqeuclidean", **PRIVATE), lambda: (table()[0], None)),
    "classes": (PrivateSimilarityClassifier(n_components=64, **PRIVATE), labelled),
    "classes, linear": (PrivateSimilarityClassifier(similarity="linear", **PRIVATE), labelled),
    "directions": (LinearFrechetSDR(2, method="fccov", n_landmarks=16), table),
    "directions, second moments": (LinearFrechetSDR(2, method="second", n_landmarks=16, n_thresholds=4), table),
    "dictionary": (SupervisedDictionaryLearning(2, **SEED), labelled),
    "dictionary, three classes": (SupervisedDictionaryLearning(2, **SEED), three_classes),
    "dictionary, lifted": (SupervisedDictionaryLearning(2, solver="lpgd", tol=1e-12, **SEED), labelled),
    "dictionary, covariates": (SupervisedDictionaryLearning(2, covariate_columns=[6, 7], **SEED), labelled),
    "dictionary, numbers": (SupervisedDictionaryRegressor(2, **SEED), table),
    "holes": (MatrixCompletionImputer(3, **SEED), lambda: (with_holes(), None)),
    "holes, map": (MatrixCompletionImputer(2, inference="map", tol=1e-8, **SEED), lambda: (with_holes(), None)),
    "holes, another mark": (
        MatrixCompletionImputer(2, missing_values=-1.0, max_iter=20, **SEED),
        lambda: (np.nan_to_num(with_holes(), nan=-1.0), None),
    ),
    "pairs": (MatrixFactorizationRegressor(3, **SEED), pairs),
    "pairs, map": (MatrixFactorizationRegressor(2, inference="map", **SEED), pairs),
    "anchors": (RelativeRepresentation(50, **SEED), lambda: (flats(), None)),
    "anchors, of classes": (RelativeRepresentation(0.05, anchor_selection="stratified", **SEED), labelled),
    "anchors, given": (RelativeRepresentation(anchors=[1400, 3, 3, 700], whiten=True), lambda: (flats(), None)),
    "projection": (MatryoshkaProjection(3), unlabelled),
    "projection, groups": (MatryoshkaProjection(n_groups=4, objective="similarity"), unlabelled),
    "projection, linear": (MatryoshkaProjection(2, estimator=LINEAR, max_iter=0, **SEED), unlabelled),
    "projection, network": (MatryoshkaProjection(2, estimator=NETWORK, max_iter=0, **SEED), unlabelled),
    "pairs of layers": (LowRankCompressor(NETWORK, **EVERY_ROW), unlabelled),
    "pairs of layers, drawn rows": (LowRankCompressor(NETWORK, n_calibration=300, **SEED), unlabelled),
    "pairs of layers, all of few": (LowRankCompressor(NETWORK, n_calibration=N), unlabelled),
    "pairs of layers, tolerance": (
        LowRankCompressor(NETWORK, tolerance=0.05, method="input_whitened", **EVERY_ROW),
        unlabelled,
    ),
    "pairs of layers, table": (LowRankCompressor(of_seed(Clicks), compression=0.7, **EVERY_ROW), identifiers),
    "paths": (LowRankCompensator(NETWORK, bits=2, rank=3, **EVERY_ROW), unlabelled),
    "paths, spread": (
        LowRankCompensator(NETWORK, bits=2, rank="auto", budget=0.3, method="activation_scale", **EVERY_ROW),
        unlabelled,
    ),
    "paths, table": (
        LowRankCompensator(of_seed(Clicks), modules=["table", "second"], rank=2, **EVERY_ROW),
        identifiers,
    ),
    "caches": (KVCacheCompressor(of_seed(Attentive), n_components=4, **EVERY_ROW), identifiers),
    "mimicking": (FeatureMimickingCompressor(NETWORK, linear_rank=6, max_iter=0), unlabelled),
    "mimicking, table": (FeatureMimickingCompressor(of_seed(Clicks), n_calibration=400, **SEED), identifiers),
    "two columns of pairs": (MatrixFactorizationRegressor(2, **SEED), lambda: (pairs()[0][:, :2], pairs()[1])),
}
pytestmark = pytest.mark.slow
each = pytest.mark.parametrize("case", CASES)


def fitted(estimator, X, y, how):
    estimator = clone(estimator) if how == "serial" else estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of seeds that break a guarantee, and of fits that are cut short
        if how == "serial":
            return estimator.fit(X, y) if y is not None else estimator.fit(X)
        y = y if y is None or y.dtype.kind == "U" else da.from_array(y, chunks=(CHUNKS,))
        return distributed.fit(estimator, da.from_array(X, chunks=(CHUNKS, 5)), y)


def of_network(model):
    return getattr(model, "estimator", None) in (NETWORK, NARROW)


def attributes(model):
    """Return the fitted attributes that are numbers, as arrays."""
    found = {name: value for name, value in vars(model).items() if name.endswith("_") and not name.startswith("_")}
    if isinstance(model, LowRankGaussianMixture):  # starts of one likelihood differ in the numbers of components
        order = np.argsort(model.means_[:, 0])
        for name in ("weights_", "means_", "noise_variance_", "n_dims_", "bases_", "variances_"):
            found[name] = [found[name][k] for k in order]
        found["labels_"] = np.argsort(order)[model.labels_]
    dicts = {n: x for n, x in found.items() if isinstance(x, dict)}
    found |= {f"{n}[{key!r}]": x for n, values in dicts.items() for key, x in values.items()}
    found = {n: np.concatenate([np.ravel(v) for v in x]) if isinstance(x, list) and x else x for n, x in found.items()}
    return {n: np.asarray(x) for n, x in found.items() if np.asarray(x).dtype.kind in "fiu" and n != "loss_curve_"}


def assert_same(one, other):
    agree = NETWORKS_AGREE if isinstance(one, CalibratedNetwork) or of_network(one) else AGREE
    one, other = attributes(one), attributes(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.shape == other[name].shape, name
        size = np.abs(np.nan_to_num(value, posinf=0, neginf=0)).max(initial=0)
        np.testing.assert_allclose(other[name], value, rtol=0, atol=agree * size, err_msg=name)


@each
def test_partitions_give_the_answer_of_all_rows(case):
    """With the threads of this process as workers."""
    estimator, data = CASES[case]
    X, y = data()
    assert_same(fitted(estimator, X, y, "serial"), fitted(clone(estimator), X, y, "dask"))


@each
def test_blocks_give_the_answer_of_all_rows(case, monkeypatch):
    estimator, data = CASES[case]
    X, y = data()
    whole = fitted(estimator, X, y, "serial")
    monkeypatch.setattr(rows, "rows_per_block", lambda batch_size, n, size: min(n, 97))
    assert_same(whole, fitted(estimator, X, y, "serial"))


# Clusters


def test_a_killed_worker_loses_nothing():
    """Two processes, one of which dies in the middle of a fit: its partitions are read again."""
    mixture = LowRankGaussianMixture(3, n_dims=2, tol=0, max_iter=4, **SEED)  # it has converged after five
    factors = MatrixFactorizationRegressor(2, max_iter=15, **SEED)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        pairs_of_layers = CASES["pairs of layers"][0]  # a network goes to other processes
        assert_same(
            fitted(pairs_of_layers, *unlabelled(), "serial"), fitted(clone(pairs_of_layers), *unlabelled(), "dask")
        )
        for estimator, X, y in ((mixture, flats(), None), (factors, *pairs())):
            killer = Killer(next(iter(client.run(os.getpid).values())))
            there = fitted(clone(estimator).set_callbacks(killer), X, y, "dask")
            assert killer.steps > 2
            assert_same(fitted(estimator, X, y, "serial"), there)
            client.wait_for_workers(2, timeout=120)


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


ONE_OF_EACH = ["mixture", "K-subspaces", "classes", "directions", "dictionary", "holes", "pairs", "anchors"]
ONE_OF_EACH += ["projection, network", "pairs of layers", "paths, table", "caches", "mimicking, table"]


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_threads_of_a_cluster(case, client):
    estimator, data = CASES[case]
    X, y = data()
    assert_same(fitted(estimator, X, y, "serial"), fitted(clone(estimator), X, y, "dask"))


def test_grid_search_on_a_cluster(client):
    """What is searched is spread over the workers by joblib; each fit is one of arrays."""
    X, y = three_classes()
    search = GridSearchCV(SupervisedDictionaryLearning(2, **SEED), {"xi": [0.1, 1.0]}, cv=2)
    with joblib.parallel_backend("dask"):
        search.fit(X[:300], y[:300])
    expected = clone(search).fit(X[:300], y[:300])
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])


# Answers


@pytest.mark.parametrize(
    ("case", "methods"),
    [
        ("mixture", ("predict", "predict_proba", "score_samples", "transform")),
        ("classes", ("predict", "predict_proba")),
        ("holes", ("transform",)),
        ("anchors", ("transform",)),
        ("projection", ("transform",)),
        ("pairs of layers", ("predict", "predict_proba")),
        ("pairs", ("predict",)),
    ],
)
@pytest.mark.parametrize("kind", ["array", "frame"])
def test_answers_are_lazy_and_those_of_arrays(case, methods, kind):
    estimator, data = CASES[case]
    X, y = data()
    names = [f"x{i}" for i in range(X.shape[1])]
    local = pd.DataFrame(X, columns=names) if kind == "frame" else X
    model = fitted(estimator, local, y, "serial")
    there = dd.from_pandas(local, npartitions=3) if kind == "frame" else da.from_array(X, chunks=(CHUNKS, 5))
    for method in methods:
        answer = getattr(distributed, method)(model, there)
        assert answer.npartitions == (3 if kind == "frame" else 4)
        expected, found = getattr(model, method)(local), answer.compute()
        assert found.shape == np.shape(expected)
        assert (found.index == local.index).all() if kind == "frame" else isinstance(found, np.ndarray)
        if np.asarray(expected).dtype.kind == "f":
            np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-9, atol=1e-12)
        else:
            assert np.array_equal(np.asarray(found), expected)


def test_frames_keep_their_names():
    X, y = table()
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(8)])
    expected = SupervisedDictionaryRegressor(2, covariate_columns=["x7"], **SEED).fit(frame, y)
    there = dd.from_pandas(frame, npartitions=4)
    model = distributed.fit(clone(expected), there, pd.Series(y))
    assert list(model.feature_names_in_) == list(frame.columns)
    assert_same(expected, model)
    codes = distributed.transform(model, there).compute()
    assert list(codes.columns) == list(model.get_feature_names_out())


def test_names_of_covariates_come_along():
    X, y = table()
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(8)])
    beside = frame[["x6", "x7"]]
    parts = [dd.from_pandas(part, npartitions=3) for part in (frame, beside)]
    model = distributed.fit(SupervisedDictionaryRegressor(2, **SEED), parts[0], y, covariates=parts[1])
    assert list(model.covariate_names_in_) == ["x6", "x7"]
    with pytest.raises(ValueError, match="same order"):
        model.predict(frame, covariates=beside[["x7", "x6"]])


def test_identifiers_may_be_text():
    X, y = pairs()
    frame = pd.DataFrame({"who": [f"user {i:.0f}" for i in X[:, 0]], "what": [f"film {j:.0f}" for j in X[:, 1]]})
    expected = MatrixFactorizationRegressor(2, **SEED).fit(frame, y)
    model = distributed.fit(clone(expected), dd.from_pandas(frame, npartitions=3), y)
    assert (model.row_ids_ == expected.row_ids_).all()
    np.testing.assert_allclose(model.predict(frame), expected.predict(frame), rtol=1e-8)
    some = frame.who.unique()[:5]
    assert np.array_equal(model.recommend(some, 3)[0], expected.recommend(some, 3)[0])


def test_sample_weights_go_with_their_pairs():
    X, y = pairs()
    weights = np.random.default_rng(0).integers(0, 3, N)
    expected = MatrixFactorizationRegressor(2, **SEED).fit(X, y, sample_weight=weights)
    there = da.from_array(X, chunks=(CHUNKS, 3))
    model = distributed.fit(clone(expected), there, y, sample_weight=da.from_array(weights, chunks=400))
    assert_same(expected, model)
    with pytest.raises(ValueError, match="at least one non-zero"):
        distributed.fit(clone(expected), there, y, sample_weight=np.zeros(N))


def test_identifiers_keep_their_types_beside_fractions():
    X, y = pairs()
    frame = pd.DataFrame({"u": 2**60 + X[:, 0].astype(int), "v": pd.Categorical(X[:, 1].astype(int)), "z": X[:, 2]})
    expected = MatrixFactorizationRegressor(2, **SEED).fit(frame, y)
    model = distributed.fit(clone(expected), dd.from_pandas(frame, npartitions=3), y)
    assert len(model.row_ids_) == len(expected.row_ids_) > 250
    assert np.array_equal(model.row_ids_, expected.row_ids_)
    np.testing.assert_allclose(model.predict(frame), expected.predict(frame), rtol=1e-7)


def test_sample_weights_go_with_their_rows():
    X, weights = flats(), np.random.default_rng(0).integers(0, 3, N)
    for estimator in (KSubspaces(3, n_dims=2, **SEED), LowRankGaussianMixture(3, n_dims=2, **SEED)):
        expected = clone(estimator).fit(X, sample_weight=weights)
        there = da.from_array(X, chunks=(CHUNKS, 12))
        model = distributed.fit(estimator, there, sample_weight=da.from_array(weights, chunks=400))
        assert_same(expected, model)


# What cannot be done


def test_refusals_name_the_cure():
    X, y = table()
    rows = da.from_array(X, chunks=(500, 8))
    with pytest.raises(TypeError, match=r"SparseSubspaceClustering looks at more than one row.*X\[:5000\]"):
        distributed.fit(SparseSubspaceClustering(), rows)
    with pytest.raises(TypeError, match=r"Dask array of two dimensions.*got ndarray.*call fit of the estimator"):
        distributed.fit(KSubspaces(), X)
    with pytest.raises(ValueError, match=r"method='wire'.*Use 'fccov'"):
        distributed.fit(LinearFrechetSDR(method="wire"), rows, y)
    with pytest.raises(ValueError, match=r"solver='bcd'.*Use 'lbfgs' or 'lpgd'"):
        distributed.fit(SupervisedDictionaryRegressor(2, solver="bcd"), rows, y)
    with pytest.raises(ValueError, match=r"solver='cg'.*Use 'cholesky'"):
        distributed.fit(MatrixCompletionImputer(2, inference="map", solver="cg"), rows)
    with pytest.raises(ValueError, match=r"max_iter=600 trains on batches of rows.*Use 0"):
        distributed.fit(MatryoshkaProjection(estimator=LINEAR), rows)
    with pytest.raises(ValueError, match=r"linear model of y.*as estimator"):
        distributed.fit(MatryoshkaProjection(max_iter=0), rows, y)
    with pytest.raises(ValueError, match=r"anchor_selection='kmeans'.*'random'"):
        distributed.fit(RelativeRepresentation(anchor_selection="kmeans"), rows)
    with pytest.raises(ValueError, match=r"max_iter='auto' trains the network.*Use 0"):
        distributed.fit(FeatureMimickingCompressor(NETWORK), rows, labelled()[1])
    with pytest.raises(ValueError, match=r"tolerance=0.1 of a score.*y=None"):
        distributed.fit(LowRankCompressor(NETWORK, tolerance=0.1, **EVERY_ROW), rows, labelled()[1])
    with pytest.raises(ValueError, match=r"estimator=NetworkClassifier.*FrozenEstimator"):
        distributed.fit(LowRankCompressor(NetworkClassifier()), rows)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        distributed.fit(SupervisedDictionaryRegressor(2), rows, y[:-1])
    X[600, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        distributed.fit(KSubspaces(), da.from_array(X, chunks=(500, 8)))


# Partitions that are not what they say


def lying(*blocks):
    """A Dask array whose partitions are these blocks, whatever its own idea of them: five real columns of float64."""
    parts = [da.from_delayed(dask.delayed(b), shape=(b.shape[0], 5), dtype=np.float64) for b in blocks]
    return da.concatenate(parts)


def part(n=40, seed=0, columns=5):
    return np.random.default_rng(seed).normal(size=(n, columns)) + 3


ODD = {
    "complex": (part() + 1j, ValueError, "Complex data not supported"),
    "narrower": (part(columns=4), ValueError, "Partition 1 of X has 4 columns, but partition 0 has 5"),
    "wider": (part(columns=6), ValueError, "Partition 1 of X has 6 columns, but partition 0 has 5"),
    "sparse": (sp.csr_array(part()), TypeError, r"Sparse data was passed for X: partition 1.*toarray"),
    "text": (part().astype(str).astype(object) + "x", ValueError, r"Text is in the columns .*OneHotEncoder"),
    "infinity": (np.where(part() > 4, np.inf, part()), ValueError, "infinity"),
    "one dimension": (part()[:, 0], ValueError, "Expected 2D array"),
}
WITHOUT_Y = {
    "K-subspaces": KSubspaces(2, n_dims=1, **SEED),
    "mixture": LowRankGaussianMixture(2, n_dims=1, **SEED),
    "density": PrivateKernelDensity(bandwidth=2.0, n_components=16, **PRIVATE),
    "distances": PrivateDistanceSum(**PRIVATE),
    "holes": MatrixCompletionImputer(2, **SEED),
    "anchors": RelativeRepresentation(5, **SEED),
    "projection": MatryoshkaProjection(),
    "pairs of layers": LowRankCompressor(NARROW, rank=2, **EVERY_ROW),
}
WITH_Y = {
    "classes": PrivateSimilarityClassifier(n_components=16, **PRIVATE),
    "directions": LinearFrechetSDR(1, method="fccov", n_landmarks=8),
    "dictionary": SupervisedDictionaryLearning(2, **SEED),
    "dictionary, numbers": SupervisedDictionaryRegressor(2, **SEED),
    "pairs": MatrixFactorizationRegressor(1, **SEED),
}
EVERY = {**WITHOUT_Y, **WITH_Y}


def targets(name, n):
    return () if name in WITHOUT_Y else (np.arange(n) % 2,)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.filterwarnings("ignore")
def test_partitions_of_another_form_are_refused_as_arrays_are(name, kind):
    odd, error, match = ODD[kind]
    if name == "pairs" and kind in ("complex", "text"):
        match = r"Complex data not supported|must be numbers"
    if name == "pairs" and kind == "infinity":
        match = r"infinity|finite"
    model = clone(EVERY[name])
    with pytest.raises(error, match=match):
        distributed.fit(model, lying(part(), odd), *targets(name, 80))
    assert vars(model) == vars(clone(model))  # nothing is left of what failed


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.filterwarnings("ignore")
def test_partitions_of_other_real_types_give_the_answer_of_all_rows(name):
    blocks = [part(0), part(40, 0).round(2), part(1, 1), part(0), part(30, 2).round().astype(np.int16), part(9, 3) > 3]
    blocks += [part(30, 4).astype(np.float32), part(10, 5).astype(object)]
    if name == "holes":
        blocks = [np.where(b > 4, np.nan, b) if b.dtype.kind in "fO" else b for b in blocks]
    X = np.concatenate([b.astype(np.float64) for b in blocks])
    model = clone(EVERY[name]).fit(X, *targets(name, len(X)))
    assert_same(model, distributed.fit(clone(model), lying(*blocks), *targets(name, len(X))))


def test_float32_partitions_are_computed_with_as_float32_where_all_are():
    single, double = part().astype(np.float32), part()
    for blocks, dtype in (((single, single), np.float32), ((single, double), np.float64)):
        model = distributed.fit(KSubspaces(2, n_dims=1, **SEED), lying(*blocks))
        assert model.cluster_centers_.dtype == dtype


def test_no_rows_at_all_are_refused_as_no_rows_of_an_array_are():
    for X in (lying(part(0)), lying(part(0), part(0))):
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            distributed.fit(KSubspaces(), X)
    with pytest.raises(ValueError, match=r"1 sample"):
        distributed.fit(LowRankGaussianMixture(), lying(part(0), part(1)))


def test_checks_of_the_first_rows_see_beyond_a_first_partition_of_one_row():
    X = part(60)
    model = LowRankGaussianMixture(2, n_dims=1, **SEED).fit(X)
    assert_same(model, distributed.fit(clone(model), da.from_array(X, chunks=((1, 59), 5))))


def test_blocks_side_by_side_are_joined_or_refused():
    X = part(60)
    model = KSubspaces(2, n_dims=1, **SEED).fit(X)
    assert_same(model, distributed.fit(clone(model), da.from_array(X, chunks=(25, 2))))
    left, right = (da.from_delayed(dask.delayed(X[: 60 - i, :2]), (60, 2), dtype=float) for i in (0, 1))
    with pytest.raises(ValueError, match=r"side by side.*\(60, 2\), \(59, 2\)"):
        distributed.fit(clone(model), da.concatenate([left, right], axis=1))


def frames(*parts):
    return dd.from_delayed([dask.delayed(p) for p in parts], meta=parts[0].iloc[:0], verify_meta=False)


@pytest.mark.parametrize("name", ["K-subspaces", "dictionary, numbers", "pairs"])
def test_frames_of_other_columns_are_refused(name):
    first = pd.DataFrame(part(), columns=list("abcde"))
    for other in (first[list("edcba")], first.rename(columns={"e": "f"})):
        with pytest.raises(ValueError, match=r"Partition 1 of X has the columns \[.*same columns in the same order"):
            distributed.fit(clone(EVERY[name]), frames(first, other), *targets(name, 80))
    with pytest.raises(ValueError, match="Partition 1 of X has 4 columns"):
        distributed.fit(clone(EVERY[name]), frames(first, first[list("abcd")]), *targets(name, 80))


def test_frames_of_nullable_and_text_columns():
    first = pd.DataFrame(part(), columns=list("abcde"))
    nullable = first.round().astype("Int64")
    whole = pd.concat([first, nullable.astype(float)], ignore_index=True)
    model = KSubspaces(2, n_dims=1, **SEED).fit(whole)
    assert_same(model, distributed.fit(clone(model), frames(first, nullable)))
    gone = nullable.mask(nullable < 2)
    with pytest.raises(ValueError, match=r"NaN.*partition 1"):
        distributed.fit(clone(model), frames(first, gone))
    holes = MatrixCompletionImputer(2, **SEED).fit(pd.concat([first, gone.astype(float)], ignore_index=True))
    assert_same(holes, distributed.fit(clone(holes), frames(first, gone)))
    with pytest.raises(ValueError, match=r"Text is in the columns \['c'\].*partition 1"):
        distributed.fit(clone(model), frames(first, first.assign(c="north")))


@pytest.mark.parametrize("change", [lambda X, n: X[: len(X) - n], lambda X, n: X[:, : 5 - (n > 0)]])
def test_partitions_that_change_between_reads_are_refused(change):
    reads = []

    def read():
        reads.append(1)
        return change(part(), len(reads) - 1)

    X = da.from_delayed(dask.delayed(read, pure=False)(), shape=(40, 5), dtype=float)
    with dask.config.set(scheduler="synchronous"), pytest.raises(ValueError, match=r"had \d+ .* when it was counted"):
        distributed.fit(KSubspaces(2, n_dims=1, **SEED), X)


def test_complex_targets_do_not_lose_their_imaginary_part():
    X, y = pairs()
    y = y + 1j
    for model in (MatrixFactorizationRegressor(2), SupervisedDictionaryRegressor(2)):
        rows = da.from_array(X, chunks=(700, 3))
        with pytest.raises(ValueError, match="Complex data not supported: y"):
            distributed.fit(model, rows, y)
        with pytest.raises(ValueError, match="Complex data not supported: y"):
            distributed.fit(model, rows, da.from_array(y, chunks=500))


def test_complex_columns_beside_pairs_do_not_lose_their_imaginary_part():
    X, y = pairs()
    frame = pd.DataFrame({"who": X[:, 0], "what": X[:, 1], "how": X[:, 2] + 1j})
    for fit in (
        lambda model: model.fit(frame, y),
        lambda model: distributed.fit(model, dd.from_pandas(frame, npartitions=2), y),
    ):
        with pytest.raises(ValueError, match="must be numbers"):
            fit(MatrixFactorizationRegressor(2))


def test_targets_of_pairs_are_checked_beyond_the_first_rows():
    X, y = pairs()
    y[1200] = np.nan
    with pytest.raises(ValueError, match="Input y contains NaN"):
        distributed.fit(MatrixFactorizationRegressor(2), da.from_array(X, chunks=(700, 3)), y)


def test_identifiers_are_the_same_whatever_the_type_of_their_partition():
    X, y = pairs()
    X = X[:, :2]
    expected = MatrixFactorizationRegressor(1, **SEED).fit(X, y)
    blocks = (X[:700].astype(np.int32), X[700:1000], X[1000:].astype(np.float32))
    model = distributed.fit(clone(expected), lying(*blocks), y)
    assert np.array_equal(model.row_ids_, expected.row_ids_)
    np.testing.assert_allclose(model.predict(X), expected.predict(X), rtol=1e-7)


@pytest.mark.parametrize("kind", ["complex", "narrower", "text", "infinity"])
def test_predictions_refuse_such_partitions_too(kind):
    model = KSubspaces(2, n_dims=1, **SEED).fit(part())
    odd, error, match = ODD[kind]
    answer = distributed.predict(model, lying(part(), odd))
    with pytest.raises(error, match={"narrower": "4 features"}.get(kind, match)):
        answer.compute()


def test_predictions_need_a_known_width():
    unknown = da.from_delayed(dask.delayed(part()), shape=(np.nan, np.nan), dtype=float)
    model = distributed.fit(KSubspaces(2, n_dims=1, **SEED), unknown)
    assert model.n_features_in_ == 5
    with pytest.raises(ValueError, match=r"compute_chunk_sizes\(\)"):
        distributed.predict(model, unknown)
    rows = da.from_delayed(dask.delayed(part()), shape=(np.nan, 5), dtype=float)
    assert np.array_equal(distributed.predict(model, rows).compute(), model.predict(part()))


def test_without_dask_the_extra_is_named(monkeypatch):
    rows = da.from_array(flats(), chunks=(500, 12))
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(ImportError, match=r"pip install 'sklowrank\[dask\]'"):
        distributed.fit(KSubspaces(), rows)
