"""Tables from 64-bit keys to rows: a cuckoo table in which no two keys share a row, and the colliding hash trick.

The cuckoo table has buckets of four slots, and two buckets for each key. A lookup compares the eight keys of its two
buckets; an insertion takes the emptier bucket, and where both are full moves a key that stands there to its other
bucket. All of this is done for many keys at once.
"""

import numpy as np

from ._identifier_keys import mix

SLOTS = 4
MAX_LOAD = 0.85
_LEAST_BUCKETS = 16
_ROUNDS = 500  # of moves, before other buckets are tried
_BLOCK = 1 << 14  # keys looked up at once: what a lookup reads and writes stays in the cache
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)  # of keys, to their two buckets


class CuckooTable:
    """Rows of keys, one each: rows of removed keys are given to new keys before the table asks for more rows."""

    def __init__(self):
        self._row_keys = np.empty(0, np.int64)  # by row; what stands on a free row has no meaning
        self._live = np.empty(0, bool)
        self._free = np.empty(0, np.int64)
        self._n_rows = self._n_free = 0
        self._multipliers = _MULTIPLIERS
        self._clear(_LEAST_BUCKETS)

    @property
    def n_ids(self):
        """Number of keys."""
        return self._n_rows - self._n_free

    @property
    def n_rows(self):
        """Number of rows that are or were in use: what is stored by row has to have as many."""
        return self._n_rows

    def find(self, keys):
        """Return the row of each key (n,), int64, and -1 of those not in the table."""
        if len(keys) <= _BLOCK:
            return self._find(keys)
        blocks = [self._find(keys[start : start + _BLOCK]) for start in range(0, len(keys), _BLOCK)]
        return np.concatenate(blocks)

    def _find(self, keys):
        buckets = self._buckets(keys)
        same = self._keys.take(buckets, axis=0) == keys[:, None, None]
        hit = np.flatnonzero(same)  # of the eight slots of each key
        rows = self._rows.ravel()[SLOTS * buckets.ravel()[hit // SLOTS] + hit % SLOTS]
        stands = rows >= 0  # an empty slot has row -1, so that it does not matter which key it seems to hold
        found = np.full(len(keys), -1, np.int64)
        found[hit[stands] // (2 * SLOTS)] = rows[stands]
        return found

    def add(self, keys):
        """Put in keys that are distinct and not in the table, and return their rows."""
        n_old = min(len(keys), self._n_free)
        n_new = len(keys) - n_old
        old = self._free[self._n_free - n_old : self._n_free][::-1]
        rows = np.concatenate([old, np.arange(self._n_rows, self._n_rows + n_new)])
        self._n_free -= n_old
        self._n_rows += n_new
        self._row_keys = _grown(self._row_keys, self._n_rows)
        self._live = _grown(self._live, self._n_rows)
        self._row_keys[rows] = keys
        self._live[rows] = True
        n_buckets = len(self._fill)
        while self.n_ids > MAX_LOAD * SLOTS * n_buckets:
            n_buckets *= 2
        if n_buckets > len(self._fill):
            self._rebuild(n_buckets)
        else:
            self._insert(keys, rows)
        return rows

    def remove(self, keys):
        """Take out distinct keys, and return the rows that they had: -1 of those not in the table."""
        rows = self.find(keys)
        keys, gone = keys[rows >= 0], rows[rows >= 0]
        buckets = self._buckets(keys)
        here = (self._rows[buckets] == gone[:, None, None]).reshape(-1, 2 * SLOTS).argmax(axis=1)
        bucket, slot = buckets[np.arange(len(keys)), here // SLOTS], here % SLOTS
        self._rows[bucket, slot] = -1
        touched = np.unique(bucket)
        order = np.argsort(self._rows[touched] < 0, axis=1, kind="stable")  # slots in use come first
        self._rows[touched] = np.take_along_axis(self._rows[touched], order, axis=1)
        self._keys[touched] = np.take_along_axis(self._keys[touched], order, axis=1)
        self._fill[touched] = (self._rows[touched] >= 0).sum(axis=1)
        self._live[gone] = False
        self._free = _grown(self._free, self._n_free + len(gone))
        self._free[self._n_free : self._n_free + len(gone)] = gone
        self._n_free += len(gone)
        return rows

    def keys_of_rows(self):
        """Return the keys (n_rows,) by row, to be read and not written; on rows not in use they mean nothing."""
        return self._row_keys[: self._n_rows]

    def live_rows(self):
        """Return the rows in use, in ascending order."""
        return np.flatnonzero(self._live[: self._n_rows])

    def copy(self):
        """Return a table of its own."""
        other = object.__new__(type(self))
        parts = vars(self).items()
        other.__dict__ = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in parts}
        return other

    def arrays(self):
        """Return the table as a dict of arrays: the keys by row, and the free rows in the order of their release."""
        keys = np.where(self._live[: self._n_rows], self.keys_of_rows(), 0)
        return {"row_keys": keys, "free_rows": self._free[: self._n_free].copy()}

    @classmethod
    def from_arrays(cls, arrays):
        """Return the table of which :meth:`arrays` gave the arrays; ValueError where they are none."""
        keys, free = (_checked(arrays, name) for name in ("row_keys", "free_rows"))
        self = cls()
        if len(free) and (free.min() < 0 or free.max() >= len(keys) or len(np.unique(free)) < len(free)):
            raise ValueError(f"Array 'free_rows' of the table has to list distinct rows of {len(keys)}.")
        self._row_keys, self._n_rows, self._free, self._n_free = keys.copy(), len(keys), free.copy(), len(free)
        self._live = np.ones(len(keys), bool)
        self._live[free] = False
        if len(np.unique(keys[self._live])) < self.n_ids:
            raise ValueError("Array 'row_keys' of the table has one key on two rows.")
        n_buckets = _LEAST_BUCKETS
        while self.n_ids > MAX_LOAD * SLOTS * n_buckets:
            n_buckets *= 2
        self._rebuild(n_buckets)
        return self

    def __getstate__(self):
        return self.arrays()

    def __setstate__(self, arrays):
        self.__dict__ = self.from_arrays(arrays).__dict__

    # Slots

    def _clear(self, n_buckets):
        self._keys = np.zeros((n_buckets, SLOTS), np.int64)
        self._rows = np.full((n_buckets, SLOTS), -1, np.int32)
        self._fill = np.zeros(n_buckets, np.int8)  # slots in use of a bucket; they come first
        self._shift = np.uint64(64 - (n_buckets.bit_length() - 1))

    def _buckets(self, keys):
        """The two buckets (n, 2) of each key."""
        return ((keys.view(np.uint64)[:, None] * self._multipliers) >> self._shift).astype(np.int64)

    def _rebuild(self, n_buckets):
        rows = self.live_rows()
        self._clear(n_buckets)
        self._insert(self._row_keys[rows], rows)

    def _insert(self, keys, rows):
        """Find slots for keys that have got their rows."""
        keys, rows = keys.copy(), rows.astype(np.int32)
        for turn in range(_ROUNDS):
            if not len(keys):
                return
            left = self._place(keys, rows, turn)
            keys, rows = keys[left], rows[left]
        # Keys that meet in one pair of buckets, be it that somebody chose them so, do not meet in others.
        self._multipliers = mix(self._multipliers) | np.uint64(1)
        half_full = 2 * self.n_ids > SLOTS * len(self._fill)
        self._rebuild(2 * len(self._fill) if half_full else len(self._fill))

    def _place(self, keys, rows, turn):
        """Put keys into their emptier buckets; where both are full, exchange a key with one that stands there.

        What is left to be placed is in `keys` and `rows` where the mask that is returned says so.
        """
        both, number = self._buckets(keys), np.arange(len(keys))
        fill = self._fill.take(both)
        chance = (keys >> np.int64(turn * 7 % 61)) & 7  # bits of a hash, so that no generator is needed
        second = np.where(fill[:, 0] == fill[:, 1], chance & 1, fill[:, 1] < fill[:, 0])
        bucket = both[number, second]
        order = np.argsort(bucket, kind="stable")
        sorted_bucket = bucket[order]
        first = np.ones(len(keys), bool)
        np.not_equal(sorted_bucket[1:], sorted_bucket[:-1], out=first[1:])
        rank = number - np.maximum.accumulate(number * first)  # among those that aim at the same bucket
        slot = self._fill.take(sorted_bucket) + rank
        placed = slot < SLOTS
        where, into = order[placed], SLOTS * sorted_bucket[placed] + slot[placed]
        self._keys.ravel()[into], self._rows.ravel()[into] = keys[where], rows[where]
        # the count of the last one placed in each bucket stands, as later assignments overwrite earlier ones
        self._fill[sorted_bucket[placed]] = slot[placed] + 1
        left = np.ones(len(keys), bool)
        left[where] = False
        if len(where) == len(keys):
            return left
        moved = order[first & (slot == SLOTS)]  # one for each bucket that was full
        at = bucket[moved], chance[moved] >> 1
        out_keys, out_rows = self._keys[at], self._rows[at]
        self._keys[at], self._rows[at] = keys[moved], rows[moved]
        keys[moved], rows[moved] = out_keys, out_rows
        return left


class ModuloTable:
    """Rows of keys by the remainder of their division by `n_rows`: the hash trick, in which keys share rows.

    A key is in the table where its row is in use, be it by another key.
    """

    def __init__(self, n_rows):
        self._row_keys = np.zeros(n_rows, np.int64)
        self._live = np.zeros(n_rows, bool)

    @property
    def n_ids(self):
        """Number of rows in use."""
        return int(self._live.sum())

    @property
    def n_rows(self):
        """Number of rows."""
        return len(self._live)

    def _rows_of(self, keys):
        return (keys.view(np.uint64) % np.uint64(len(self._live))).astype(np.int64)

    def find(self, keys):
        """Return the row of each key, and -1 where it is not in use."""
        rows = self._rows_of(keys)
        return np.where(self._live[rows], rows, -1)

    def add(self, keys):
        """Take the rows of keys into use, and return them: some of them may be equal."""
        rows = self._rows_of(keys)
        self._row_keys[rows[::-1]] = keys[::-1]  # the first key of a row stands
        self._live[rows] = True
        return rows

    def remove(self, keys):
        """Take the rows of keys out of use, and return them."""
        rows = self.find(keys)
        self._live[rows[rows >= 0]] = False
        return rows

    def keys_of_rows(self):
        """Return by row the key that took it into use, to be read and not written."""
        return self._row_keys

    def live_rows(self):
        """Return the rows in use, in ascending order."""
        return np.flatnonzero(self._live)

    def copy(self):
        """Return a table of its own."""
        return self.from_arrays(self.arrays())

    def arrays(self):
        """Return the table as a dict of arrays."""
        return {"row_keys": np.where(self._live, self._row_keys, 0), "live": self._live.copy()}

    @classmethod
    def from_arrays(cls, arrays):
        """Return the table of which :meth:`arrays` gave the arrays; ValueError where they are none."""
        keys, live = _checked(arrays, "row_keys"), _checked(arrays, "live", bool)
        self = cls(len(keys))
        if len(live) != len(keys) or not len(keys):
            raise ValueError("Arrays 'row_keys' and 'live' of the table have to have one length, of at least 1.")
        if np.any(self._rows_of(keys[live]) != np.flatnonzero(live)):
            raise ValueError("Array 'row_keys' of the table has a key on another row than its own.")
        self._row_keys, self._live = keys.copy(), live.copy()
        return self


def _grown(array, n):
    """An array with room for n entries, twice as long where it had none."""
    if n <= len(array):
        return array
    longer = np.zeros(max(n, 2 * len(array)), array.dtype)
    longer[: len(array)] = array
    return longer


def _checked(arrays, name, dtype=np.int64):
    """An array of the dict, of one dimension and of its type."""
    array = arrays.get(name)
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != dtype:
        raise ValueError(f"The arrays of a table have to hold {name!r}, one-dimensional and {np.dtype(dtype)}.")
    return array
