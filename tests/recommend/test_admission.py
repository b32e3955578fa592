"""Filters of new identifiers against counts in a dict."""

import numpy as np
import pytest

from sklowrank.recommend._admission import ChanceFilter, ExactFilter, SketchFilter, make_filter
from sklowrank.recommend._identifier_keys import keys_of


def stream(n_ids, n, seed=0):
    """Keys of a stream, of which some come often and many once."""
    g = np.random.default_rng(seed)
    return keys_of((g.pareto(0.7, n) * 3).astype(np.int64) % n_ids, 0)


def run(keep, keys, batch, min_count, admitted=None):
    """Pass a stream through a filter in batches; return where in the stream each key was admitted."""
    admitted = {} if admitted is None else admitted
    for start in range(0, len(keys), batch):
        new, counts = np.unique([k for k in keys[start : start + batch] if k not in admitted], return_counts=True)
        mask = keep.admit(new.astype(np.int64), counts, np.full(len(new), min_count), np.random.default_rng(start))
        admitted |= dict.fromkeys(new[mask].tolist(), start)
    return admitted


def by_dict(keys, batch, min_count):
    counts, admitted = {}, {}
    for i, key in enumerate(keys.tolist()):
        counts[key] = counts.get(key, 0) + 1
        if counts[key] == min_count:
            admitted[key] = i // batch * batch
    return admitted


@pytest.mark.parametrize("batch", [1, 10, 500])
@pytest.mark.parametrize("min_count", [1, 2, 5])
def test_exact_counts(batch, min_count):
    keys, keep = stream(3_000, 2_000), ExactFilter()
    admitted = run(keep, keys, batch, min_count)
    assert admitted == by_dict(keys, batch, min_count)
    assert keep.n_waiting == len(np.unique(keys)) - len(admitted)  # counts of those admitted are dropped


def test_thresholds_differ_by_key():
    keys = np.array([10, 20, 30])
    keep = ExactFilter()
    assert keep.admit(keys, np.array([1, 1, 1]), np.array([1, 2, 3])).tolist() == [True, False, False]
    assert keep.admit(keys[1:], np.array([1, 1]), np.array([2, 3])).tolist() == [True, False]
    assert keep.admit(keys[2:], np.array([1]), 3).tolist() == [True]
    assert keep.n_waiting == 0
    assert keep.admit(keys[2:], np.array([2]), 3).tolist() == [False]  # counted from the beginning again


@pytest.mark.parametrize("batch", [1, 32, 2_000])
def test_the_sketch_counts_as_exactly_while_it_has_room(batch):
    keys = stream(3_000, 2_000)
    keep = SketchFilter(10_000)
    admitted, exact = run(keep, keys, batch, 3), by_dict(keys, batch, 3)
    assert set(exact) <= set(admitted)
    assert len(set(admitted) ^ set(exact)) <= 0.01 * len(np.unique(keys))  # equal signatures
    assert abs(keep.n_waiting - (len(np.unique(keys)) - len(admitted))) <= 0.01 * len(np.unique(keys))
    assert keep._used == np.count_nonzero(keep._cells[keep._newest])


def test_the_sketch_forgets_those_that_stay_away_and_does_not_grow():
    keep = SketchFilter(2_000)
    size = keep._cells.nbytes
    early = keys_of(np.arange(500), 0)
    assert not keep.admit(early, np.ones(500, int), 3).any()
    for turn in range(20):
        keep.admit(keys_of(np.arange(1_000, 1_400) + 400 * turn, 0), np.ones(400, int), 3)
        if turn == 2:  # about 1,200 others later they still are counted
            assert not keep.admit(early[:250], np.ones(250, int), 3).mean() > 0.02
    assert keep.admit(early, np.full(500, 2), 3).mean() < 0.05  # 8,000 later they are not
    assert keep._cells.nbytes == size
    assert keep.n_waiting <= 5 * keep._share


def test_the_sketch_carries_counts_forward():
    keep = SketchFilter(2_000)
    key, once = keys_of(np.array([7]), 0), np.ones(1, int)
    for turn in range(9):
        assert not keep.admit(key, once, 10).any()
        keep.admit(keys_of(np.arange(1_000) + 1_000 * turn, 1), np.ones(1_000, int), 15)  # many times its capacity
    assert keep.admit(key, once, 10).all()


def test_new_identifiers_seldom_meet_the_counts_of_others():
    keep = SketchFilter(40_000)
    for turn in range(10):
        keep.admit(keys_of(np.arange(8_000) + 8_000 * turn, 0), np.full(8_000, 14), 15)
    new = keys_of(np.arange(20_000), 1)
    assert keep.admit(new, np.ones(20_000, int), 15).mean() < 0.02


def test_the_sketch_with_batches_larger_than_itself():
    keep = SketchFilter(1)
    keys = keys_of(np.arange(5_000), 0)
    assert not keep.admit(keys, np.ones(5_000, int), 2).mean() > 0.1
    assert keep.admit(keys, np.full(5_000, 100), 15).all()
    assert keep._used == np.count_nonzero(keep._cells[keep._newest]) == 0


@pytest.mark.parametrize("batch", [1, 4, 20])
@pytest.mark.parametrize("min_count", [1, 5, 20])
def test_chance_admits_95_percent_after_min_count_occurrences(batch, min_count):
    generator, keep = np.random.default_rng(0), ChanceFilter()
    outside = np.ones(20_000, bool)
    for start in range(0, min_count, batch):
        counts = np.full(outside.sum(), min(batch, min_count - start))
        outside[outside] = ~keep.admit(np.arange(outside.sum()), counts, min_count, generator)
    assert outside.mean() == 0 if min_count == 1 else abs(outside.mean() - 0.05) < 0.0062  # four standard errors


@pytest.mark.parametrize("settings", [("count", None), ("count", 300), ("probabilistic", None)])
def test_a_filter_that_was_saved_goes_on_as_if_it_had_not_been(settings):
    keys, keep = stream(3_000, 4_000), make_filter(*settings)
    admitted = run(keep, keys[:2_000], 50, 4)
    other = type(keep).from_arrays(keep.arrays())
    assert run(other, keys[2_000:], 50, 4, dict(admitted)) == run(keep, keys[2_000:], 50, 4, dict(admitted))
    assert other.n_waiting == keep.n_waiting


@pytest.mark.parametrize("keep", [ExactFilter(), SketchFilter(500)])
def test_arrays_that_are_no_filter_are_refused(keep):
    keep.admit(np.arange(100), np.ones(100, int), 3)
    arrays = keep.arrays()
    for name in arrays:
        for wrong in (None, np.zeros_like(arrays[name], shape=3), arrays[name].astype(float), arrays[name][None]):
            with pytest.raises(ValueError, match=r"filter|table"):
                type(keep).from_arrays({**arrays, name: wrong})


def test_no_keys():
    for keep in (ExactFilter(), SketchFilter(100), ChanceFilter()):
        assert keep.admit(np.empty(0, np.int64), np.empty(0, int), 3, np.random.default_rng(0)).shape == (0,)
