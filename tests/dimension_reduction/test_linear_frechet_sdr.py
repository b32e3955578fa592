"""Directions along which responses change: against formulas, with weights, with sparse rows."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import StandardScaler

from sklowrank.datasets import make_frechet_regression
from sklowrank.dimension_reduction import LinearFrechetSDR

METHODS = ("wire", "fccov", "second")


def cosine(a, b):
    return abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.fixture(scope="module")
def shifted():
    """Distributions whose mean depends on one direction and whose spread depends on another."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    beta = rng.normal(size=(2, 6))
    u = (X - X.mean(0)) @ beta.T
    u /= u.std(0)
    y = u[:, :1] + np.exp(0.5 * u[:, 1:]) * rng.normal(size=(400, 40))
    return X, np.sort(y, axis=1), beta


def whitened(X):
    Xc = X - X.mean(0)
    e, V = np.linalg.eigh(Xc.T @ Xc / len(X))
    W = (V / np.sqrt(e)) @ V.T
    return Xc @ W, W


def test_wire_is_the_formula(shifted):
    X, y, _ = shifted
    sdr = LinearFrechetSDR(2, metric="wasserstein").fit(X, y)
    Z, W = whitened(X)
    e, V = np.linalg.eigh(-Z.T @ cdist(y, y) @ Z / len(X) ** 2 / 40**0.5)
    order = np.argsort(-np.abs(e))[:2]
    assert np.allclose(sdr.eigenvalues_, e[order])
    assert min(cosine(a, b) for a, b in zip(sdr.components_, (W @ V[:, order]).T)) > 1 - 1e-9
    assert np.allclose(np.cov(sdr.transform(X).T, bias=True), np.eye(2), atol=1e-8)


@pytest.mark.parametrize("method", ["fccov", "second"])
def test_balls_are_the_formula(shifted, method):
    X, y, _ = shifted
    sdr = LinearFrechetSDR(2, method=method, metric="wasserstein", n_landmarks=100).fit(X, y)
    D, (Z, W), M = cdist(y, y), whitened(X), 0.0
    for distance in D[:: len(D) // 100]:  # some of the balls of all rows
        for radius in np.quantile(distance, (np.arange(16) + 0.5) / 16):
            inside = distance <= radius
            centred = inside - inside.mean()
            h, H = centred @ Z / len(Z), (Z * centred[:, None]).T @ Z / len(Z)
            M = M + np.outer(h, h) + (H @ H if method == "second" else 0)
    expected = (W @ np.linalg.eigh(M)[1][:, ::-1][:, :2]).T
    assert min(cosine(a, b) for a, b in zip(sdr.components_, expected)) > 0.98


@pytest.mark.parametrize("method", METHODS)
def test_finds_the_directions(shifted, method):
    X, y, beta = shifted
    sdr = LinearFrechetSDR(2, method=method, metric="wasserstein").fit(X, y)
    assert cosine(sdr.components_[0], beta[0]) > 0.98
    Z, spread = sdr.transform(X), (X - X.mean(0)) @ beta[1]
    left = np.linalg.lstsq(Z, spread, rcond=None)[1].item() / (spread @ spread)
    assert left < (0.1 if method == "second" else 0.2)
    assert sdr.score(X, y) > 0.2
    assert sdr.explained_dependence(X, y).sum() == pytest.approx(sdr.score(X, y))


def test_only_second_moments_see_symmetric_relations():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 10))
    y = X[:, 0] ** 2 + 0.1 * rng.normal(size=500)
    found = {method: LinearFrechetSDR(1, method=method).fit(X, y) for method in METHODS}
    e1 = np.eye(10)[0]
    assert cosine(found["second"].components_[0], e1) > 0.95
    assert cosine(found["wire"].components_[0], e1) < 0.7
    assert found["second"].score(X, y) > 0.2 > found["fccov"].score(X, y)


def test_responses_far_out_do_not_lead_balls_astray():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(400, 8))
    y = X[:, 0] + 0.3 * rng.standard_cauchy(400)
    y[:4] += 1e6
    wild, robust = (LinearFrechetSDR(1, method=m).fit(X, y).components_[0] for m in ("wire", "fccov"))
    assert cosine(robust, np.eye(8)[0]) > 0.97
    assert cosine(wild, np.eye(8)[0]) < 0.9


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_is_a_number_of_rows(shifted, method):
    X, y, _ = shifted
    count = np.random.default_rng(2).integers(0, 4, len(X))
    sdr = LinearFrechetSDR(2, method=method, metric="wasserstein")
    weighted = sdr.fit(X, y, sample_weight=count).transform(X)
    repeated = sdr.fit(np.repeat(X, count, axis=0), np.repeat(y, count, axis=0)).transform(X)
    assert np.allclose(weighted, repeated, atol=1e-7)
    halves = sdr.fit(X, y, sample_weight=np.full(len(X), 0.5)).transform(X)
    assert np.allclose(halves, sdr.fit(X, y).transform(X), atol=1e-7)
    with pytest.raises(ValueError, match="Negative values"):
        sdr.fit(X, y, sample_weight=-np.ones(len(X)))


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_sparse_rows_give_what_dense_rows_give(shrinkage):
    rng = np.random.default_rng(3)
    X = np.where(rng.random((300, 20)) < 0.2, rng.exponential(size=(300, 20)), 0)
    X[:, 19] = 0
    y = X[:, 0] - X[:, 1] + 0.2 * rng.normal(size=300)
    weight = rng.integers(1, 3, 300)
    sdr = LinearFrechetSDR(2, method="fccov", shrinkage=shrinkage)
    dense = sdr.fit(X, y, sample_weight=weight).transform(X)
    for form in (sp.csr_matrix, sp.csc_array):
        model = sdr.fit(form(X), y, sample_weight=weight)
        assert np.allclose(model.transform(form(X)), dense, atol=1e-6)
        assert np.allclose(model.transform(X), dense, atol=1e-6)
        assert np.isfinite(model.score(form(X), y))
    with pytest.raises(TypeError, match="Sparse data was passed"):
        LinearFrechetSDR(1).fit(sp.csr_matrix(X), y)


@pytest.mark.parametrize(("unit", "dtype"), [(1e25, np.float32), (1e-25, np.float32), (1e200, np.float64)])
def test_sparse_rows_in_any_unit(unit, dtype):
    rng = np.random.default_rng(3)
    X = np.where(rng.random((200, 10)) < 0.3, rng.exponential(size=(200, 10)), 0)
    y, sdr = X[:, 0] - X[:, 1], LinearFrechetSDR(2, method="fccov")
    expected = sdr.fit(sp.csr_array(X), y).transform(sp.csr_array(X))
    scaled = sp.csr_array((X * unit).astype(dtype))
    np.testing.assert_allclose(sdr.fit(scaled, y).transform(scaled), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sdr.mean_, X.mean(0) * unit, rtol=1e-5)


def test_a_wide_sparse_table_is_never_made_dense(monkeypatch):
    rng = np.random.default_rng(4)
    column = rng.exponential(size=300)
    X = sp.hstack([sp.csr_matrix(column[:, None]), sp.random(300, 50_000, density=2e-4, rng=rng)], format="csr")
    for kind in (sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array):
        monkeypatch.setattr(kind, "toarray", None)
    sdr = LinearFrechetSDR(1, method="fccov", shrinkage=0.9).fit(X, column + rng.normal(size=300) / 10)
    assert np.corrcoef(sdr.transform(X)[:, 0], column)[0, 1] > 0.5


def test_shrinkage_helps_where_columns_are_many():
    rng = np.random.default_rng(5)
    X, new = rng.normal(size=(2, 60, 100))
    y, y_new = (rows[:, :5].sum(1) for rows in (X, new))
    search = GridSearchCV(LinearFrechetSDR(1), {"shrinkage": [0.0, 0.9]}, cv=3).fit(X, y)
    assert search.best_params_ == {"shrinkage": 0.9}
    assert search.score(new, y_new) > 0


def test_columns_of_any_unit_count():
    X, y, _ = make_frechet_regression(300, 5, response="heavy_tails", random_state=0)
    plain = LinearFrechetSDR(1).fit(X, y)
    units = np.array([1e-12, 1e9, 1, 1, 1])
    other = LinearFrechetSDR(1).fit(X * units, y)
    assert np.allclose(other.transform(X * units), plain.transform(X), atol=1e-6)
    constant = np.c_[X, np.full(300, 3e20)]
    assert np.allclose(LinearFrechetSDR(1).fit(constant, y).transform(constant), plain.transform(X), atol=1e-6)


def test_number_of_components():
    rng = np.random.default_rng(6)
    X, y = rng.normal(size=(80, 3)), rng.normal(size=80)
    with pytest.warns(DataDimensionalityWarning, match="n_components=5 is more than the 3 directions in which X"):
        assert LinearFrechetSDR(5).fit(X, y).n_components_ == 3
    with pytest.warns(DataDimensionalityWarning, match="more than the 1 distinct features"):
        assert LinearFrechetSDR(2, method="fccov").fit(X, y > 0).n_components_ == 1
    with pytest.warns(DataDimensionalityWarning, match="more than the 0 directions in which X varies"):
        flat = LinearFrechetSDR(2).fit(np.full((80, 3), 5.0), y)
    assert not flat.transform(X).any()
    assert flat.score(X, y) == pytest.approx(0, abs=1e-9)
    all_of_them = LinearFrechetSDR(3, method="second").fit(X, y).eigenvalues_
    share = LinearFrechetSDR(0.7, method="second").fit(X, y)
    assert share.eigenvalues_.sum() >= 0.7 * all_of_them.sum() > share.eigenvalues_[:-1].sum()


def test_given_distances_and_functions():
    X, y, _ = make_frechet_regression(60, 4, response="number", random_state=0)
    D = np.abs(y[:, None] - y)
    for method in METHODS:
        plain = LinearFrechetSDR(1, method=method).fit(X, y)
        function = LinearFrechetSDR(1, method=method, metric=lambda a, b: abs(a - b)).fit(X, y)
        assert np.allclose(function.transform(X), plain.transform(X))
    given = LinearFrechetSDR(1, metric="precomputed").fit(X, D)
    assert np.allclose(given.transform(X), LinearFrechetSDR(1).fit(X, y).transform(X))
    with pytest.raises(ValueError, match=r"distances between all rows, but y has shape \(60, 7\).*method='fccov'"):
        LinearFrechetSDR(1, metric="precomputed").fit(X, D[:, :7])
    scores = cross_val_score(LinearFrechetSDR(1, method="fccov", metric="precomputed"), X, D, cv=3)
    assert np.isfinite(scores).all()


def test_blocks_change_nothing(shifted, monkeypatch):
    X, y, _ = shifted
    sdr = LinearFrechetSDR(1, metric="wasserstein")
    whole = sdr.fit(X, y).transform(X)
    monkeypatch.setattr("sklowrank.dimension_reduction._linear_frechet_sdr_solver.rows_per_block", lambda *args: 33)
    assert np.allclose(sdr.fit(X, y).transform(X), whole, atol=1e-9)


def test_parameters_set_after_the_fit_change_nothing(shifted):
    X, y, _ = shifted
    sdr = LinearFrechetSDR(2, method="second", metric="wasserstein").fit(X, y)
    score, Z = sdr.score(X, y), sdr.transform(X)
    sdr.set_params(method="wire", metric="euclidean", n_components=1)
    assert sdr.score(X, y) == score
    assert np.array_equal(sdr.transform(X), Z)


def test_directions_beyond_those_of_the_responses_are_not_left_to_rounding():
    """Two classes have one direction of distances; the second one is that of the largest variance among the others."""
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    order = np.random.default_rng(0).permutation(len(X))
    model, other = LinearFrechetSDR(4).fit(X, y), LinearFrechetSDR(4).fit(X[order], y[order])
    assert (model.eigenvalues_[1:] < 1e-10 * model.eigenvalues_[0]).all()
    np.testing.assert_allclose(model.components_, other.components_, atol=1e-9)
    lengths = np.linalg.norm(model.components_[1:], axis=1)
    assert (np.diff(lengths) > 0).all()
    C = np.cov(X.T, bias=True)
    e, V = np.linalg.eigh(C)
    others = scipy.linalg.null_space(model.components_[:1] @ (V * np.sqrt(e)) @ V.T)  # uncorrelated with the first
    assert lengths[0] ** 2 == pytest.approx(np.linalg.eigvalsh(others.T @ np.linalg.inv(C) @ others)[0], rel=1e-6)
