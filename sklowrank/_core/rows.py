"""Tables that are read in blocks of rows, and sums over their rows.

A statistic of a method is three pure functions: one of a block of rows and of what is aligned with them (labels,
weights), one that merges two results, one that finishes. What :meth:`RowSource.gather` is given runs alike on blocks of
an array and on the partitions of a cluster (:mod:`sklowrank.distributed`), so it is a function of a module, or a
partial of one.
"""

from collections.abc import Callable
from functools import partial, reduce
from mmap import mmap
from typing import Any, Literal, Protocol

import numpy as np
import torch
from scipy.sparse import issparse

from .blocks import in_blocks, rows_per_block
from .compat import check_sample_weight
from .workspace import Workspace, check_place, on_cluster

_SHARE_OF_DEVICE = 0.25  # of a device's free memory that a table may take; a larger one stays with the host


def merge_sum(a: tuple, b: tuple) -> tuple:
    """Merge two results: tensors and numbers are added, lists of values by row are concatenated."""
    return tuple(x + y for x, y in zip(a, b))


class RowSource(Protocol):
    """Rows that are read in blocks, wherever they lie; the only thing that solvers know of a large table.

    `kind` says how they come: "memory" is a tensor on the device, "blocks" are read from disk or from another device,
    "csr" blocks are scipy CSR matrices, and those of a "cluster" are computed with where they lie. Methods work on all
    kinds alike; one that cannot asks :func:`refuse_kind`.
    """

    shape: tuple[int, int]

    @property
    def kind(self) -> Literal["memory", "blocks", "csr", "cluster"]:
        """How the rows come."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def take(self, at) -> Any:
        """Return some rows, a slice or positions (m,), in the working precision."""

    def gather(
        self,
        compute: Callable,
        *aligned,
        size: int,
        batch_size: int | Literal["auto"] = "auto",
        merge: Callable = merge_sum,
    ) -> Any:
        """Return the merged results of ``compute(block, *parts)`` over blocks of rows.

        `aligned` are tensors or arrays (n, ...) of which each block gets its part, or None. `size` is what a row takes
        in bytes while `compute` runs; it must change nothing.
        """

    def fit_in_one_block(self, size: int) -> bool:
        """Return whether the rows are in memory and `gather` would take them all at once."""


def gather_blocks(
    part: Callable, n_rows: int, *, size: int, batch_size: int | str = "auto", merge: Callable = merge_sum
):
    """Return the merged results of ``part(slice)`` over blocks of rows, of which each row takes `size` bytes.

    What belongs to rows goes into a tensor for all of them at once: small tensors that are kept between large ones that
    are freed would tear the heap, until it is as large as the table.
    """
    rooms: dict[int, torch.Tensor] = {}

    def put(rows):
        result = part(rows)
        whole = rows.stop - rows.start == n_rows
        return result if whole or merge is not merge_sum else _put_by_row(result, rows, n_rows, rooms)

    blocks = in_blocks(put, n_rows, rows_per_block(batch_size, n_rows, size), bytes_per_row=size)
    result = reduce(merge, blocks)
    return tuple([rooms[i]] if i in rooms else found for i, found in enumerate(result)) if rooms else result


def _put_by_row(result, rows, n_rows, rooms):
    """Move lists of one tensor, with an entry for each row, into `rooms`; return the rest of the result."""
    rest = list(result)
    for i, found in enumerate(result):
        if _is_by_row(found, rows):
            one = found[0]
            if rows.start == 0:
                rooms[i] = one.new_empty(n_rows, *one.shape[1:])
            if i in rooms and one.shape[1:] == rooms[i].shape[1:] and one.dtype == rooms[i].dtype:
                rooms[i][rows], rest[i] = one, []
                continue
        if i in rooms:  # not one entry for each row, after all
            rest[i] = [rooms.pop(i)[: rows.start].clone(), *found]
    return tuple(rest)


def _is_by_row(found, rows) -> bool:
    """True for a list of one tensor with an entry for each row of a block."""
    if not (isinstance(found, list) and len(found) == 1 and isinstance(found[0], torch.Tensor)):
        return False
    return found[0].ndim > 0 and len(found[0]) == rows.stop - rows.start


class Rows:
    """The rows of an array.

    Parameters
    ----------
    X : tensor, CSR matrix, or anything that slices into arrays, of shape (n, D)
        Floating values. What lies on disk and cannot be shared with torch (a memmap opened for reading, a data set
        that slices) is copied block by block. Blocks of a CSR matrix are CSR matrices.
    ws : Workspace or None
        Where to compute; not needed for a tensor that lies there.
    """

    def __init__(self, X: Any, ws: Workspace | None = None):
        self.template = X  # has the shape and the library of what the user gave
        self.shape = tuple(X.shape)
        self._ws = ws
        self._X = ws.load(X) if ws is not None and _can_lie_there(X, ws) else X

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def kind(self) -> Literal["memory", "blocks", "csr"]:
        """How the rows come: see :class:`RowSource`."""
        if issparse(self._X):
            return "csr"
        return "memory" if isinstance(self._X, torch.Tensor) else "blocks"

    def take(self, at) -> torch.Tensor:
        """Return some rows, a slice or positions (m,), in the working precision."""
        if self.kind == "memory":
            return self._X[at]
        part = self._X[at.cpu().numpy() if isinstance(at, torch.Tensor) else at]
        return part if self.kind == "csr" else self._ws.load(part)  # type: ignore

    def gather(
        self, compute: Callable, *aligned, size: int, batch_size: int | str = "auto", merge: Callable = merge_sum
    ) -> Any:
        """Return the merged results of ``compute(block, *parts)``: see :meth:`RowSource.gather`."""
        n_rows = len(self)

        def part(rows):
            whole = rows.stop - rows.start == n_rows
            return compute(self.take(rows), *(a if whole or a is None else a[rows] for a in aligned))

        return gather_blocks(part, n_rows, size=size, batch_size=batch_size, merge=merge)

    def fit_in_one_block(self, size: int) -> bool:
        """Return whether the rows are in memory and `gather` would take them all at once."""
        return self.kind == "memory" and rows_per_block("auto", len(self), size) >= len(self)


class MappedRows:
    """What a function makes of the blocks of other rows, of this process or of a cluster; nothing is stored.

    Parameters
    ----------
    rows : Rows, or rows of a cluster
        The rows.
    function : callable
        From blocks of rows to what is computed with.
    n_columns : int
        How many columns that has.
    """

    def __init__(self, rows: Any, function: Callable, n_columns: int):
        self._rows, self._function, self.shape = rows, function, (len(rows), n_columns)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def kind(self) -> Literal["blocks", "cluster"]:
        """How the rows come: see :class:`RowSource`."""
        return "cluster" if self._rows.kind == "cluster" else "blocks"

    def take(self, at):
        """Return what the function makes of some rows."""
        return self._function(self._rows.take(at))

    def gather(self, compute: Callable, *aligned, **options) -> Any:
        """Return the merged results of ``compute(function(block), *parts)``: see :meth:`RowSource.gather`."""
        return self._rows.gather(partial(_after, self._function, compute), *aligned, **options)

    def fit_in_one_block(self, size: int) -> bool:
        """Return False: what the function makes is not kept."""
        return False

    def rebuilt(self, make: Callable):
        """Return what a function makes of the rows of each partition; for rows of a cluster."""
        return self._rows.rebuilt(partial(_made_of_mapped, make, self._function, self.shape[1]))


def _made_of_mapped(make, function, n_columns, rows):
    return make(MappedRows(rows, function, n_columns))


def _after(function, compute, X, *aligned):
    return compute(function(X), *aligned)


def rows_of(X: Any, ws: Workspace | None = None) -> Any:
    """Return the rows of validated X, which may be rows already: those of a cluster are."""
    return X if isinstance(X, Rows | MappedRows) or on_cluster(X) else Rows(X, ws)


def first_rows(X: Any) -> Any:
    """Return what an estimator may look at to know the form of validated X: all of it, of a cluster the first rows."""
    return X.head if on_cluster(X) else X


def refuse_kind(rows: Any, kind: str, message: str) -> None:
    """Raise a ValueError where rows, or an array, come in a way that cannot be used; `message` names the cure."""
    if getattr(rows, "kind", None) == kind:
        raise ValueError(message)


def row_weights(sample_weight, rows, ws: Workspace) -> torch.Tensor | None:
    """Return weights of rows (n,) in float64, or None where there are none; their sum is finite."""
    if sample_weight is None:
        return None
    check_place(sample_weight, "sample_weight")
    weights = ws.exact().load(check_sample_weight(sample_weight, rows.template, ensure_non_negative=True)).double()
    if not bool(weights.sum().isfinite()):
        raise ValueError(
            f"sample_weight has values up to {float(weights.max()):.3g}, whose sum overflows. Divide them."
        )
    return weights


def largest_magnitude(rows, weights: torch.Tensor | None = None) -> float:
    """Return the largest magnitude of an entry in rows of positive weight."""
    size = 3 * 8 * rows.shape[1]
    return float(rows.gather(_largest, weights, size=size, merge=torch.maximum))


def _largest(X, w):
    X = X if w is None else X[w > 0]
    return torch.stack(X.aminmax()).abs().amax().double() if X.numel() else X.new_zeros((), dtype=torch.float64)


def column_ends(rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lowest and the highest entry of each column, in float64."""
    return rows.gather(_ends, size=24 * rows.shape[1], merge=_outer_ends)


def _ends(X):
    low, high = X.aminmax(dim=0)
    return low.double(), high.double()


def _outer_ends(a, b):
    return torch.minimum(a[0], b[0]), torch.maximum(a[1], b[1])


def concat_blocks(parts: list[torch.Tensor]) -> torch.Tensor:
    """Return what :meth:`Rows.gather` lists as one tensor, without a copy where it is one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def map_rows(rows, compute: Callable, *, size: int, batch_size: int | str = "auto") -> torch.Tensor:
    """Return ``compute(block)`` of all rows, in their order."""
    return concat_blocks(rows.gather(partial(_listed, compute), size=size, batch_size=batch_size)[0])


def _listed(compute, X):
    return ([compute(X)],)


def _can_lie_there(X, ws) -> bool:
    """True where a whole array may be shared with torch, or be copied to the device."""
    if not isinstance(X, np.ndarray):
        return not (issparse(X) or isinstance(X, SlicedArray))
    if ws.device.type == "cuda":
        return X.nbytes <= _SHARE_OF_DEVICE * torch.cuda.mem_get_info(ws.device)[0]
    return not is_mapped(X) or (X.flags.writeable and X.flags.c_contiguous)  # what is not shared would be copied


def is_mapped(X) -> bool:
    """True for an array, or a view of one, whose memory is a file."""
    while X is not None:
        if isinstance(X, np.memmap | mmap):
            return True
        X = getattr(X, "base", None)
    return False


class SlicedArray:
    """An array that is known by its slices alone: each comes as finite floats.

    Parameters
    ----------
    source : object with `shape`, `dtype` and slices that are arrays
        A memmap of integers, a data set of HDF5 or Zarr.
    """

    def __init__(self, source):
        self._source = source
        self.shape = tuple(source.shape)
        self.dtype = np.dtype(np.float32 if source.dtype == np.float32 else np.float64)

    def __len__(self) -> int:
        return self.shape[0]

    def min(self) -> float:
        """Return the lowest entry."""
        step = rows_per_block("auto", len(self), self.dtype.itemsize * self.shape[1])
        return float(min(self[i : i + step].min() for i in range(0, len(self), step)))

    def __getitem__(self, at) -> np.ndarray:
        if isinstance(at, slice):
            rows = np.asarray(self._source[at], dtype=self.dtype)
        else:  # files of HDF5 give rows in their order, once each
            distinct, back = np.unique(at, return_inverse=True)
            rows = np.asarray(self._source[distinct], dtype=self.dtype)[back]
        if not np.isfinite(rows).all():
            raise ValueError("Input X contains NaN or infinity. Fill or drop the rows that have them.")
        return rows


def is_sliced(X) -> bool:
    """True for what has shape, dtype and slices but is no array: a data set on disk. And for memmaps of other types."""
    if isinstance(X, np.ndarray):
        return isinstance(X, np.memmap) and X.ndim == 2 and X.dtype.kind in "iub"
    known = any(hasattr(X, name) for name in ("__array_namespace__", "iloc", "columns", "nnz", "toarray"))
    sliced = all(hasattr(X, name) for name in ("shape", "dtype", "__getitem__"))
    return sliced and not known and not isinstance(X, torch.Tensor) and len(X.shape) == 2 and X.dtype.kind in "fiub"
