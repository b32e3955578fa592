"""What the generator of unions of subspaces promises."""

import numpy as np
import pytest

from sklowrank.datasets import make_union_of_subspaces


def test_rows_lie_on_the_returned_subspaces():
    X, y, bases = make_union_of_subspaces(100, 15, n_dims=4, n_clusters=3, random_state=0)
    assert X.shape == (100, 15)
    assert sorted(np.bincount(y)) == [33, 33, 34]
    assert np.any(np.diff(y) < 0)  # shuffled
    for k, U in enumerate(bases):
        assert U.shape == (15, 4)
        assert np.allclose(U.T @ U, np.eye(4))
        assert np.linalg.matrix_rank(X[y == k]) == 4
        assert np.allclose(X[y == k] @ U @ U.T, X[y == k])


def test_options():
    X, y, bases = make_union_of_subspaces(90, 12, n_clusters=4, orthogonal=True, unit_norm=True, random_state=1)
    assert np.allclose(np.linalg.norm(X, axis=1), 1)
    assert np.allclose(np.hstack(bases).T @ np.hstack(bases), np.eye(12))
    flat, y, bases = make_union_of_subspaces(90, 12, affine=True, random_state=1)
    for k, U in enumerate(bases):
        Z = flat[y == k] - flat[y == k].mean(0)
        assert np.allclose(Z @ U @ U.T, Z)
        assert np.linalg.matrix_rank(flat[y == k]) == 4  # one more than the subspace: it misses the origin
    noisy, y, bases = make_union_of_subspaces(2000, 12, noise=0.3, random_state=1)
    left = np.concatenate([noisy[y == k] - noisy[y == k] @ U @ U.T for k, U in enumerate(bases)])
    assert np.sum(left**2) / (2000 * 9) == pytest.approx(0.09, rel=0.05)  # 18,000 squares: a relative spread of 1 %


def test_seed_and_global_generator():
    state = np.random.get_state()[1].copy()
    once, twice = (make_union_of_subspaces(random_state=3)[0] for _ in range(2))
    assert np.array_equal(once, twice)
    assert np.array_equal(state, np.random.get_state()[1])


def test_refusals_name_the_cure():
    with pytest.raises(
        ValueError, match=r"n_clusters=3 orthogonal subspaces of n_dims=5 needs at least 15 features.*orthogonal=False"
    ):
        make_union_of_subspaces(n_features=14, n_dims=5, orthogonal=True)
    with pytest.raises(ValueError, match=r"n_dims=5 needs at least 5 features.*lower n_dims"):
        make_union_of_subspaces(n_features=4, n_dims=5)
    with pytest.raises(ValueError, match="'noise' parameter"):
        make_union_of_subspaces(noise=-1)
