"""Rows of Dask collections: read where they lie, partition by partition, with the functions that blocks are read with.

A partition that is lost with its worker is read again: nothing is scattered that a worker alone would hold.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import hstack
from sklearn.utils import check_array

from .rows import Rows, merge_sum
from .validation import explained
from .workspace import open_workspace

FIRST_ROWS = 100  # which stand for all where an estimator checks them
_FLOATS, _INTEGERS = [np.float64, np.float32], [np.int64]
_ANY_FORM: dict[str, Any] = {"ensure_all_finite": False, "ensure_min_samples": 0}  # left to the fit
_CHANGED = (
    "A partition of X had {before} {what} when it was counted and has {now} now. Partitions have to be the same each "
    "time they are read: call X.persist() first."
)
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

    kind = "cluster"

    def __init__(self, parts, build, device, starts=None):
        self._parts, self._build, self._device, self._starts = parts, build, device, starts
        if starts is None:
            self._starts = np.cumsum([0, *self.reduce(_length)[0]])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def reduce(self, collect, *aligned, merge=merge_sum):
        """Return the merged results of ``collect(what was built, *parts of aligned)`` over partitions."""
        dask = load_dask()
        task, join = dask.delayed(_on_partition, pure=False), dask.delayed(merge, pure=False)
        build, collect = (dask.delayed(f, pure=False, traverse=False) for f in (self._build, collect))
        results = []
        for i, part in enumerate(self._parts):
            start, end = (None, None) if self._starts is None else self._starts[i : i + 2]
            pieces = [_own(b, slice(start, end)) for b in aligned]
            n_rows = None if end is None else int(end - start)
            results.append(task(part, build, self._device, collect, pieces, n_rows))
        while len(results) > 1:  # neighbours are merged, so that what belongs to rows stays in their order
            pairs = [join(*results[i : i + 2]) for i in range(0, len(results) - 1, 2)]
            results = pairs + results[len(results) - len(results) % 2 :]
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": _LARGE_GRAPH}):
            return results[0].compute()

    def gather(self, compute, *aligned, merge=merge_sum, **options):
        """Return the merged results of ``compute(block, *parts)`` over blocks of rows, as `Rows.gather` does."""
        return self.reduce(partial(_gathered, compute, merge, options), *aligned, merge=merge)

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


def _on_partition(part, build, device, collect, pieces, n_rows):
    """Run on a worker, on its device: collect from what is built of one partition, which had `n_rows` when counted."""
    built, here = build(part, device)
    if n_rows is not None and built.shape[0] != n_rows:
        raise ValueError(_CHANGED.format(what="rows", before=n_rows, now=built.shape[0]))
    collect, pieces = moved(collect, here), moved(pieces, here)
    return moved(collect(built, *pieces), torch.device("cpu"))


def _gathered(compute, merge, options, built, *pieces):
    return built.gather(compute, *pieces, merge=merge, **options)


def _built_of_built(make, build, part, device):
    built, here = build(part, device)
    return moved(make, here)(built), here


def _length(built):
    return ([built.shape[0]],)


def _own(values, rows):
    """Return some rows of what is aligned with X, in memory of their own: a slice of a tensor is sent as a whole."""
    part = values if values is None else values[rows]
    return part.clone() if isinstance(part, torch.Tensor) else part


def moved(value, device):
    """Return a value with all tensors in it on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, torch.device):
        return device
    if isinstance(value, partial):
        keywords = {name: moved(v, device) for name, v in value.keywords.items()}
        return partial(value.func, *(moved(v, device) for v in value.args), **keywords)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(v, device) for v in value))
    if isinstance(value, dict):
        return {name: moved(v, device) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved(v, device) for v in value)
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
    keep_integers : bool
        Whether integers stay integers where all partitions are of them.
    """

    def __init__(self, X, *, device="auto", allow_nan=False, keep_integers=False):
        parts, read = partitions_of(X), partial(_numbers, allow_nan, keep_integers)
        forms = forms_of(parts, read)
        self.source, self.head = X, head_of(parts, forms)
        self.dtype = _common_dtype({form.dtype for form in forms})
        parts = [part for part, form in zip(parts, forms) if form.n_rows]
        width = self.head.shape[1]
        starts = np.cumsum([0, *(form.n_rows for form in forms if form.n_rows)])
        super().__init__(parts, partial(_rows_here, self.dtype, width), device, starts)
        self.shape = (len(self), width)
        self.template = np.broadcast_to(self.dtype.type(0), self.shape)

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


def _common_dtype(dtypes):
    """Return the type of all rows: that of all partitions, float64 where they have several."""
    (one, *others) = dtypes
    return np.dtype(np.float64) if others else one


def _numbers(allow_nan, keep_integers, part):
    """Return a partition as an array of floats, or of integers, with scikit-learn's errors for what is none."""
    whole = keep_integers and np.asarray(part).dtype.kind in "iu"
    X = _values(part, _INTEGERS if whole else _FLOATS)
    there = ~np.isinf(X) if allow_nan else np.isfinite(X)
    if not there.all():
        found = "infinity" if allow_nan else "NaN or infinity"
        raise ValueError(f"Input X contains {found}. Fill or drop the rows that have them.")
    return X


def _values(part, dtype=_FLOATS):
    with explained(part):
        return check_array(part, dtype=dtype, **_ANY_FORM)


def _read_as(dtype):
    """Return the types in which a partition is read where all rows get one."""
    return _INTEGERS if dtype == np.int64 else _FLOATS


def _picked(part, at, dtype):
    return _values(part, _read_as(dtype))[at].astype(dtype, copy=False)


def _rows_here(dtype, width, part, device):
    """Return the rows of a partition, and the device on which they are computed with."""
    X = np.require(_values(part, _read_as(dtype)), dtype=dtype, requirements=["C", "W"])
    if X.shape[1] != width:
        raise ValueError(_CHANGED.format(what="columns", before=width, now=X.shape[1]))
    ws = open_workspace(X, device=device)
    return Rows(X, ws), ws.device


# The form of partitions


class Form(NamedTuple):
    """What is known of a partition before it is computed with."""

    n_rows: int
    n_columns: int
    names: list | None  # of the columns of a data frame
    dtype: np.dtype


def forms_of(parts, read) -> list[Form]:
    """Return the forms of partitions; each is read once, where it lies.

    Parameters
    ----------
    parts : list of delayed objects
        The partitions.
    read : callable
        From a partition to an array; it raises what the fit of an array would raise.

    Raises
    ------
    TypeError or ValueError
        That of `read`, or that partitions are sparse or do not have the same columns.
    """
    dask = load_dask()
    form = dask.delayed(_form_of, pure=False)
    forms = list(dask.compute(*(form(part, i, dask.delayed(read, traverse=False)) for i, part in enumerate(parts))))
    filled = [(i, form) for i, form in enumerate(forms) if form.n_rows]
    for i, form in filled[1:]:
        first, (_, width, names, _) = filled[0]
        if form.n_columns != width:
            raise ValueError(
                f"Partition {i} of X has {form.n_columns} columns, but partition {first} has {width}. Give all of them "
                "the same columns."
            )
        if form.names != names:
            raise ValueError(
                f"Partition {i} of X has the columns {form.names}, but partition {first} has {names}. Give all of them "
                "the same columns in the same order."
            )
    return forms


def _form_of(part, i, read):
    """Run on a worker: return the form of partition i."""
    if hasattr(part, "nnz"):
        raise TypeError(
            f"Sparse data was passed for X: partition {i} is a {type(part).__name__}, and dense data is required. Use "
            "'.toarray()', for example X.map_blocks(lambda part: part.toarray()), where what is not stored is 0."
        )
    try:
        X = read(part)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} This is in partition {i} of X.") from None
    names = list(part.columns) if hasattr(part, "columns") else None
    return Form(X.shape[0], X.shape[1], names, X.dtype)


def head_of(parts, forms):
    """Return the first rows, in the form of the partitions."""
    first, heads, missing = load_dask().delayed(_first, pure=False), [], FIRST_ROWS
    for part, form in zip(parts, forms):
        if form.n_rows and missing > 0:
            heads.append(first(part, missing, form))
            missing -= form.n_rows
    heads = load_dask().compute(*(heads or [first(parts[0], 0, forms[0])]))
    if not hasattr(heads[0], "columns"):
        return np.concatenate([np.asarray(head) for head in heads])
    import pandas as pd

    return pd.concat(heads)


def _first(part, n, form):
    shape = np.shape(part)
    for what, before, now in zip(("rows", "columns"), form, shape):
        if before != now:
            raise ValueError(_CHANGED.format(what=what, before=before, now=now))
    return part.iloc[:n] if hasattr(part, "iloc") else part[:n]


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
    if hasattr(X, "divisions"):
        return list(X.to_delayed())
    blocks = X.to_delayed()
    return list(blocks[:, 0]) if blocks.shape[1] == 1 else [load_dask().delayed(_side_by_side)(list(b)) for b in blocks]


def _side_by_side(blocks):
    """Run on a worker: return all columns of some rows."""
    if any(hasattr(block, "nnz") for block in blocks):
        return hstack(blocks, format="csr")
    shapes = [np.shape(block) for block in blocks]
    if any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(f"Blocks of X that lie side by side have the shapes {shapes}: all need the same rows.")
    return np.concatenate([np.asarray(block) for block in blocks], axis=1)


def check_collection(X) -> None:
    """Refuse what is no table of Dask."""
    if not (hasattr(X, "__dask_graph__") and hasattr(X, "to_delayed") and getattr(X, "ndim", None) == 2):
        raise TypeError(
            f"X has to be a Dask array of two dimensions or a Dask data frame, got {type(X).__name__}. For arrays of "
            "this process, memmaps included, call fit of the estimator."
        )


def to_local(values) -> np.ndarray:
    """Return what belongs to rows as an array of this process."""
    return np.asarray(values.compute() if hasattr(values, "__dask_graph__") else values)
