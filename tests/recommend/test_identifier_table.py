"""The cuckoo table against a dict: growth, moves, removal, reuse of rows, what it saves; and the hash trick."""

import pickle

import numpy as np
import pytest

from sklowrank.recommend._identifier_keys import keys_of
from sklowrank.recommend._identifier_table import MAX_LOAD, SLOTS, CuckooTable, ModuloTable


def distinct(n, seed=0):
    return keys_of(np.random.default_rng(seed).permutation(n) * 2**20, 0)


def consistent(table):
    """Each row has its key, each key its row, and slots in use come first in their buckets."""
    used = table._rows >= 0
    assert np.array_equal(used.sum(axis=1), table._fill)
    assert np.all(np.diff(used.astype(int), axis=1) <= 0)
    live = table.live_rows()
    assert np.array_equal(np.sort(table._rows[used]), live)
    assert len(live) == table.n_ids == used.sum()
    assert np.array_equal(table.find(table.keys_of_rows()[live]), live)
    assert table.n_ids <= MAX_LOAD * table._rows.size


def test_an_empty_table():
    table = CuckooTable()
    assert table.n_ids == table.n_rows == len(table.keys_of_rows()) == len(table.live_rows()) == 0
    assert table.find(np.array([0, 1, -1])).tolist() == [-1, -1, -1]  # key 0 too, which empty slots hold
    assert table.find(np.empty(0, np.int64)).shape == table.add(np.empty(0, np.int64)).shape == (0,)
    assert table.remove(np.array([0])).tolist() == [-1]


@pytest.mark.parametrize("batch", [1, 7, 1000, 30_000])
def test_rows_are_given_in_the_order_of_keys_while_it_grows(batch):
    n = 300 if batch == 1 else 30_000
    table, keys = CuckooTable(), distinct(n)
    for start in range(0, n, batch):
        rows = table.add(keys[start : start + batch])
        assert np.array_equal(rows, np.arange(start, min(start + batch, n)))
    assert np.array_equal(table.find(keys), np.arange(n))
    assert np.all(table.find(keys_of(np.arange(1000), 1)) == -1)
    consistent(table)


def test_extreme_keys_and_keys_that_are_not_mixed():
    table = CuckooTable()
    keys = np.r_[[0, -1, 2**63 - 1, -(2**63)], np.arange(1, 5_000), np.arange(1, 5_000) * 2**40]
    assert np.array_equal(table.add(keys), table.find(keys))
    consistent(table)


def test_a_table_that_is_full_moves_keys():
    table, keys = CuckooTable(), distinct(55_705)  # 0.85 of 4 * 2 ** 14 slots
    table.add(keys[:40_000])
    buckets = len(table._fill)
    for start in range(40_000, len(keys), 200):
        table.add(keys[start : start + 200])
    assert len(table._fill) == buckets
    consistent(table)


def test_against_a_dict():
    g = np.random.default_rng(0)
    table, reference, every = CuckooTable(), {}, distinct(3_000, seed=1)
    for _ in range(400):
        known = table.find(every) >= 0
        assert set(every[known].tolist()) == set(reference)
        if g.random() < 0.55:
            new = g.permutation(every[~known])[: g.integers(0, 200)]
            rows = table.add(new)
            assert not set(rows.tolist()) & set(reference.values())  # nobody else's
            reference |= dict(zip(new.tolist(), rows.tolist()))
        else:
            old = g.permutation(every[known])[: g.integers(0, 200)]
            rows = table.remove(old)
            assert rows.tolist() == [reference.pop(key) for key in old.tolist()]
        asked = g.choice(every, 50)
        assert table.find(asked).tolist() == [reference.get(key, -1) for key in asked.tolist()]
        assert len(reference) == table.n_ids
        assert len(set(reference.values())) == len(reference)
    consistent(table)


def test_free_rows_come_before_new_ones():
    table, keys = CuckooTable(), distinct(1_000)
    table.add(keys[:500])
    gone = table.remove(keys[100:200])
    assert table.n_rows == 500
    assert table.n_ids == 400
    rows = table.add(keys[500:700])
    assert set(rows[:100].tolist()) == set(gone.tolist())
    assert np.array_equal(rows[100:], np.arange(500, 600))
    assert np.array_equal(table.keys_of_rows()[rows], keys[500:700])
    assert table.remove(np.r_[keys[:2], keys[150:152]]).tolist() == [0, 1, -1, -1]  # those that left have no row
    consistent(table)


def test_a_table_with_many_comings_and_goings_does_not_grow():
    table = CuckooTable()
    for turn in range(200):
        keys = keys_of(np.arange(turn * 500, turn * 500 + 500), 0)
        table.add(keys)
        table.remove(keys)
    assert table.n_rows == 500
    assert len(table._fill) <= 256
    consistent(table)


def test_a_copy_is_one_of_its_own():
    table, keys = CuckooTable(), distinct(2_000)
    table.add(keys[:1000])
    other = table.copy()
    table.remove(keys[:500])
    table.add(keys[1000:])
    assert np.array_equal(other.find(keys[:1000]), np.arange(1000))
    assert np.all(other.find(keys[1000:]) == -1)
    consistent(other)
    consistent(table)


@pytest.mark.parametrize("how", ["arrays", "pickle"])
def test_a_table_that_was_saved_goes_on_as_if_it_had_not_been(how):
    table, keys = CuckooTable(), distinct(5_000)
    table.add(keys[:3000])
    table.remove(keys[np.random.default_rng(0).permutation(3000)[:1000]])
    other = CuckooTable.from_arrays(table.arrays()) if how == "arrays" else pickle.loads(pickle.dumps(table))
    assert np.array_equal(other.find(keys), table.find(keys))
    assert np.array_equal(other.add(keys[3000:]), table.add(keys[3000:]))
    assert np.array_equal(other.find(keys), table.find(keys))
    consistent(other)


@pytest.mark.parametrize(
    "change",
    [
        {"row_keys": None},
        {"row_keys": np.zeros((2, 2), np.int64)},
        {"row_keys": np.arange(10.0)},
        {"row_keys": np.zeros(10, np.int64)},
        {"free_rows": np.array([10])},
        {"free_rows": np.array([-1])},
        {"free_rows": np.array([3, 3])},
        {"free_rows": [1]},
    ],
)
def test_arrays_that_are_no_table_are_refused(change):
    table = CuckooTable()
    table.add(np.arange(10))
    with pytest.raises(ValueError, match=next(iter(change))):
        CuckooTable.from_arrays({**table.arrays(), **change})


def test_keys_that_were_made_to_meet_in_two_buckets_have_a_row_each():
    multiplier = 0x9E3779B97F4A7C15
    found = [(i * pow(multiplier, -1, 2**64)) % 2**64 for i in range(60_000)]  # all in bucket 0 of the first kind
    second = np.array(found, np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F) >> np.uint64(52)
    keys = np.array(found, np.uint64)[second == second[0]].view(np.int64)
    assert len(keys) > 2 * SLOTS
    table = CuckooTable()
    assert np.array_equal(table.add(keys[:5]), np.arange(5))
    table.add(keys[5:])
    consistent(table)
    assert len(table._fill) <= 64
    for other in (CuckooTable.from_arrays(table.arrays()), table.copy()):
        assert np.array_equal(other.find(keys), np.arange(len(keys)))
        other.add(distinct(1000))
        consistent(other)


def test_the_hash_trick_shares_rows():
    table, keys = ModuloTable(100), distinct(60)
    assert np.all(table.find(keys) == -1)
    rows = table.add(keys)
    assert np.array_equal(rows, table.find(keys))
    assert table.n_ids == len(np.unique(rows)) == len(table.live_rows()) < 60
    assert table.n_rows == 100
    assert np.array_equal(
        table.keys_of_rows()[rows] == keys, np.isin(np.arange(60), np.unique(rows, return_index=True)[1])
    )
    other = ModuloTable.from_arrays(table.arrays())
    assert np.array_equal(table.remove(keys[:1]), rows[:1])
    assert table.find(keys[:1]) == -1
    assert np.array_equal(other.find(keys), rows)
    assert other.copy().n_ids == other.n_ids


@pytest.mark.parametrize("change", [{"live": np.zeros(3, bool)}, {"live": np.ones(100, bool)}, {"row_keys": None}])
def test_arrays_that_are_no_hash_trick_are_refused(change):
    table = ModuloTable(100)
    table.add(distinct(60))
    with pytest.raises(ValueError):
        ModuloTable.from_arrays({**table.arrays(), **change})
