"""The codes of the self-expressive methods against closed forms, scikit-learn's solvers and optimality conditions."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import ElasticNet, orthogonal_mp
from sklearn.preprocessing import normalize

from sklowrank.cluster import _elastic_net_solver as solver
from sklowrank.cluster._elastic_net_solver import ElasticNetOptions, elastic_net_codes, elastic_net_problem
from sklowrank.cluster._least_squares import least_squares_codes
from sklowrank.cluster._low_rank_representation import codes_with_outliers, low_rank_factors
from sklowrank.cluster._orthogonal_matching_pursuit import matching_pursuit_codes
from sklowrank.cluster._sparse import admm_steps, least_largest_product
from sklowrank.cluster._thresholded import thresholded_codes
from sklowrank.datasets import make_union_of_subspaces


def rows(n=90, noise=0.05, seed=0, **options):
    options = {"n_features": 15, "n_dims": 3, "n_clusters": 3, "unit_norm": True, **options}
    return normalize(make_union_of_subspaces(n, noise=noise, random_state=seed, **options)[0])


def tensor(X):
    return torch.from_numpy(np.ascontiguousarray(X))


# Thresholding


def test_thresholded_codes_are_the_largest_cosines():
    X = rows()
    C = thresholded_codes(tensor(X), 4).toarray()
    G = np.abs(X @ X.T)
    np.fill_diagonal(G, -1)
    for i in range(len(X)):
        best = np.sort(np.argsort(-G[i])[:4])
        assert np.array_equal(np.flatnonzero(C[i]), best)
        np.testing.assert_allclose(C[i, best], np.exp(-2 * np.arccos(G[i, best])), rtol=1e-10)


@pytest.mark.parametrize("batch_size", [7, "auto"])
def test_blocks_and_sparse_rows_change_nothing(batch_size):
    X = rows()
    for code in (
        lambda X: thresholded_codes(X, 4, batch_size=batch_size),
        lambda X: matching_pursuit_codes(X, 3, 1e-6, batch_size=batch_size),
        lambda X: elastic_codes(X, l1_ratio=0.9, batch_size=batch_size),
    ):
        whole = code(tensor(X)).toarray()
        np.testing.assert_allclose(code(sp.csr_array(X)).toarray(), whole, atol=1e-6)


def test_rows_of_zeros_have_no_code():
    X = rows()
    X[[0, 7]] = 0
    for C in (thresholded_codes(tensor(X), 4), matching_pursuit_codes(tensor(X), 3, 1e-6), elastic_codes(tensor(X))):
        assert np.isfinite(C.data).all()
        assert abs(C.toarray()[[0, 7]]).max() == 0
        assert abs(C.toarray()[:, [0, 7]]).max() == 0


# Orthogonal matching pursuit


@pytest.mark.parametrize("n_nonzero_coefs", [1, 3, 6])
def test_pursuit_agrees_with_scikit_learn(n_nonzero_coefs):
    X = rows()
    C = matching_pursuit_codes(tensor(X), n_nonzero_coefs, 0.0).toarray()
    assert np.all(np.diag(C) == 0)
    for i in range(0, len(X), 9):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = orthogonal_mp(np.delete(X, i, 0).T, X[i], n_nonzero_coefs=n_nonzero_coefs)
        np.testing.assert_allclose(C[i], np.insert(peer, i, 0), atol=1e-8)


def test_pursuit_stops_where_the_residual_is_small():
    """Noise-free rows of 3-dimensional subspaces need three others at most."""
    C = matching_pursuit_codes(tensor(rows(noise=0.0)), 8, 1e-6)
    assert np.diff(C.indptr).max() <= 3


def test_pursuit_in_few_dimensions_still_says_something():
    """In the plane two rows code any row; halves of the rows, averaged, leave codes that differ."""
    X = rows(60, n_features=2, n_dims=1, n_clusters=2, noise=0.02)
    C = matching_pursuit_codes(tensor(X), 5, 1e-6, random_state=0)
    assert np.diff(C.indptr).mean() > 3
    again = matching_pursuit_codes(tensor(X), 5, 1e-6, random_state=0)
    assert abs(C - again).max() == 0


def test_pursuit_of_new_rows_codes_them_over_all():
    X = rows()
    C = matching_pursuit_codes(tensor(X), 3, 1e-6, targets=tensor(X[:5]))
    np.testing.assert_allclose(C.toarray(), np.eye(5, len(X)), atol=1e-8)


# Elastic net

# Optimality within 1e-6 lam, and curvature of at least ridge = lam / 9 at l1_ratio = 0.9, leave an error of
# sqrt(50) * 9e-6 in a code.
CLOSE = 1e-4


def elastic_codes(X, *, targets=None, lam=None, **options):
    options = ElasticNetOptions(**{"gamma": 50.0, "l1_ratio": 0.9, "tol": 1e-6, **options})
    return elastic_net_codes(elastic_net_problem(X, options, targets=targets, lam=lam)).matrix(X.shape[0])


def violation(X, C, lam, ridge, positive=False):
    """The largest violation of the optimality conditions, in units of lam."""
    G = (X - C @ X) @ X.T - ridge * C  # minus the gradient of the smooth part
    free = (G - lam) if positive else np.abs(np.abs(G) - lam) * (C != 0) + np.maximum(np.abs(G) - lam, 0) * (C == 0)
    if positive:
        free = np.where(C != 0, np.abs(free), np.maximum(free, 0))
    np.fill_diagonal(free, 0)
    return (free / lam).max()


def penalties(X, l1_ratio, gamma):
    G = np.abs(X @ X.T)
    np.fill_diagonal(G, 0)
    lam = G.max(1, keepdims=True) / gamma
    return lam, lam * (1 - l1_ratio) / l1_ratio


@pytest.mark.parametrize(("l1_ratio", "noise"), [(1.0, 0.05), (1.0, 0.0), (0.9, 0.05), (0.9, 0.0), (0.3, 0.05)])
@pytest.mark.parametrize("positive", [False, True])
def test_elastic_net_codes_are_optimal(l1_ratio, noise, positive):
    X = rows(noise=noise)
    C = elastic_codes(tensor(X), l1_ratio=l1_ratio, positive=positive, tol=1e-5).toarray()
    assert np.all(np.diag(C) == 0)
    assert not positive or C.min() >= 0
    assert violation(X, C, *penalties(X, l1_ratio, 50.0), positive=positive) < 2e-5


def test_elastic_net_agrees_with_scikit_learn():
    X = rows()
    lam, ridge = penalties(X, 0.9, 50.0)
    C = elastic_codes(tensor(X)).toarray()
    for i in range(0, len(X), 15):
        total = lam[i, 0] + ridge[i, 0]
        peer = ElasticNet(total / 15, l1_ratio=lam[i, 0] / total, fit_intercept=False, tol=1e-12, max_iter=100_000)
        c = np.insert(peer.fit(np.delete(X, i, 0).T, X[i]).coef_, i, 0)
        np.testing.assert_allclose(C[i], c, atol=CLOSE)


@pytest.mark.parametrize("support_size", [1, 4, 1000])
def test_size_of_the_support_does_not_matter(support_size):
    X = rows()
    np.testing.assert_allclose(
        elastic_codes(tensor(X), support_size=support_size).toarray(), elastic_codes(tensor(X)).toarray(), atol=CLOSE
    )


def test_equal_rows_share_a_code():
    X = np.vstack([rows(), rows()])
    for l1_ratio in (0.9, 1.0):
        C = elastic_codes(tensor(X), l1_ratio=l1_ratio, tol=1e-5).toarray()
        assert violation(X, C, *penalties(X, l1_ratio, 50.0)) < 2e-5


def test_gamma_is_relative():
    """Up to 1 there is no code, and the scale of the rows does not matter; an absolute penalty fails both."""
    X = rows()
    assert elastic_codes(tensor(X), gamma=0.99).nnz == 0
    assert elastic_codes(tensor(X), gamma=1.01).nnz > 0
    C = elastic_codes(tensor(X), l1_ratio=1.0).toarray()
    np.testing.assert_allclose(elastic_codes(tensor(1000 * X), l1_ratio=1.0).toarray(), C, atol=CLOSE)


def test_affine_codes_sum_to_one():
    X = rows()
    C = elastic_codes(tensor(X), l1_ratio=1.0, affine=True, tol=1e-6).toarray()
    np.testing.assert_allclose(C.sum(1), 1, atol=1e-5)
    plain = elastic_codes(tensor(X), l1_ratio=1.0).toarray()
    assert np.abs(plain.sum(1) - 1).max() > 0.1


def test_elastic_net_of_new_rows():
    """A training row as a new one may be coded by itself, and by the lasso then nearly is."""
    X = rows()
    C = elastic_codes(tensor(X), l1_ratio=1.0, targets=tensor(X[:6])).toarray()
    assert np.array_equal(np.abs(C).argmax(1), np.arange(6))


def test_a_violation_reported_is_the_violation():
    X = rows()
    problem = elastic_net_problem(tensor(X), ElasticNetOptions(50.0, l1_ratio=0.9, support_size=12, tol=0.0))
    steps = solver.rounds(problem)
    codes = next(steps).state
    before = codes.matrix(len(X)).toarray()
    gap = next(steps).gap
    G = (X - before @ X) @ X.T - problem.ridge.numpy()[:, None] * before
    np.fill_diagonal(G, 0)
    assert gap == pytest.approx((np.abs(G).max(1) / problem.lam.numpy() - 1).max(), rel=1e-8)


# ADMM


@pytest.mark.parametrize("affine", [False, True])
def test_admm_agrees_with_active_sets_at_its_weight(affine):
    X = tensor(rows(60))
    for codes, gap, _ in admm_steps(X, gamma=20.0, affine=affine):
        if gap < 1e-8:
            break
    assert codes.values.diagonal().abs().max() == 0
    C = elastic_codes(X, l1_ratio=1.0, lam=float(least_largest_product(X)) / 20.0, affine=affine, tol=1e-7).toarray()
    np.testing.assert_allclose(codes.values.numpy(), C, atol=CLOSE)


# Least squares and low rank


@pytest.mark.parametrize("n", [9, 60])  # fewer rows than features, and more
@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_least_squares_by_the_definition(n, alpha):
    X = rows(n)
    C = least_squares_codes(tensor(X), alpha, True).numpy()
    assert np.all(np.diag(C) == 0)
    for i in range(n):
        A = np.delete(X, i, 0)
        c = np.linalg.solve(A @ A.T + alpha * np.eye(n - 1), A @ X[i])
        np.testing.assert_allclose(np.delete(C[i], i), c, atol=1e-10)
    full = least_squares_codes(tensor(X), alpha, False).numpy()
    np.testing.assert_allclose(full, X @ X.T @ np.linalg.inv(X @ X.T + alpha * np.eye(n)), atol=1e-10)


def test_low_rank_weights():
    X = tensor(rows(60))
    U, s, w = low_rank_factors(X, 10.0, None)
    every = torch.linalg.svdvals(X)
    assert len(s) == int((every > 10.0**-0.5).sum())
    torch.testing.assert_close(w, 1 - 1 / (10 * s.square()))
    U, s, w = low_rank_factors(X, 10.0, 9)
    assert w.tolist() == [1] * 9
    clean = tensor(rows(60, noise=0.0))
    U, _, w = low_rank_factors(clean, 1e12, None)
    assert len(w) == 9
    torch.testing.assert_close((U * w) @ U.T @ clean, clean)  # clean rows code themselves


def test_low_rank_codes_leave_outliers_out():
    """Rows replaced by noise are what E holds; the codes of the others are those of the subspaces."""
    X = rows(90, noise=0.0, n_features=30)
    X[::10] = normalize(np.random.default_rng(0).normal(size=(9, 30)))
    C, left = codes_with_outliers(tensor(X), 0.3)
    E = np.linalg.norm(X - C.numpy() @ X, axis=1)
    outlier = np.arange(90) % 10 == 0
    assert E[outlier].min() > 3 * E[~outlier].max()
    assert np.linalg.matrix_rank(C.numpy(), tol=1e-3) <= left.shape[1]


def test_low_rank_codes_with_outliers_minimise_their_objective():
    X = rows(30)
    C, _ = codes_with_outliers(tensor(X), 0.3)
    C = C.numpy()

    def objective(C):
        return np.linalg.norm(C, "nuc") + 0.3 * np.linalg.norm(X - C @ X, axis=1).sum()

    rng, best = np.random.default_rng(0), objective(C)
    for _ in range(30):
        assert objective(C + 1e-3 * rng.normal(size=C.shape)) > best - 1e-4
    assert objective(0.99 * C) > best - 1e-4
    assert objective(1.01 * C) > best - 1e-4


def test_rows_that_are_all_zeros_have_no_codes():
    X = torch.zeros(12, 4, dtype=torch.float64)
    codes = elastic_net_codes(elastic_net_problem(X, ElasticNetOptions(50.0, l1_ratio=0.9, support_size=6)))
    assert codes.values.numel() == 0 or not codes.values.any()
