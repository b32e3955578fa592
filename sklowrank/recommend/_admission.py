"""Admission of new identifiers: which of those that have no row get one now.

Each filter has `admit(keys, counts, min_counts, generator)`: of distinct keys that have no row, each seen `counts`
times in this batch, it returns a mask of those that get one. It keeps what it has to know of the others until they come
again, and forgets a key that it has admitted.
"""

import numpy as np

from ._identifier_keys import mix
from ._identifier_table import CuckooTable

MAX_COUNT = 15  # of the sketch, whose counts have four bits
_MISSED = 0.05  # share of identifiers that chance leaves out after min_count occurrences
_N_SPLITS = 5
_LEAST_SPLIT = 64  # identifiers of one split
_WINDOW = 16  # cells in which an identifier may stand
_BLOCK = 1 << 14  # identifiers looked up at once


def make_filter(admission, filter_capacity):
    """Return a new filter: by exact counts, by a bounded sketch of counts, or by chance."""
    if admission == "probabilistic":
        return ChanceFilter()
    return ExactFilter() if filter_capacity is None else SketchFilter(filter_capacity)


class ExactFilter:
    """Admit at the occurrence with number `min_count`, by one exact count for each identifier that waits."""

    def __init__(self):
        self._table, self._counts = CuckooTable(), np.empty(0, np.int64)

    @property
    def n_waiting(self):
        """Number of identifiers that are counted."""
        return self._table.n_ids

    def admit(self, keys, counts, min_counts, generator=None):
        """Return the mask of the keys that get a row now."""
        rows = self._table.find(keys) if self._table.n_ids else np.full(len(keys), -1)
        known = rows >= 0
        totals = counts.astype(np.int64)
        totals[known] += self._counts[rows[known]]
        admitted = totals >= min_counts
        self._table.remove(keys[admitted & known])
        rows[~admitted & ~known] = self._table.add(keys[~admitted & ~known])
        if self._table.n_rows > len(self._counts):
            self._counts = np.append(self._counts, np.zeros(self._table.n_rows, np.int64))  # twice as long
        self._counts[rows[~admitted]] = totals[~admitted]
        return admitted

    def arrays(self):
        """Return the filter as a dict of arrays."""
        return {**self._table.arrays(), "counts": self._counts[: self._table.n_rows].copy()}

    @classmethod
    def from_arrays(cls, arrays):
        """Return the filter of which :meth:`arrays` gave the arrays; ValueError where they are none."""
        self = cls()
        self._table, self._counts = CuckooTable.from_arrays(arrays), _checked(arrays, "counts", np.int64, 1).copy()
        if len(self._counts) != self._table.n_rows:
            raise ValueError("Array 'counts' of the filter has to be as long as its array 'row_keys'.")
        return self


class SketchFilter:
    """Admit at about the occurrence with number `min_count`, in memory that does not grow with identifiers.

    Cells of 16 bits, 12 of a signature and four of a count up to 15, in a ring of splits. New identifiers are counted
    in the newest split until it has its share of `capacity`; then the oldest is cleared and becomes the newest. An
    identifier that is seen again takes its count to the newest split, so that those are forgotten that were not seen
    for about `capacity` others. Two identifiers of one signature in the same window of cells share a count: about 0.5 %
    of new ones meet such a count.
    """

    def __init__(self, capacity):
        share = max(_LEAST_SPLIT, -(-capacity // (_N_SPLITS - 1)))  # besides the one that is being filled
        self._cells = np.zeros((_N_SPLITS, 1 << (2 * share - 1).bit_length()), np.uint16)
        self._share, self._newest, self._used = share, 0, 0

    @property
    def n_waiting(self):
        """Number of counts that are kept."""
        return int(np.count_nonzero(self._cells))

    def admit(self, keys, counts, min_counts, generator=None):
        """Return the mask of the keys that get a row now."""
        min_counts = np.broadcast_to(min_counts, len(keys))
        admitted = np.empty(len(keys), bool)
        start = 0
        while start < len(keys):
            if self._used >= self._share:
                self._slide()
            part = slice(start, start + min(_BLOCK, self._share - self._used))
            admitted[part] = self._admit(keys[part], counts[part], min_counts[part])
            start = part.stop
        return admitted

    def _admit(self, keys, counts, min_counts):
        windows, signatures = self._places(keys)
        cells = self._cells[:, windows]  # (splits, keys, window)
        same = (cells >> 4 == signatures[:, None]) & (cells > 0)
        totals = np.where(same, cells & MAX_COUNT, 0).max(axis=(0, 2), initial=0) + np.minimum(counts, MAX_COUNT)
        admitted = totals >= min_counts
        split, key, at = np.nonzero(same)
        self._used -= len(np.unique(windows[key, at][split == self._newest]))
        self._cells[split, windows[key, at]] = 0  # written again in the newest split, or forgotten
        wait = np.flatnonzero(~admitted)
        new = (signatures[wait] << 4) | np.minimum(totals[wait], MAX_COUNT).astype(np.uint16)
        self._write(windows[wait], new)
        return admitted

    def _write(self, windows, cells):
        """Put cells into the first empty places of their windows; one that finds none takes its last place."""
        newest = self._cells[self._newest]
        while len(cells):
            empty = newest[windows] == 0
            at = np.where(empty.any(axis=1), empty.argmax(axis=1), _WINDOW - 1)
            place = windows[np.arange(len(cells)), at]
            _, first = np.unique(place, return_index=True)
            self._used += int((newest[place[first]] == 0).sum())
            newest[place[first]] = cells[first]
            left = np.ones(len(cells), bool)
            left[first] = False
            windows, cells = windows[left], cells[left]

    def _slide(self):
        self._newest = (self._newest + 1) % _N_SPLITS
        self._cells[self._newest] = 0
        self._used = 0

    def _places(self, keys):
        """The cells (n, window) in which each key may stand, and its signature."""
        bits = mix(keys.view(np.uint64))
        home = (bits & np.uint64(self._cells.shape[1] - 1)).astype(np.int64)
        return (home[:, None] + np.arange(_WINDOW)) % self._cells.shape[1], (bits >> np.uint64(52)).astype(np.uint16)

    def arrays(self):
        """Return the filter as a dict of arrays."""
        return {"cells": self._cells.copy(), "state": np.array([self._share, self._newest, self._used], np.int64)}

    @classmethod
    def from_arrays(cls, arrays):
        """Return the filter of which :meth:`arrays` gave the arrays; ValueError where they are none."""
        cells, state = _checked(arrays, "cells", np.uint16, 2), _checked(arrays, "state", np.int64, 1)
        self = cls(1)
        width = 1 << (2 * int(state[0]) - 1).bit_length() if len(state) == 3 and state[0] >= _LEAST_SPLIT else 0
        if cells.shape != (_N_SPLITS, width) or not 0 <= state[1] < _N_SPLITS or not 0 <= state[2] <= state[0]:
            raise ValueError("Arrays 'cells' and 'state' of the filter do not fit one another.")
        self._cells = cells.copy()
        self._share, self._newest, self._used = map(int, state)
        return self


class ChanceFilter:
    """Admit by chance, without any memory: 95 % are in after `min_count` occurrences; all at once where it is 1."""

    n_waiting = 0

    def admit(self, keys, counts, min_counts, generator):
        """Return the mask of the keys that get a row now; one number is drawn for each key."""
        missed = _MISSED ** (counts / np.asarray(min_counts))  # (1 - p) ** counts, p the chance of one occurrence
        return (generator.random(len(keys)) >= missed) | (np.asarray(min_counts) == 1)

    def arrays(self):
        """Return the filter as a dict of arrays, of which it has none."""
        return {}

    @classmethod
    def from_arrays(cls, arrays):
        """Return the filter."""
        return cls()


def _checked(arrays, name, dtype, ndim):
    """An array of the dict, of its dimensions and type."""
    array = arrays.get(name)
    if not isinstance(array, np.ndarray) or array.ndim != ndim or array.dtype != dtype:
        raise ValueError(f"The arrays of the filter have to hold {name!r}, of {ndim} dimensions and {np.dtype(dtype)}.")
    return array
