"""Rows are read in blocks, and what is made of them does not depend on where they lie."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from sklowrank._core import rows
from sklowrank._core.rows import (
    MappedRows,
    Rows,
    SlicedArray,
    column_ends,
    is_sliced,
    largest_magnitude,
    map_rows,
    row_weights,
    rows_of,
)
from sklowrank._core.workspace import open_workspace

X = np.random.default_rng(0).normal(size=(100, 3))


@pytest.fixture(autouse=True)
def blocks_of_seven(monkeypatch):
    monkeypatch.setattr(rows, "rows_per_block", lambda batch_size, n, size: min(n, 7))


def total(factor, block, w):
    return (factor * (w @ block), [w])


def test_sums_are_added_and_lists_joined():
    table, w = Rows(X, open_workspace(X)), torch.arange(100, dtype=torch.float64)
    found, listed = table.gather(partial(total, 2.0), w, size=1)
    np.testing.assert_allclose(found, 2 * np.arange(100) @ X)
    assert torch.equal(torch.cat(listed), w)
    assert len(listed) == 1
    assert torch.equal(map_rows(table, torch.square, size=1), torch.from_numpy(X).square())


def test_mapped_rows_are_made_on_the_way():
    table = MappedRows(Rows(torch.from_numpy(X)), partial(torch.mul, 3.0), 3)
    assert (len(table), table.shape) == (100, (100, 3))
    np.testing.assert_allclose(table.take(slice(2, 5)), 3 * X[2:5])
    np.testing.assert_allclose(map_rows(table, torch.neg, size=1), -3 * X)
    assert rows_of(table) is table


def test_ends_and_magnitudes():
    table = Rows(X, open_workspace(X))
    low, high = column_ends(table)
    assert np.array_equal(low, X.min(0))
    assert np.array_equal(high, X.max(0))
    assert largest_magnitude(table) == np.abs(X).max()
    most = int(np.abs(X).max(1).argmax())
    weights = torch.ones(100, dtype=torch.float64)
    weights[most] = 0
    assert largest_magnitude(table, weights) == np.abs(np.delete(X, most, 0)).max()
    assert row_weights(None, table, open_workspace(X)) is None
    assert row_weights(np.ones(100, dtype=int), table, open_workspace(X)).dtype == torch.float64


def test_only_what_lies_on_disk_is_left_there(tmp_path):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    ws = open_workspace(X)
    assert Rows(mapped, ws).kind == "blocks"
    assert Rows(np.asarray(mapped)[10:], ws).kind == "blocks"
    assert Rows(SlicedArray(mapped), ws).kind == "blocks"
    writable = np.load(tmp_path / "X.npy", mmap_mode="r+")
    assert Rows(writable, ws).take(slice(None)).data_ptr() == writable.ctypes.data  # shared, not copied
    locked = X.copy()
    locked.flags.writeable = False
    for array in (X, X.T.copy().T, X[::-1], locked):  # copied once at most, not block by block
        assert Rows(array, ws).kind == "memory"
    assert Rows(X, ws).take(slice(None)).data_ptr() == X.ctypes.data


def test_what_counts_as_sliced(tmp_path):
    np.save(tmp_path / "X.npy", X.astype(np.int16))
    assert is_sliced(np.load(tmp_path / "X.npy", mmap_mode="r"))
    for other in (X, X.astype(int), X.tolist(), torch.from_numpy(X), SlicedArray):
        assert not is_sliced(other)
    sliced = SlicedArray(X.astype(np.float32))
    assert sliced.dtype == np.float32
    assert len(sliced) == 100
    assert sliced[:5].shape == (5, 3)


def test_what_belongs_to_rows_is_put_in_one_tensor():
    X = torch.arange(40.0, dtype=torch.float64).reshape(20, 2)
    rows = Rows(X)

    def both(block):
        return [block[:, 0]], block.sum(0), [block[block[:, 0] % 4 == 0]]

    labels, total, some = rows.gather(both, size=16, batch_size=3)
    assert len(labels) == 1
    torch.testing.assert_close(labels[0], X[:, 0])
    torch.testing.assert_close(total, X.sum(0))
    torch.testing.assert_close(torch.cat(some), X[::2])


def test_rows_that_are_picked_stay_in_order_where_the_first_block_gives_all_of_its_own():
    X = torch.tensor([[1.0], [2.0], [-1.0], [3.0], [-2.0], [4.0]], dtype=torch.float64)
    (picked,) = Rows(X).gather(lambda block: ([block[block[:, 0] > 0]],), size=8, batch_size=2)
    torch.testing.assert_close(torch.cat(picked)[:, 0], torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))


def test_positions_are_a_tensor_for_sparse_rows_too():
    at = torch.tensor([5, 2, 99])
    np.testing.assert_array_equal(Rows(csr_array(X)).take(at).toarray(), X[at.numpy()])


def test_positions_of_a_file_come_in_their_order_and_once_each():
    """Data sets of HDF5 take no others."""

    class Ascending(np.ndarray):
        def __getitem__(self, at):
            assert isinstance(at, slice) or (np.diff(at) > 0).all()
            return np.asarray(super().__getitem__(at))

    X = np.random.default_rng(0).normal(size=(20, 3))
    rows = SlicedArray(X.view(Ascending))
    assert np.array_equal(rows[np.array([7, 3, 3, 19])], X[[7, 3, 3, 19]])
    assert np.array_equal(rows[2:5], X[2:5])
