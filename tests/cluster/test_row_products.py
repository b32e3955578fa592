"""Rows as a dense tensor and as CSR: the same products, norms and subsets."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sklowrank._core.workspace import open_workspace
from sklowrank.cluster._row_products import (
    device_of,
    in_same_format,
    load_rows,
    normalized,
    norms,
    products,
    residuals,
    scaled,
    small_grams,
    take,
    times,
    transposed_times,
    workspace_of_rows,
)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 7)) * (rng.random((12, 7)) < 0.5)
    X[4] = 0
    return torch.from_numpy(X), sp.csr_array(X)


def dense(result):
    return result.toarray() if sp.issparse(result) else result.numpy()


def test_both_formats_agree(rows):
    rng = np.random.default_rng(1)
    M, v, w = (torch.from_numpy(rng.normal(size=shape)) for shape in ((7, 3), 12, (12, 2)))
    at, supports = torch.tensor([3, 0, 4]), torch.tensor([[0, 1], [2, 5], [7, 4]])
    codes = torch.from_numpy(rng.normal(size=(3, 2)))
    for compute in (
        norms,
        normalized,
        lambda X: take(X, at),
        lambda X: products(X, X),
        lambda X: products(X.T, X.T),
        lambda X: times(X, M),
        lambda X: times(X, M[:, 0]),
        lambda X: transposed_times(X, w),
        lambda X: scaled(X, v),
        lambda X: residuals(take(X, at), X, supports, codes),
        lambda X: small_grams(X, supports, None),
        lambda X: small_grams(X, supports, products(X, X)),
    ):
        a, b = (dense(compute(X)) for X in rows)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_norms_are_those_of_rows_and_zeros_stay(rows):
    X = rows[0].numpy()
    np.testing.assert_allclose(norms(rows[1]).numpy(), np.linalg.norm(X, axis=1))
    unit = norms(normalized(rows[1])).numpy()
    np.testing.assert_allclose(unit, np.arange(12) != 4)
    tiny = normalized(1e-200 * rows[0])
    np.testing.assert_allclose(tiny, normalized(rows[0]))


def test_formats_are_made_equal_only_where_they_differ(rows):
    tensor, csr = rows
    assert in_same_format(tensor, tensor) == (tensor, tensor)
    assert in_same_format(csr, csr) == (csr, csr)
    for pair in ((tensor, csr), (csr, tensor)):
        a, b = in_same_format(*pair)
        assert sp.issparse(a)
        assert np.array_equal(a.toarray(), b.toarray())


def test_rows_are_loaded_in_float64_and_csr_on_the_cpu():
    X = np.eye(3, dtype=np.float32)
    assert load_rows(X, open_workspace(X)).dtype == torch.float64
    rows = sp.csr_matrix(X)
    ws = workspace_of_rows(rows, device="auto", random_state=0)
    assert ws.device == device_of(load_rows(rows, ws)) == torch.device("cpu")
    assert load_rows(rows, ws).dtype == np.float64
    assert ws.dtype == torch.float32
