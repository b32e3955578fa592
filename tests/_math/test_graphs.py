"""Affinities of codes and spectral labels of graphs."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import adjusted_rand_score

from sklowrank._math.graphs import (
    affinity,
    csr_from,
    graph_clusters,
    spectral_labels,
    spread,
    strong_components,
)


def blocks(sizes, inside=0.9, between=0.0, seed=0):
    """A random graph of cliques, more or less dense inside and between."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    share = np.where(y[:, None] == y, inside, between)
    A = np.triu(rng.random(share.shape) < share, 1).astype(float)
    return sp.csr_array(A + A.T), y


def codes(n=30, seed=0):
    rng = np.random.default_rng(seed)
    C = rng.normal(size=(n, n)) * (rng.random((n, n)) < 0.3)
    np.fill_diagonal(C, 0)
    return C


@pytest.mark.parametrize("how", ["max", "sum", "doubly_stochastic", "nearest_neighbors"])
@pytest.mark.parametrize("dense", [False, True])
def test_affinity_is_symmetric_nonnegative_with_an_empty_diagonal(how, dense):
    C = codes()
    W = affinity(torch.from_numpy(C) if dense else sp.csr_array(C), how)
    assert sp.issparse(W)
    assert W.format == "csr"
    assert abs(W - W.T).max() < 1e-12
    assert W.min() >= 0
    assert np.all(W.diagonal() == 0)
    other = affinity(sp.csr_array(C) if dense else torch.from_numpy(C), how)
    np.testing.assert_allclose(W.toarray(), other.toarray(), atol=1e-12)


def test_sum_and_max_by_their_formulas():
    C = codes()
    A = np.abs(C)
    np.testing.assert_allclose(affinity(sp.csr_array(C), "sum").toarray(), A + A.T)
    A = A / A.max(1, keepdims=True)
    np.testing.assert_allclose(affinity(sp.csr_array(C), "max").toarray(), A + A.T)


def test_the_diagonal_of_the_codes_does_not_count():
    C = codes()
    with_own = C + 5 * np.eye(len(C))
    np.testing.assert_allclose(
        affinity(sp.csr_array(with_own), "max").toarray(), affinity(sp.csr_array(C), "max").toarray()
    )


def test_doubly_stochastic_rows_sum_to_one():
    W = affinity(sp.csr_array(codes(60)), "doubly_stochastic")
    np.testing.assert_allclose(W.sum(axis=1), 1, atol=1e-3)
    assert W.nnz < affinity(sp.csr_array(codes(60)), "sum").nnz


def test_doubly_stochastic_is_the_projection():
    """Any other feasible matrix is farther from the scaled codes: mixtures with the identity's cycle, for instance."""
    C = np.abs(codes(12, seed=1)) + 0.05
    np.fill_diagonal(C, 0)
    K = (C + C.T) / 2
    W = affinity(sp.csr_array(C), "doubly_stochastic").toarray()
    eta = 0.01 * K.max(1).mean()

    def objective(P):
        return eta / 2 * (P**2).sum() - (K * P).sum()

    cycle = np.roll(np.eye(12), 1, 1)
    other = (cycle + cycle.T) / 2
    for t in (1e-3, 0.1, 0.5):
        assert objective((1 - t) * W + t * other) >= objective(W) - 1e-6


def test_nearest_neighbours_join_rows_with_similar_codes():
    C = np.zeros((8, 8))
    C[:4, 4:6] = [[1, 0.1], [1, 0.2], [1, 0.15], [1, 0.12]]
    C[4:, :2] = [[0.1, 1], [0.2, 1], [0.15, 1], [0.12, 1]]
    W = affinity(sp.csr_array(C), "nearest_neighbors", n_neighbors=2).toarray()
    assert W[:4, 4:].sum() == 0
    assert (W[:4, :4] > 0).sum(1).min() >= 2


@pytest.mark.parametrize("assign", ["kmeans", "cluster_qr"])
@pytest.mark.parametrize("size", [30, 200])  # decomposed densely, and by Lanczos
def test_planted_clusters_are_found(assign, size):
    W, y = blocks([size, size, size], inside=0.5, between=0.03)
    labels = spectral_labels(W, 3, random_state=0, assign_labels=assign)
    assert adjusted_rand_score(y, labels) > 0.95
    assert np.array_equal(labels, spectral_labels(W, 3, random_state=0, assign_labels=assign))


def test_components_are_the_clusters_where_there_are_as_many():
    """One eigenvector too few, or the constant one dropped, would leave two of five components together."""
    W, y = blocks([20, 25, 30, 35, 40])
    labels, n_components = graph_clusters(W, 5, random_state=0)
    assert n_components == 5
    assert adjusted_rand_score(y, labels) == 1


def test_fewer_components_than_clusters_are_divided():
    W, _ = blocks([60, 60], inside=0.9)
    inner, y = blocks([40, 40], inside=0.5, between=0.02, seed=1)
    W = sp.block_diag([W, inner], format="csr")
    truth = np.concatenate([np.repeat([0, 1], 60), y + 2])
    assert adjusted_rand_score(truth, spectral_labels(W, 4, random_state=0)) > 0.95


def test_specks_do_not_take_eigenvectors():
    """Three specks of two rows have eigenvalue 1; clustered naively they would be three of the three clusters."""
    big, y = blocks([60, 60, 60], inside=0.5, between=0.03)
    speck = sp.csr_array(np.array([[0.0, 1], [1, 0]]))
    W = sp.block_diag([big, speck, speck, speck], format="csr")
    labels, n_components = graph_clusters(W, 3, random_state=0)
    assert n_components == 4
    assert np.all(labels[180:] == -1)
    assert adjusted_rand_score(y, labels[:180]) > 0.95
    assert spectral_labels(W, 3, random_state=0).min() == 0


def test_rows_without_an_edge_are_left_out():
    W, y = blocks([30, 30])
    W = sp.block_diag([W, sp.csr_array((2, 2))], format="csr")
    labels, _ = graph_clusters(W, 2, random_state=0)
    assert labels[-2:].tolist() == [-1, -1]
    assert adjusted_rand_score(y, labels[:-2]) == 1
    assert np.isfinite(spectral_labels(sp.csr_array((5, 5)), 2, random_state=0)).all()


def test_global_generator_is_left_alone():
    W, _ = blocks([80, 80], inside=0.4, between=0.05)
    state = np.random.get_state()[1].copy()
    spectral_labels(W, 2, random_state=3)
    assert np.array_equal(state, np.random.get_state()[1])


def test_csr_from_columns_and_values():
    columns = torch.tensor([[2, 0], [1, 2]])
    values = torch.tensor([[5.0, 4.0], [0.0, 3.0]])
    C = csr_from(columns, values, 3)
    assert C.toarray().tolist() == [[4, 0, 5], [0, 0, 3]]
    assert C.nnz == 3


def test_components_by_strong_edges():
    """Ten pairs of rows with strong edges, and weak edges between all of them: one component, ten by strong edges."""
    pairs = np.kron(np.eye(10), [[0.0, 1], [1, 0]])
    W = sp.csr_array(pairs + 0.01 * (1 - np.eye(20)))
    assert strong_components(W, 2, 0.1) == (10, 0.8)
    assert strong_components(W, 2, 0.0) == (1, 0.0)
    assert strong_components(sp.csr_array(pairs + 0.2 * (1 - np.eye(20))), 2, 0.1) == (1, 0.0)
    assert strong_components(sp.csr_array((6, 6)), 2, 0.1) == (6, 1.0)  # no edge at all


def test_copies_have_the_neighbours_of_the_row_that_they_equal():
    W = sp.csr_array(np.array([[0.0, 2, 0], [2, 0, 3], [0, 3, 0]]))
    full = spread(W, np.array([1, 0, 1, -1, 2])).toarray()
    assert full.tolist() == [[0, 2, 0, 0, 3], [2, 0, 2, 0, 0], [0, 2, 0, 0, 3], [0] * 5, [3, 0, 3, 0, 0]]
