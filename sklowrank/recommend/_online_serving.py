"""What answers questions: the live rows, or a copy of them that is replaced at intervals and never changed in place."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

Array = np.ndarray | torch.Tensor  # numpy's on the CPU, so that it can be pickled; a tensor on a GPU


class Readable(NamedTuple):
    """What a prediction reads."""

    table: Any
    values: Array  # (1 + n_rows, width): row r stands at 1 + r, zeros for unknown identifiers at 0
    dense: dict[str, Array]
    numbers: "Numbers"


class Numbers(NamedTuple):
    """Weight, mean and sum of squared deviations of each numeric column; arrays are replaced, never changed."""

    weight: float
    mean: np.ndarray
    squares: np.ndarray

    def followed_by(self, Z, weights):
        """Return those of all rows up to these (n, n_numeric)."""
        if not Z.shape[1]:
            return self
        w = np.ones(len(Z)) if weights is None else weights
        total = float(w.sum())
        mean = w @ Z / total
        squares = w @ (Z - mean) ** 2
        both, shift = self.weight + total, mean - self.mean
        return Numbers(
            both, self.mean + shift * (total / both), self.squares + squares + shift**2 * (self.weight * total / both)
        )

    @property
    def variance(self):
        """Variance of each column."""
        return self.squares / max(self.weight, 1e-300)

    def standardized(self, Z):
        """Return rows centred and scaled; constant columns become zero."""
        if not Z.shape[1]:
            return Z
        scale = np.sqrt(self.variance)
        constant = scale <= 1e-13 * np.abs(self.mean)
        return np.where(constant, 0.0, (Z - self.mean) / np.where(constant, 1.0, scale))


class Changes(NamedTuple):
    """What a copy has to take over."""

    keys: np.ndarray
    values: Array  # of their rows
    gone: np.ndarray  # keys
    dense: dict[str, Array]
    numbers: Numbers


class Serving:
    """Two copies: one answers, the other takes over what has changed since, and then they are exchanged.

    Both are of the size of the live rows, but an exchange costs no more than what has changed. A copy that somebody
    still reads is never written: another one is made in its place.
    """

    def __init__(self, current: Readable):
        self._current, self._spare, self._behind = current, None, None
        self._readers: dict[int, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Readable]:
        """Give the copy that answers now; it stays as it is until the block ends."""
        with self._lock:
            copy = self._current
            self._readers[id(copy)] = self._readers.get(id(copy), 0) + 1
        try:
            yield copy
        finally:
            with self._lock:
                self._readers[id(copy)] -= 1
                if not self._readers[id(copy)]:
                    del self._readers[id(copy)]

    @property
    def current(self) -> Readable:
        """The copy that answers now, for those who write."""
        return self._current

    def take_over(self, changes: Changes):
        """Let a copy answer that has the changes."""
        with self._lock:
            spare, busy = self._spare, id(self._spare) in self._readers
        if spare is None or busy:
            spare = copied(self._current)
        else:
            spare = changed(spare, self._behind)
        spare = changed(spare, changes)
        with self._lock:
            self._current, self._spare, self._behind = spare, self._current, changes


def copied(readable: Readable) -> Readable:
    """Return the same in memory of its own."""
    n = 1 + readable.table.n_rows
    dense = {name: copy_of(weights) for name, weights in readable.dense.items()}
    return Readable(readable.table.copy(), copy_of(readable.values[:n]), dense, readable.numbers)


def changed(readable: Readable, changes: Changes) -> Readable:
    """Write changes into a copy that nobody reads, and return it."""
    table, values = readable.table, readable.values
    table.remove(changes.gone)
    rows = table.find(changes.keys)
    new = rows < 0
    rows[new] = table.add(changes.keys[new])
    values = grown(values, 1 + table.n_rows)
    values[placed(rows + 1, values)] = changes.values
    return Readable(table, values, changes.dense, changes.numbers)


# Weights, which are arrays of numpy or tensors


def placed(rows, values):
    """Return positions as what `values` are indexed with."""
    return torch.from_numpy(rows).to(values.device) if isinstance(values, torch.Tensor) else rows


def copy_of(array: Array) -> Array:
    """Return an array in memory of its own."""
    return array.clone() if isinstance(array, torch.Tensor) else array.copy()


def grown(array: Array, n: int) -> Array:
    """Return an array with room for n rows, twice as long where it had none; new rows are zero."""
    if n <= len(array):
        return array
    longer = max(n, 2 * len(array)), *array.shape[1:]
    if isinstance(array, torch.Tensor):
        found = torch.zeros(longer, device=array.device, dtype=array.dtype)
    else:
        found = np.zeros(longer, array.dtype)
    found[: len(array)] = array
    return found


def tensor_of(array) -> torch.Tensor:
    """Return an array as a tensor that shares its memory."""
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)


def tensors_of(arrays) -> dict[str, torch.Tensor]:
    """Return arrays as tensors that share their memory."""
    return {name: tensor_of(array) for name, array in arrays.items()}


def host(array) -> np.ndarray:
    """Return weights as an array of numpy."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()
