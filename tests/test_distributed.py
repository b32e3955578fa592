"""Rows in memory, in blocks and on a cluster: the same fits, and the same answers."""

import os
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from benchmarks.scale import Killer
from sklowrank._core import rows
from sklowrank.cluster import KSubspaces, SparseSubspaceClustering, _k_subspaces_starts
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.decomposition import SupervisedDictionaryLearning, SupervisedDictionaryRegressor
from sklowrank.dimension_reduction import LinearFrechetSDR
from sklowrank.impute import MatrixCompletionImputer, _observed_cells
from sklowrank.mixture import LowRankGaussianMixture, _starts
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


@pytest.fixture(autouse=True)
def few_rows_to_start_from(monkeypatch):
    """Clusterings start from 500 rows instead of 5000, so that so few rows are read in blocks at all."""
    for module in (_starts, _k_subspaces_starts):
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


SEED = {"random_state": 0}
PRIVATE = {"random_state": 0, "epsilon": 1.0, "bounds": (-20, 20)}
CASES = {
    "mixture": (LowRankGaussianMixture(3, n_dims=2, tol=1e-10, **SEED), lambda: (flats(), None)),
    "mixture, own noise": (LowRankGaussianMixture(3, noise="component", tol=1e-10, **SEED), lambda: (flats(), None)),
    "mixture, denoiser": (
        LowRankGaussianMixture(3, n_dims=2, solver="diffusion", max_steps=5, **SEED),
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
    "two columns of pairs": (MatrixFactorizationRegressor(2, **SEED), lambda: (pairs()[0][:, :2], pairs()[1])),
}
each = pytest.mark.parametrize("case", CASES)


def fitted(estimator, X, y, how):
    estimator = clone(estimator) if how == "serial" else estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of seeds that break a promise, and of fits that are cut short
        if how == "serial":
            return estimator.fit(X, y) if y is not None else estimator.fit(X)
        y = y if y is None or y.dtype.kind == "U" else da.from_array(y, chunks=(CHUNKS,))
        return distributed.fit(estimator, da.from_array(X, chunks=(CHUNKS, 5)), y)


def attributes(model):
    """Return the fitted attributes that are numbers, as arrays."""
    found = {name: value for name, value in vars(model).items() if name.endswith("_") and not name.startswith("_")}
    if isinstance(model, LowRankGaussianMixture):  # starts of one likelihood differ in the numbers of components
        order = np.argsort(model.means_[:, 0])
        for name in ("weights_", "means_", "noise_variance_", "n_dims_", "bases_", "variances_"):
            found[name] = [found[name][k] for k in order]
        found["labels_"] = np.argsort(order)[model.labels_]
    found = {n: np.concatenate([np.ravel(v) for v in x]) if isinstance(x, list) else x for n, x in found.items()}
    return {n: np.asarray(x) for n, x in found.items() if np.asarray(x).dtype.kind in "fiu" and n != "loss_curve_"}


def assert_same(one, other):
    one, other = attributes(one), attributes(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.shape == other[name].shape, name
        size = np.abs(np.nan_to_num(value, posinf=0, neginf=0)).max(initial=0)
        np.testing.assert_allclose(other[name], value, rtol=0, atol=AGREE * size, err_msg=name)


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
    monkeypatch.setattr(_observed_cells, "rows_per_block", rows.rows_per_block)
    assert_same(whole, fitted(estimator, X, y, "serial"))


# Clusters


@pytest.mark.slow
def test_a_killed_worker_loses_nothing():
    """Two processes, one of which dies in the middle of a fit: its partitions are read again."""
    mixture = LowRankGaussianMixture(3, n_dims=2, tol=0, max_iter=8, **SEED)
    factors = MatrixFactorizationRegressor(2, max_iter=15, **SEED)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        for estimator, X, y in ((mixture, flats(), None), (factors, *pairs())):
            killer = Killer(next(iter(client.run(os.getpid).values())))
            there = fitted(clone(estimator).set_callbacks(killer), X, y, "dask")
            assert killer.steps > 2
            assert_same(fitted(estimator, X, y, "serial"), there)
            client.wait_for_workers(2)


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


@pytest.mark.parametrize("case", ["mixture", "K-subspaces", "classes", "directions", "dictionary", "holes", "pairs"])
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
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        distributed.fit(SupervisedDictionaryRegressor(2), rows, y[:-1])
    X[600, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        distributed.fit(KSubspaces(), da.from_array(X, chunks=(500, 8)))


def test_without_dask_the_extra_is_named(monkeypatch):
    rows = da.from_array(flats(), chunks=(500, 12))
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(ImportError, match=r"pip install 'sklowrank\[dask\]'"):
        distributed.fit(KSubspaces(), rows)
