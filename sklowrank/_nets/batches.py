"""What a network is trained on: the rows of each step, and how an epoch walks over them."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch


class Batches(NamedTuple):
    """What a network is trained on; an epoch is a walk through random batches of different rows."""

    make: Callable[[Any], tuple[Any, Any]]  # from indices of rows (b,) to inputs and target of a batch
    n_rows: int
    held_out: torch.Tensor | None = None  # indices of rows that are not trained on
    n_batches: int | None = None  # in an epoch at most
    whole: bool = False  # whether the last batch of an epoch may be smaller; else the rows that fill none are left out
    drawn: Callable[[torch.Generator], Iterable[Any]] | None = (
        None  # other batches of an epoch, each as `make` takes it
    )

    def per_epoch(self, batch_size: int) -> int:
        """Return the number of batches of an epoch."""
        n_rows = self.n_rows - (0 if self.held_out is None else len(self.held_out))
        return len(Walk(range(n_rows), batch_size, self, None))


class Walk:
    """Random batches of some rows, drawn anew whenever they are walked."""

    def __init__(self, rows, batch_size, batches, generator):
        self.rows, self.make, self.generator = rows, batches.make, generator
        size = min(batch_size, len(rows))
        sizes, rest = [size] * (len(rows) // size), len(rows) % size
        if batches.whole and rest == 1:
            sizes[-1] += 1  # layers that normalise a batch cannot train on a single row
        elif batches.whole and rest:
            sizes.append(rest)
        self.sizes = sizes[: batches.n_batches]  # how many rows each batch of an epoch has

    def __len__(self):
        return len(self.sizes)

    def __iter__(self):
        if self.sizes == [len(self.rows)]:  # the sums over all rows do not depend on an order
            yield self.make(self.rows)
            return
        order = torch.randperm(len(self.rows), generator=self.generator, device="cpu", dtype=torch.int64)
        for batch in order[: sum(self.sizes)].split(self.sizes):
            yield self.make(self.rows[batch])


class Drawn:
    """Batches that a method draws itself, anew in each epoch."""

    def __init__(self, batches, generator):
        self.batches, self.generator = batches, generator

    def __iter__(self):
        return map(self.batches.make, self.batches.drawn(self.generator))
