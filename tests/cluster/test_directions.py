"""Rows of one direction: found among many, also in float32 and CSR, and given the codes of the first of them."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sklowrank.cluster._directions import codes_of_all, distinct_directions, graph_of_all
from sklowrank.cluster._row_products import take


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def copies(dtype=np.float64, n=60, seed=0):
    """Unit rows of multiples of n rows, the first of each at its place among the n first; and which row each is."""
    rng = np.random.default_rng(seed)
    X, which = rng.normal(size=(n, 8)), rng.integers(n, size=3 * n)
    factors = rng.choice([-3.7, -1.0, 1e-3, 1.0, 2e4], size=3 * n)
    rows = np.vstack([X, factors[:, None] * X[which]]).astype(dtype)
    return unit(rows.astype(np.float64)), np.r_[np.arange(n), which], np.r_[np.ones(n), np.sign(factors)]


@pytest.mark.parametrize("form", [torch.from_numpy, sp.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multiples_are_one_direction(dtype, form):
    rows, which, sign = copies(dtype)
    found = distinct_directions(form(rows))
    assert found.first.tolist() == list(range(60))
    assert found.place.tolist() == which.tolist()
    assert found.sign.tolist() == sign.tolist()
    again = take(form(rows), found.first)
    assert distinct_directions(again).first.tolist() == list(range(60))


def test_negatives_are_other_rows_where_signs_count():
    rows, which, sign = copies()
    found = distinct_directions(torch.from_numpy(rows), negatives=False)
    assert len(found.first) == len({(k, s) for k, s in zip(which, sign)})
    assert found.sign.unique().tolist() == [1.0]


def test_rows_that_differ_stay_apart_however_near_the_origin_they_lie():
    """The distance that counts is relative to that of the rows from their mean: an offset of 1e6 hides nothing."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    for rows in (X, X + 1e6, 1e-150 * X, np.zeros((4, 5))):
        n = len(np.unique(rows, axis=0))
        assert len(distinct_directions(torch.from_numpy(np.vstack([rows, rows]))).first) == n


def test_codes_and_graph_of_all_rows():
    rows, _, _ = copies()
    found = distinct_directions(torch.from_numpy(rows))
    m = len(found.first)
    C = np.random.default_rng(1).normal(size=(m, m)) * (1 - np.eye(m))
    dense = codes_of_all(torch.from_numpy(C), found)
    sparse = codes_of_all(sp.csr_array(C), found)
    assert np.array_equal(sparse.toarray(), dense.numpy())
    first = rows[:m]
    np.testing.assert_allclose(dense.numpy() @ rows, found.sign.numpy()[:, None] * (C @ first)[found.place.numpy()])
    assert np.all(np.diag(dense.numpy()) == 0)
    W = sp.csr_array(np.abs(C) + np.abs(C).T)
    full = graph_of_all(W, found).toarray()
    place = found.place.numpy()
    assert np.array_equal(full, W.toarray()[place][:, place])
