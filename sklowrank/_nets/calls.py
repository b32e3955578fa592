"""What a network is called with for rows, and what it gives: tensors, alone or in tuples, lists and dicts."""

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn


class Calls(NamedTuple):
    """What a network is called with for rows: positional and keyword arguments of each call."""

    arguments: list[tuple[tuple, dict]]

    def batches(self, size: int, device: torch.device | str = "cpu") -> Iterator[tuple[tuple, dict]]:
        """Yield the arguments for blocks of at most `size` rows, on a device."""
        for call in self.arguments:
            n_rows = _n_rows(call)
            for start in range(0, n_rows, size):
                yield mapped(partial(_part, slice(start, start + size), n_rows, device), call)

    def taken(self, rows: torch.Tensor, device: torch.device | str = "cpu") -> "Calls":
        """Return one call for some of the rows, on a device."""
        return Calls([mapped(partial(_part, rows, self.n_rows, device), self.joined().arguments[0])])

    def joined(self) -> "Calls":
        """Return one call for all rows."""
        if len(self.arguments) == 1:
            return self
        return Calls([_joined(self.arguments)])

    def gather(self, module: nn.Module, collect: Callable, merge: Callable) -> Any:
        """Return ``collect(module, calls)``; `merge` is for rows in several places: see :mod:`.passes`."""
        return collect(module, self)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(_n_rows(call) for call in self.arguments)


def outputs_of(module: nn.Module, calls: Any, size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the outputs of a module in eval mode, on the CPU; the first tensor where it gives several."""
    parts = calls.gather(module, partial(_outputs, size, device), operator.add)
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).cpu()


def _outputs(size, device, module, calls):
    """Return the outputs in a list, one tensor: many small ones between large ones that are freed fragment the heap.

    There may be more of them, or less, than rows.
    """
    room, done = torch.empty(0, device="cpu"), 0
    for args, kwargs in calls.batches(size, device):
        with torch.inference_mode():
            part = first_tensor(module(*args, **kwargs))
        if done + len(part) > len(room):
            n_more = calls.n_rows * len(part) // max(1, _n_rows((args, kwargs))) if not done else len(room) + len(part)
            more = torch.empty(max(n_more, len(part)), *part.shape[1:], dtype=part.dtype, device="cpu")
            room = torch.cat([room[:done], more]) if done else more
        room[done : done + len(part)] = part
        done += len(part)
    return [room[:done]]


def first_tensor(outputs: Any) -> torch.Tensor:
    """Return the first tensor in outputs: themselves, or in tuples, lists and dicts.

    Raises
    ------
    TypeError
        If there is none.
    """
    found: list[torch.Tensor] = []
    mapped(found.append, outputs)
    if not found:
        raise TypeError(
            f"The network gives a {type(outputs).__name__}, in which there is no tensor with a row for each sample. It "
            "has to give a tensor, or a tuple, list or dict whose first tensor is looked at."
        )
    return found[0]


def mapped(function: Callable, value: Any) -> Any:
    """Return the value with a function of each tensor of at least one axis."""
    if isinstance(value, torch.Tensor):
        return function(value) if value.ndim else value
    if isinstance(value, tuple | list):
        parts = [mapped(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {name: mapped(function, part) for name, part in value.items()}
    return value


def _part(rows, n_rows, device, tensor):
    """Return some rows of a tensor, on a device; all of one that has no rows."""
    return (tensor[rows] if len(tensor) == n_rows else tensor).to(device)


def _n_rows(value):
    """Return the length of the first tensor."""
    lengths: list[int] = []
    mapped(lambda t: lengths.append(len(t)), value)
    return lengths[0] if lengths else 0


def _joined(values):
    """Return calls of the same form as one, tensors concatenated."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(values) if first.ndim else first
    if isinstance(first, tuple | list):
        parts = [_joined(list(part)) for part in zip(*values)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if isinstance(first, dict):
        return {name: _joined([value[name] for value in values]) for name in first}
    return first
