"""Rows that are equal, whatever they are made of and in whatever order they come."""

import numpy as np
import pytest
import torch

from sklowrank._math import distinct
from sklowrank._math.distinct import distinct_rows

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "rows",
    [
        RNG.integers(0, 3, size=(50, 2)),
        RNG.integers(0, 3, size=(50, 2)).astype(np.float32),
        RNG.integers(0, 3, size=50) * 0.1,
        np.where(RNG.random(50) < 0.5, 0.0, -0.0),
        RNG.integers(0, 2, size=(50, 2, 2)).astype(float),
        RNG.choice(["a", "bc", "d"], 50),
        np.array([1, "a", None], dtype=object)[RNG.integers(0, 3, 50)],
        torch.from_numpy(RNG.integers(0, 3, size=(50, 2)) * 1.0),
        torch.from_numpy(RNG.integers(0, 2, size=(50, 2, 2)) * -1.0),
        np.ones((50, 0)),
    ],
    ids=[
        "ints",
        "float32",
        "floats",
        "zeros",
        "matrices",
        "strings",
        "objects",
        "tensor",
        "tensor of matrices",
        "no columns",
    ],
)
def test_kinds_are_those_of_equal_rows(rows):
    first, kind = (np.asarray(part) for part in distinct_rows(rows))
    equal = np.array([[np.all(a == b) for b in np.asarray(rows)] for a in np.asarray(rows)])
    assert np.array_equal(kind[:, None] == kind, equal)
    assert np.array_equal(kind[first], np.arange(len(first)))
    assert all(row == np.flatnonzero(kind == k)[0] for k, row in enumerate(first))


@pytest.mark.parametrize("rows", [np.ones((0, 3)), np.empty(0, dtype=object), torch.ones(0, 3), torch.ones(0)])
def test_no_rows_have_no_kinds(rows):
    for part in distinct_rows(rows):
        assert len(part) == 0
        assert str(part.dtype).endswith("int64")


def test_the_order_of_the_rows_does_not_number_the_kinds():
    rows, order = RNG.integers(0, 4, size=(60, 2)) * 0.5, RNG.permutation(60)
    assert np.array_equal(distinct_rows(rows)[1][order], distinct_rows(rows[order])[1])


def test_arrays_of_unequal_size_and_what_cannot_be_hashed():
    rows = np.empty(5, dtype=object)
    for i, value in enumerate(([1.0, 2.0], [1.0], [1.0, 2.0], [3.0], [1.0])):
        rows[i] = np.array(value)
    kind = distinct_rows(rows)[1]
    assert np.array_equal(kind[:, None] == kind, np.array([0, 1, 0, 2, 1])[:, None] == [0, 1, 0, 2, 1])
    same = {"a": 1}
    rows[:] = [same, {"a": 1}, same, 7, 7]
    kind = distinct_rows(rows)[1]
    assert kind[0] == kind[2] != kind[1]
    assert kind[3] == kind[4]


@pytest.mark.parametrize("n_columns", [1, 3])
def test_rows_of_one_hash_are_told_apart(monkeypatch, n_columns):
    rows = torch.from_numpy(RNG.integers(0, 3, size=(40, n_columns)) * 1.0)
    expected = distinct_rows(rows)[1]
    monkeypatch.setattr(distinct, "_hashed", lambda block: torch.zeros(len(block), dtype=torch.int64))
    kind = distinct_rows(rows)[1]
    assert torch.equal(kind[:, None] == kind, expected[:, None] == expected)


def test_rows_of_small_integers_do_not_share_hashes():
    grid = torch.cartesian_prod(*[torch.arange(20, dtype=torch.float64)] * 3)
    assert len(torch.unique(distinct._hashed(grid))) == len(grid)
