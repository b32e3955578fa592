"""Distances from flats, best flats, the dimension of clusters."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sklowrank._math.em import leading_directions
from sklowrank._math.subspaces import (
    coordinates,
    dims_by_threshold,
    first_largest,
    improved_directions,
    nearest_flats,
    orthonormal,
    ranks_by_threshold,
    squared_distances,
    table_of,
)
from sklowrank.datasets import make_union_of_subspaces


def flats(K=3, D=12, d=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(K, D, generator=g, dtype=torch.float64)
    bases = torch.linalg.qr(torch.randn(K, D, d, generator=g, dtype=torch.float64)).Q
    return means, bases, g


def test_coordinates_and_distances_are_those_of_the_difference():
    means, bases, g = flats()
    X = torch.randn(40, 12, generator=g, dtype=torch.float64)
    P, R = coordinates(X, means, bases)
    for k in range(3):
        Z = X - means[k]
        torch.testing.assert_close(P[:, k], Z @ bases[k])
        torch.testing.assert_close(R[:, k], (Z - Z @ bases[k] @ bases[k].T).square().sum(1))


def test_tiny_distances_keep_their_digits():
    """Pythagoras alone would leave rounding of the squared length, 1e-16 * 1e6, of a distance of 1e-14."""
    means, bases, g = flats()
    on = means[0] + 1e3 * torch.randn(20, 3, generator=g, dtype=torch.float64) @ bases[0].T
    away = torch.linalg.qr(torch.cat([bases[0], torch.randn(12, 1, generator=g, dtype=torch.float64)], 1)).Q[:, 3]
    R = squared_distances(on + 1e-7 * away, means, bases)[:, 0]
    torch.testing.assert_close(R, torch.full_like(R, 1e-14), rtol=1e-4, atol=0)
    plain = coordinates(on + 1e-7 * away, means, bases, exact=False)[1][:, 0]
    assert (plain - 1e-14).abs().max() > 1e-12


def test_padded_columns_change_nothing():
    means, bases, g = flats()
    X = torch.randn(40, 12, generator=g, dtype=torch.float64)
    padded = torch.nn.functional.pad(bases, (0, 2))
    torch.testing.assert_close(squared_distances(X, means, padded), squared_distances(X, means, bases))


@pytest.mark.parametrize("n", [5, 50])
def test_leading_directions_by_either_gram_matrix(n):
    g = torch.Generator().manual_seed(1)
    Z = torch.randn(n, 12, generator=g, dtype=torch.float64)
    w = torch.rand(n, generator=g, dtype=torch.float64)
    U, e = leading_directions(Z, w, 4)
    S = Z.T @ (w[:, None] * Z)
    torch.testing.assert_close(S @ U, U * e)
    torch.testing.assert_close(e, torch.linalg.eigvalsh(S).flip(0)[:4])


def test_fewer_rows_than_dimensions_still_give_an_orthonormal_basis():
    Z = torch.randn(2, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    U, e = leading_directions(Z, torch.ones(2, dtype=torch.float64), 4)
    torch.testing.assert_close(U.T @ U, torch.eye(4, dtype=torch.float64))
    assert e[2:].tolist() == [0, 0]
    torch.testing.assert_close(Z @ U @ U.T, Z)


def test_orthonormal_keeps_what_is_orthonormal_with_its_signs():
    _, bases, _ = flats()
    torch.testing.assert_close(orthonormal(-bases), -bases)


@pytest.mark.parametrize(("d", "noise"), [(2, 0.05), (4, 0.05), (4, 0.0)])
def test_dimension_of_clusters_is_found(d, noise):
    g = torch.Generator().manual_seed(3)
    bases = torch.linalg.qr(torch.randn(3, 20, d, generator=g, dtype=torch.float64)).Q
    labels = torch.arange(180) % 3
    X = torch.einsum("nd,nfd->nf", torch.randn(180, d, generator=g, dtype=torch.float64), bases[labels])
    X = X + noise * torch.randn(180, 20, generator=g, dtype=torch.float64)
    assert dims_by_threshold(table_of(X, centred=False), labels, 3) == d


def test_dimension_is_bounded_by_rows_and_features():
    X = torch.randn(9, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert dims_by_threshold(table_of(X, centred=True), torch.arange(9) % 3, 3) == 1
    zeros = table_of(torch.zeros(8, 2, dtype=torch.float64), centred=True)
    assert dims_by_threshold(zeros, torch.arange(8) % 2, 2) == 1


def three_flats(seed=0):
    """Rows (300, 20) near three 3-dimensional flats with means of their own, noise 0.3, and their clusters."""
    rng = np.random.default_rng(seed)
    parts = [
        rng.normal(size=(100, 3)) @ rng.normal(size=(3, 20))
        + 1.5 * rng.normal(size=20)
        + 0.3 * rng.normal(size=(100, 20))
        for _ in range(3)
    ]
    return np.concatenate(parts), np.repeat(range(3), 100), rng


def rare(rng, n_rows, value, count=21):
    """Columns that are zero but in `n_rows` of 300 rows."""
    columns = np.zeros((300, count))
    for column in columns.T:
        column[rng.choice(300, n_rows, replace=False)] = value * rng.normal(size=n_rows)
    return columns


SAME = {
    "as it is": lambda X, rng: X,
    "columns of zeros": lambda X, rng: np.c_[X, np.zeros((300, 21))],
    "constant columns": lambda X, rng: np.c_[X, np.full((300, 40), 7.0)],
    "each column twice": lambda X, rng: np.c_[X, X],
    "each column five times, in other units": lambda X, rng: np.c_[X, 0.5 * X, 2 * X, -X, X],
    "turned into 60 columns": lambda X, rng: X @ np.linalg.qr(rng.normal(size=(60, 20)))[0].T,
    "turned into 60 columns, float32": lambda X, rng: (X @ np.linalg.qr(rng.normal(size=(60, 20)))[0].T).astype(
        np.float32
    ),
    "columns that differ in one row": lambda X, rng: np.c_[X, rare(rng, 1, 1.0)],
    "columns that differ in few rows, far": lambda X, rng: np.c_[X, rare(rng, 3, 5.0)],
    "columns that differ in ten rows": lambda X, rng: np.c_[X, rare(rng, 10, 1.0, count=60)],
    "columns in tiny units": lambda X, rng: np.c_[X, 1e-8 * rng.normal(size=(300, 21))],
    "columns that differ in fifty rows": lambda X, rng: np.c_[X, rare(rng, 50, 0.5, count=60)],
    "all in tiny units": lambda X, rng: 1e-30 * X,
    "all in huge units": lambda X, rng: 1e30 * X,
    "a column for each cluster": lambda X, rng: np.c_[X, np.repeat(np.eye(3), 100, axis=0)],
}


@pytest.mark.parametrize("kind", SAME)
def test_columns_without_noise_of_their_own_change_no_dimension(kind):
    X, y, rng = three_flats()
    table = table_of(torch.from_numpy(SAME[kind](X, rng)).double(), centred=True)
    assert ranks_by_threshold(table, torch.from_numpy(y), 3) == [3, 3, 3]


@pytest.mark.parametrize("n_clusters", [1, 2, 4])
def test_dimension_without_noise(n_clusters):
    """Singular values vanish beyond the dimension; a cluster's flat is smaller than the space of the table."""
    X, y, _ = make_union_of_subspaces(60 * n_clusters, 20, 4, n_clusters, random_state=0)
    for centred in (False, True):
        table = table_of(torch.from_numpy(X), centred=centred)
        assert ranks_by_threshold(table, torch.from_numpy(y), n_clusters) == [4] * n_clusters


def test_a_constant_column_is_a_dimension_of_a_flat_through_the_origin():
    X, y, rng = three_flats()
    X = np.c_[X, np.full(300, 30.0), rare(rng, 3, 1.0)]
    for centred, found in ((True, 3), (False, 4)):  # without it the mean of each flat is a direction too
        table = table_of(torch.from_numpy(X), centred=centred)
        assert ranks_by_threshold(table, torch.from_numpy(y), 3) == [found] * 3


def test_noise_alone_has_no_dimension_with_dead_columns_either():
    noise, labels = np.random.default_rng(0).normal(size=(300, 20)), torch.arange(300) % 3
    for X in (noise, np.c_[noise, np.zeros((300, 30))], np.c_[noise, noise]):
        assert ranks_by_threshold(table_of(torch.from_numpy(X), centred=True), labels, 3) == [0, 0, 0]


def test_sparse_rows_have_the_dimensions_of_dense_ones():
    X, y, rng = three_flats()
    X = np.c_[X, rare(rng, 3, 1.0), np.zeros((300, 5))]
    tables = [table_of(rows, centred=False) for rows in (torch.from_numpy(X), sp.csr_array(X))]
    dense, sparse = (ranks_by_threshold(table, torch.from_numpy(y), 3) for table in tables)
    assert dense == sparse == [4, 4, 4]  # the mean is a direction too


def test_of_equally_near_flats_the_first_is_taken_wherever_a_row_lies():
    """Rows on the crossing of all flats have distances that are rounding, which differs from place to place."""
    g = torch.Generator().manual_seed(0)
    bases = torch.linalg.qr(torch.randn(5, 12, 4, generator=g, dtype=torch.float64)).Q
    common = bases[0, :, :1]
    bases = torch.linalg.qr(torch.cat([common.expand(5, 12, 1), bases], 2)).Q
    X = torch.randn(97, 1, generator=g, dtype=torch.float64) @ common.T
    labels, distance = nearest_flats(X, torch.zeros(5, 12, dtype=torch.float64), bases)
    assert labels.tolist() == [0] * 97
    assert distance.tolist() == [0.0] * 97
    assert first_largest(torch.tensor([[-2.0, -1.0, -1.0 + 1e-12], [3.0, 1.0, 2.0]])).tolist() == [1, 0]


def test_block_power_iteration_reaches_the_leading_directions():
    A = torch.randn(50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.arange(1.0, 13)
    best, e = leading_directions(A, torch.ones(50, dtype=torch.float64), 3)
    start = torch.eye(12, dtype=torch.float64)[:, :3]
    before = (A @ start).square().sum()
    for passes in (1, 200):
        U, squares = improved_directions(A, start, passes)
        torch.testing.assert_close(U.T @ U, torch.eye(3, dtype=torch.float64))
        assert squares.sum() > before
    torch.testing.assert_close(squares, e)
    torch.testing.assert_close(U @ U.T, best @ best.T)
