"""Rows of a network that are not in memory: they are read block by block, and on a cluster passed where they lie.

What is collected of a pass is a pure function ``collect(module, calls)`` of a module, or a partial of one: `gather` of
:class:`.calls.Calls` calls it with all rows, and here with those of each partition, to which the network travels as
values.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._core.blocks import rows_per_block
from .._core.partitions import moved
from .._core.rows import first_rows, is_mapped, is_sliced
from .._core.workspace import on_cluster
from .architecture import with_weights, without_weights
from .calls import Calls
from .found import array_of
from .holding import Held, StoredHeld, network_calls, restored_held, stored_held
from .recording import device_of

_BATCHES = 64  # in a block, if they fit


class StoredModule(NamedTuple):
    """A network as values, which can be sent to a worker."""

    skeleton: nn.Module
    weights: dict[str, np.ndarray]


class CallsOfRows:
    """What a network is called with for rows that are not in memory, with the interface of :class:`.calls.Calls`.

    Parameters
    ----------
    rows : memmap, data set on disk, or rows of a cluster
        The rows.
    stored : StoredHeld
        The estimator that makes calls of rows, and its network.
    """

    def __init__(self, rows: Any, stored: StoredHeld):
        self.rows, self._stored = rows, stored

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.rows.shape[0]

    def batches(self, size: int, device: torch.device | str = "cpu") -> Iterator[tuple[tuple, dict]]:
        """Yield the arguments for blocks of at most `size` rows, on a device."""
        step = rows_per_block("auto", _BATCHES * size, _bytes_of_row(self.rows))
        for start in range(0, self.n_rows, step):
            yield from self._calls(np.arange(start, min(start + step, self.n_rows))).batches(size, device)

    def taken(self, rows: torch.Tensor, device: torch.device | str = "cpu") -> Calls:
        """Return one call for some of the rows, on a device."""
        every = torch.arange(len(rows), dtype=torch.int64, device="cpu")
        return self._calls(rows.cpu().numpy()).taken(every, device)

    def joined(self) -> "CallsOfRows":
        """Return the same: calls are those of the blocks that are read."""
        return self

    def gather(self, module: nn.Module, collect: Callable, merge: Callable) -> Any:
        """Return the merged results of ``collect(module, calls)``, of each partition where rows are on a cluster."""
        if not on_cluster(self.rows):
            return collect(module, self)
        weights = {name: array_of(value) for name, value in module.state_dict().items() if torch.is_tensor(value)}
        network = StoredModule(without_weights(module), weights)
        there = partial(_passed_there, network, self._stored, _names(self.rows), collect, torch.device("cpu"))
        return moved(self.rows.reduce(there, merge=merge), device_of(module))

    def _calls(self, at):
        return network_calls(restored_held(self._stored), rows_at(self.rows, at))


AnyCalls = Calls | CallsOfRows


def calls_of(held: Held, X: Any) -> AnyCalls:
    """Return what the network is called with where its estimator predicts rows X: see :func:`.holding.network_calls`.

    Rows of files and of clusters stay where they are.
    """
    return CallsOfRows(X, stored_held(held)) if lie_elsewhere(X) else network_calls(held, X)


def lie_elsewhere(X: Any) -> bool:
    """Return whether rows are on disk or on a cluster."""
    return on_cluster(X) or is_mapped(X) or is_sliced(X)


def rows_at(X: Any, at: np.ndarray) -> Any:
    """Return rows of a file or a cluster at some positions, in memory: an array, or a data frame with their names."""
    if on_cluster(X):
        return _named(X.take(at).numpy(), _names(X))
    if len(at) and (np.diff(at) == 1).all():
        return np.array(X[at[0] : at[-1] + 1])
    distinct, back = np.unique(at, return_inverse=True)  # files of HDF5 give rows in their order, once each
    return np.array(X[distinct])[back]


def _passed_there(network, stored, names, collect, device, built):
    """Run on a worker, on its device: collect from a pass of the rows of a partition."""
    rows = _named(np.asarray(built.template), names)
    calls = network_calls(restored_held(stored), rows)
    return collect(with_weights(network.skeleton, network.weights, device), calls)


def _names(rows):
    """Return the names of the columns of rows of a cluster, None where they have none."""
    names = getattr(first_rows(rows), "columns", None)
    return None if names is None else list(names)


def _named(X, names):
    if names is None:
        return X
    import pandas as pd

    return pd.DataFrame(X, columns=names)


def _bytes_of_row(rows):
    return max(1, np.dtype(rows.dtype).itemsize * int(np.prod(rows.shape[1:])))
