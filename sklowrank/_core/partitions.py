"""Rows of Dask collections: read where they lie, partition by partition, with the functions that blocks are read with.

A partition that is lost with its worker is read again: nothing is scattered that a worker alone would hold.
"""

from functools import partial
from typing import Any

import numpy as np
import torch

from .rows import Rows, added
from .workspace import open_workspace

FIRST_ROWS = 100  # which stand for all where their form is checked
_LARGE_GRAPH = "1GB"  # below it Dask need not warn: what belongs to rows (labels, weights) travels with the tasks


class Partitions:
    """What is built of the partitions of a collection, one by one, where they lie.

    Parameters
    ----------
    parts : list of delayed objects
        The partitions, none of them empty.
    build : callable
        From a partition and a device to an object with the method `gather`: rows, or cells of a matrix.
    device : str
        Where workers compute.
    starts : array of shape (n_partitions + 1,) or None
        Where the rows of each partition start; None where they are yet to be counted.
    """

    remote, sparse, at_hand = True, False, False

    def __init__(self, parts, build, device, starts=None):
        self._parts, self._build, self._device, self._starts = parts, build, device, starts
        if starts is None:
            self._starts = np.cumsum([0, *self.reduce(_length)[0]])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def reduce(self, collect, *beside, merge=added):
        """Return the merged results of ``collect(what was built, *parts of beside)`` over partitions."""
        dask = load_dask()
        task, join = dask.delayed(_on_partition, pure=False), dask.delayed(merge, pure=False)
        build, collect = (dask.delayed(f, pure=False, traverse=False) for f in (self._build, collect))
        results = []
        for i, part in enumerate(self._parts):
            pieces = [_own(b, slice(*self._starts[i : i + 2])) for b in beside]
            results.append(task(part, build, self._device, collect, pieces))
        while len(results) > 1:  # neighbours are merged, so that what belongs to rows stays in their order
            pairs = [join(*results[i : i + 2]) for i in range(0, len(results) - 1, 2)]
            results = pairs + results[len(results) - len(results) % 2 :]
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": _LARGE_GRAPH}):
            return results[0].compute()

    def gather(self, compute, *beside, merge=added, **options):
        """Return the merged results of ``compute(block, *parts)`` over blocks of rows, as `Rows.gather` does."""
        return self.reduce(partial(_gathered, compute, merge, options), *beside, merge=merge)

    def rebuilt(self, make):
        """Return partitions of which ``make(what was built)`` is built."""
        return Partitions(self._parts, partial(_built_of_built, make, self._build), self._device)

    def kept(self):
        """Return the same, with what was built kept by the workers; what is lost with a worker is built again."""
        dask = load_dask()
        built = [dask.delayed(self._build, traverse=False)(part, self._device) for part in self._parts]
        return Partitions(list(dask.persist(*built)), _as_built, self._device, self._starts)

    def fit_in_one_block(self, size: int) -> bool:
        """False: no block holds several partitions."""
        return False


def _as_built(built, device):
    return built


def _on_partition(part, build, device, collect, pieces):
    """Run on a worker, on its device: collect from what is built of one partition."""
    built, here = build(part, device)
    collect, pieces = _moved(collect, here), _moved(pieces, here)
    return _moved(collect(built, *pieces), torch.device("cpu"))


def _gathered(compute, merge, options, built, *pieces):
    return built.gather(compute, *pieces, merge=merge, **options)


def _built_of_built(make, build, part, device):
    built, here = build(part, device)
    return _moved(make, here)(built), here


def _length(built):
    return ([built.shape[0]],)


def _own(values, rows):
    """Return some rows of what lies beside X, in memory of their own: a slice of a tensor is sent as a whole."""
    part = values if values is None else values[rows]
    return part.clone() if isinstance(part, torch.Tensor) else part


def _moved(value, device):
    """Return a value with all tensors in it on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, torch.device):
        return device
    if isinstance(value, partial):
        keywords = {name: _moved(v, device) for name, v in value.keywords.items()}
        return partial(value.func, *(_moved(v, device) for v in value.args), **keywords)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(v, device) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(_moved(v, device) for v in value)
    return value


class PartitionedRows(Partitions):
    """Rows of a Dask collection, with the interface of :class:`~.rows.Rows`.

    Parameters
    ----------
    X : dask array or data frame
        The rows. They are read once, for their number, and to see that they are finite numbers.
    device : str
        Where workers compute.
    allow_nan : bool
        Whether NaN is a value.
    """

    def __init__(self, X, *, device="auto", allow_nan=False):
        dask = load_dask()
        parts = partitions_of(X)
        facts = [dask.delayed(_facts)(part, FIRST_ROWS * (i == 0), allow_nan) for i, part in enumerate(parts)]
        lengths, types, heads = zip(*dask.compute(*facts))
        if "NaN" in types:
            raise ValueError("Input X contains NaN or infinity. Fill or drop the rows that have them.")
        self.source, self.head = X, heads[0]
        self.dtype = np.dtype(np.float32 if set(types) == {"float32"} else np.float64)
        starts = np.cumsum([0, *(n for n in lengths if n)])
        parts = [part for part, n in zip(parts, lengths) if n]
        super().__init__(parts, partial(_rows_here, self.dtype), device, starts)
        self.shape = (len(self), self.head.shape[1])
        self.outline = np.broadcast_to(self.dtype.type(0), self.shape)

    def take(self, at) -> torch.Tensor:
        """Return some rows, a slice or positions (m,)."""
        positions = np.arange(len(self))[at if isinstance(at, slice) else np.asarray(at)]
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        owners = np.unique(owner)
        pick = load_dask().delayed(_picked)
        picked = [pick(self._parts[i], positions[owner == i] - self._starts[i], self.dtype) for i in owners]
        rows = np.empty((len(positions), self.shape[1]), dtype=self.dtype)
        for i, part in zip(owners, load_dask().compute(*picked)):
            rows[owner == i] = part
        return torch.from_numpy(rows)


def _facts(part, n_head, allow_nan):
    """Return the number of rows, the name of their type ("NaN" where they are not finite), and the first of them."""
    values = np.asarray(part)
    name = str(values.dtype)
    if values.dtype.kind == "f" and not (~np.isinf(values) if allow_nan else np.isfinite(values)).all():
        name = "NaN"
    return len(values), name, part[:n_head]


def _picked(part, at, dtype):
    return np.asarray(part)[at].astype(dtype, copy=False)


def _rows_here(dtype, part, device):
    """Return the rows of a partition, and the device on which they are computed with."""
    X = np.require(np.asarray(part), dtype=dtype, requirements=["C", "W"])
    ws = open_workspace(X, device=device)
    return Rows(X, ws), ws.device


# Collections


def load_dask() -> Any:
    """Return Dask, which is an extra."""
    try:
        import dask
    except ImportError as error:
        raise ImportError("sklowrank.distributed needs Dask. Install it with: pip install 'sklowrank[dask]'") from error
    return dask


def partitions_of(X) -> list[Any]:
    """Return the partitions of X, each of them all columns of some rows, as delayed objects."""
    if hasattr(X, "npartitions") and hasattr(X, "divisions"):
        return list(X.to_delayed())
    return list(X.rechunk({1: -1}).to_delayed()[:, 0])


def check_collection(X) -> None:
    """Refuse what is no table of Dask."""
    if not (hasattr(X, "__dask_graph__") and hasattr(X, "to_delayed") and X.ndim == 2):
        raise TypeError(
            f"X has to be a Dask array of two dimensions or a Dask data frame, got {type(X).__name__}. For arrays of "
            "this process, memmaps included, call fit of the estimator."
        )


def to_local(values) -> np.ndarray:
    """Return what belongs to rows as an array of this process."""
    return np.asarray(values.compute() if hasattr(values, "__dask_graph__") else values)
