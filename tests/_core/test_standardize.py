"""Centring and scaling of columns."""

import numpy as np
import pytest
import torch

from sklowrank._core import rows
from sklowrank._core.standardize import standardization, standardized


@pytest.mark.parametrize(
    ("how", "mean", "scale"),
    [("columns", [2.0, 5.0], [1.0, 2.0]), ("global", [2.0, 5.0], [2.5**0.5] * 2), (False, [0.0, 0.0], [1.0, 1.0])],
)
def test_standardization(how, mean, scale):
    X = torch.tensor([[1.0, 3.0], [3.0, 7.0], [1.0, 7.0], [3.0, 3.0]], dtype=torch.float64)
    for found, expected in zip(standardization(X, how), (mean, scale)):
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_constant_columns_are_not_scaled():
    X = torch.full((1001, 3), 0.1, dtype=torch.float64)
    X[:, 2] = torch.arange(1001)
    mean, scale = standardization(X, "columns")
    assert scale[:2].tolist() == [1.0, 1.0]
    assert float(standardized(X, mean, scale)[:, :2].abs().max()) < 1e-12
    assert standardization(X[:, :2], "global")[1].tolist() == [1.0, 1.0]
    assert standardization(X, "columns", constant=0.0)[1].tolist()[:2] == [0.0, 0.0]


def test_constant_columns_vanish_whatever_their_size():
    X = torch.full((1001, 2), 0.1, dtype=torch.float64)
    X[:, 0] = 1.7e25
    assert not standardized(X, *standardization(X, "columns")).any()


def test_a_weight_is_a_number_of_rows():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    count = torch.arange(20) % 4
    weighted = standardization(X, "columns", count / count.sum().double())
    for found, expected in zip(weighted, standardization(X.repeat_interleave(count, 0), "columns")):
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


def test_rows_in_blocks_are_standardized_too(monkeypatch):
    X = torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 1
    expected = standardization(X, "columns")
    monkeypatch.setattr(rows, "rows_per_block", lambda batch_size, n, size: min(n, 37))
    for found, whole in zip(standardization(rows.Rows(X), "columns"), expected):
        np.testing.assert_allclose(found, whole, rtol=1e-13)
