"""Distances from flats, best flats, the dimension of clusters."""

import pytest
import torch

from sklowrank._core.subspaces import (
    coordinates,
    dims_by_threshold,
    leading_directions,
    orthonormal,
    squared_distances,
    table_of,
)


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
