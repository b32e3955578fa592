"""Walking rows in blocks that fit the memory, smaller ones where the device runs out."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

_AUTO_BYTES = 1 << 25  # 32 MiB: blocks of this size stay near the caches of a CPU and keep a GPU busy
_T = TypeVar("_T")


def rows_per_block(batch_size: int | str, n_rows: int, bytes_per_row: int) -> int:
    """Resolve `batch_size`: a number of rows as it is, "auto" as many rows as fill a block of 32 MiB."""
    if batch_size == "auto":
        batch_size = max(1, _AUTO_BYTES // max(1, bytes_per_row))
    return min(int(batch_size), max(1, n_rows))


def in_blocks(compute: Callable[[slice], _T], n_rows: int, block: int, *, bytes_per_row: int) -> Iterator[_T]:
    """Yield `compute(rows)` for consecutive slices of `block` rows.

    Where the memory does not suffice the block is halved, for the rest of the walk too, and the same rows are tried
    again: `compute` must return its result and change nothing.

    Raises
    ------
    MemoryError
        If the memory does not even suffice for one row.
    """
    start = 0
    while start < n_rows:
        rows = slice(start, min(start + block, n_rows))
        try:
            result = compute(rows)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if rows.stop - start == 1:
                raise MemoryError(
                    f"One row of {n_rows} needs a block of about {bytes_per_row} bytes, which the "
                    "device does not have. batch_size cannot go below 1: use fewer components or device='cpu'."
                ) from error
            block = max(1, (rows.stop - start) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # what smaller tensors left behind may be in the way of larger ones
            continue
        yield result
        start = rows.stop


def join_blocks(compute: Callable[[slice], Any], n_rows: int, block: int, *, bytes_per_row: int) -> Any:
    """Return what `compute` makes of blocks of rows, a tensor or a tuple of tensors with the rows first, as a whole.

    Each block's result is copied into the whole at once: small results that are kept until the end lie between the
    large temporary tensors of their blocks, and on the CPU the memory of these is then not used again.

    Raises
    ------
    ValueError
        If a result has other than one row for each row of its block.
    """

    def checked(rows):
        found = compute(rows)
        for part in (found,) if isinstance(found, torch.Tensor) else found:
            if part.shape[:1] != (rows.stop - rows.start,):
                raise ValueError(
                    f"A block of {rows.stop - rows.start} rows gave a result of shape {tuple(part.shape)}: it needs "
                    "one row for each."
                )
        return found

    done, wholes, single = 0, None, False
    for found in in_blocks(checked, n_rows, block, bytes_per_row=bytes_per_row):
        single = isinstance(found, torch.Tensor)
        parts = (found,) if single else found
        wholes = wholes or tuple(part.new_empty(n_rows, *part.shape[1:]) for part in parts)
        for whole, part in zip(wholes, parts):
            whole[done : done + len(part)] = part
        done += len(parts[0])
    if wholes is None:  # there are no rows
        return compute(slice(0, 0))
    return wholes[0] if single else wholes


_SHORTAGES = (  # what the plain RuntimeErrors of torch say where memory is short
    "can't allocate memory",  # CPU: Linux, macOS
    "not enough memory",  # CPU: Windows
    "out of memory",  # the CUDA driver, outside of torch's own allocator
    "ALLOC_FAILED",  # cuBLAS, cuSOLVER, cuSPARSE
    "bad_alloc",  # C++
)


def _is_out_of_memory(error: BaseException) -> bool:
    """True for Python's and numpy's class, for that of CUDA, and for the RuntimeErrors of torch's other allocators."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error) for text in _SHORTAGES)
