"""Kernel ridge regression of balls: leave-one-out by formula and by hand, exact and on a basis."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel
from sklearn.model_selection import GridSearchCV

from sklowrank.datasets import make_frechet_regression
from sklowrank.dimension_reduction import KernelFrechetSDR
from sklowrank.dimension_reduction._kernel_frechet_sdr_solver import (
    exact_ridge,
    kernel_matrix,
    leave_one_out,
    median_distance,
    nystrom_ridge,
)
from sklowrank.metrics import distance_correlation


def rows_and_targets(n=40, r=3):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 2))
    return torch.from_numpy(X), torch.from_numpy(np.sin(X) @ rng.normal(size=(2, r)) + 0.1 * rng.normal(size=(n, r)))


def predicted(X, T, new, alpha):
    """Kernel ridge regression with a constant that is not penalised, as one linear system."""
    n = len(X)
    K, ones = rbf_kernel(X, X, 0.5), np.ones((n, 1))
    system = np.block([[K + n * alpha * np.eye(n), ones], [ones.T, np.zeros((1, 1))]])
    coef = np.linalg.solve(system, np.vstack([T, np.zeros((1, T.shape[1]))]))
    return rbf_kernel(new, X, 0.5) @ coef[:n] + coef[n]


def test_kernels():
    X, _ = rows_and_targets()
    for kernel, function in (("rbf", rbf_kernel), ("laplacian", laplacian_kernel)):
        assert np.allclose(kernel_matrix(X, X[:7], kernel, 0.7), function(X, X[:7], gamma=0.7), atol=1e-12)
    D = np.linalg.norm(X[:, None] - X, axis=2)
    assert median_distance(X, "rbf") == pytest.approx(np.median(D[D > 0] ** 2), rel=0.02)
    assert median_distance(X[:1].expand(5, 2), "rbf") == 1


def test_leave_one_out_is_what_leaving_rows_out_gives():
    X, T = rows_and_targets()
    errors = leave_one_out(X, T, "rbf", 0.5, (0.01, 0.3))
    X, T, others = X.numpy(), T.numpy(), ~np.eye(40, dtype=bool)
    for alpha, error in zip((0.01, 0.3), errors):
        wrong = [t - predicted(X[rest], T[rest], x[None], alpha * 40 / 39)[0] for x, t, rest in zip(X, T, others)]
        assert error == pytest.approx(np.square(wrong).sum() / 40, rel=1e-6)


def test_ridge_is_one_linear_system_and_a_basis_of_all_rows_changes_nothing():
    X, T = rows_and_targets()
    exact = exact_ridge(X, T, "rbf", 0.5, 0.01)
    fitted = (kernel_matrix(X, X, "rbf", 0.5) - exact.mean) @ exact.coef
    assert np.allclose(fitted + T.mean(0), predicted(X.numpy(), T.numpy(), X.numpy(), 0.01), atol=1e-8)
    assert np.allclose(exact.moment, fitted.T @ fitted / 40, atol=1e-10)
    on_basis = nystrom_ridge(X, X, T, "rbf", 0.5, 0.01)
    assert np.allclose((kernel_matrix(X, X, "rbf", 0.5) - on_basis.mean) @ on_basis.coef, fitted, atol=1e-6)
    assert np.allclose(on_basis.moment, exact.moment, atol=1e-6)


@pytest.mark.parametrize(("response", "metric", "least"), [("number", "auto", 0.85), ("direction", "sphere", 0.85)])
def test_finds_what_linear_methods_miss(response, metric, least):
    X, y, _ = make_frechet_regression(500, 6, response=response, random_state=0)
    Xt, yt, St = make_frechet_regression(500, 6, response=response, random_state=100)
    sdr = KernelFrechetSDR(1, metric=metric).fit(X, y)
    assert distance_correlation(sdr.transform(Xt), St) > least
    assert 0.15 < sdr.score(Xt, yt) < 1
    assert sdr.score(Xt, yt[::-1]) < 0.02
    assert sdr.explained_dependence(Xt, yt).sum() == pytest.approx(sdr.score(Xt, yt))


def test_many_rows_on_a_basis(monkeypatch):
    X, y, _ = make_frechet_regression(800, 4, response="number", random_state=0)
    exact = KernelFrechetSDR(1, gamma=0.1, alpha=1e-3).fit(X, y)
    some = KernelFrechetSDR(1, gamma=0.1, alpha=1e-3, max_exact=700, random_state=0).fit(X, y)
    assert some.X_fit_.shape == (800, 4)  # not so many rows as a basis has
    assert np.allclose(some.transform(X), exact.transform(X), atol=1e-4)
    monkeypatch.setattr("sklowrank.dimension_reduction._kernel_frechet_sdr_solver._BASIS_ROWS", 200)
    few = KernelFrechetSDR(1, gamma=0.1, alpha=1e-3, max_exact=700, random_state=0).fit(X, y)
    assert few.dual_coef_.shape == (200, 1)
    assert abs(np.corrcoef(few.transform(X)[:, 0], exact.transform(X)[:, 0])[0, 1]) > 0.99
    monkeypatch.setattr("sklowrank.dimension_reduction._kernel_frechet_sdr_solver.rows_per_block", lambda *args: 37)
    assert np.allclose(KernelFrechetSDR(**few.get_params()).fit(X, y).transform(X), few.transform(X))


def test_variances_follow_the_eigenvalues_or_are_one():
    X, y, _ = make_frechet_regression(200, 5, response="matrix", random_state=0)
    plain, white = (KernelFrechetSDR(3, metric="spd_log", whiten=w).fit(X, y) for w in (False, True))
    e = plain.components_dependence_
    assert np.allclose(np.cov(plain.transform(X).T, bias=True), np.diag(e / e[0]), atol=1e-8)
    assert np.allclose(np.cov(white.transform(X).T, bias=True), np.eye(3), atol=1e-6)
    assert white.score(X, y) == pytest.approx(plain.score(X, y))
    share = KernelFrechetSDR(0.9, metric="spd_log").fit(X, y)
    assert share.dependence_ratio_.sum() >= 0.9 > share.dependence_ratio_[:-1].sum()


def test_laplacian_kernel_and_given_parameters():
    X, y, _ = make_frechet_regression(200, 5, response="number", random_state=0)
    chosen = KernelFrechetSDR(1, kernel="laplacian").fit(X, y)
    given = KernelFrechetSDR(1, kernel="laplacian", gamma=chosen.gamma_, alpha=chosen.alpha_).fit(X, y)
    assert np.array_equal(chosen.transform(X), given.transform(X))
    half = KernelFrechetSDR(1, gamma=0.1).fit(X, y)
    assert half.gamma_ == 0.1
    assert 1e-4 <= half.alpha_ <= 1
    search = GridSearchCV(KernelFrechetSDR(1, alpha=0.01), {"gamma": [1e-4, 0.1]}, cv=2).fit(X, y)
    assert search.best_params_ == {"gamma": 0.1}


def test_only_the_order_of_distances_counts():
    X, y, _ = make_frechet_regression(100, 4, response="number", random_state=0)
    D = np.abs(y[:, None] - y)
    once, cubed = (KernelFrechetSDR(1, metric="precomputed").fit(X, d).transform(X) for d in (D, D**3))
    assert np.array_equal(once, cubed)


def test_constant_features_few_classes_and_late_parameters():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), rng.integers(0, 2, 60) > 0
    with pytest.warns(DataDimensionalityWarning, match="n_components=2 is more than the 1 distinct features"):
        assert KernelFrechetSDR().fit(X, y).n_components_ == 1
    flat = KernelFrechetSDR(1).fit(np.ones((60, 3)), y)
    assert np.isfinite(flat.transform(X)).all()
    assert flat.score(X, y) == pytest.approx(0, abs=1e-6)
    sdr = KernelFrechetSDR(1).fit(X, y)
    other = pickle.loads(pickle.dumps(sdr)).set_params(
        kernel="laplacian", gamma=9.0, standardize=False, metric="euclidean"
    )
    assert np.array_equal(other.transform(X), sdr.transform(X))
    assert other.score(X, y) == sdr.score(X, y)


def test_nothing_is_random_where_rows_are_few():
    X, y, _ = make_frechet_regression(120, 4, response="number", random_state=0)
    state = np.random.get_state()[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        once, twice = (KernelFrechetSDR(1).fit(X, y).transform(X) for _ in range(2))
    assert np.array_equal(once, twice)
    assert np.array_equal(state, np.random.get_state()[1])
