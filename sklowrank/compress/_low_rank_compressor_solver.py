"""The compression of a network by pairs of layers: ranks by number, by budget, or by what is lost on some rows."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from .._core.rows import refuse_kind
from .._nets.calls import outputs_of
from .._nets.holding import Held, is_ours, restored_held, stored_held
from .._nets.pairs import Pair
from .._nets.passes import AnyCalls, calls_of
from .._nets.recording import LayerReport, device_of
from .._nets.wrapping import check_finite, relative_error
from ._layer_pairs import (
    Seen,
    ladder_of,
    leave_fast_paths,
    left_layers,
    n_parameters,
    replace_layers,
    seen_of,
    taken_layers,
    taken_with_products,
)
from ._rank_budgets import Ladder, budget_of, least_size, ranks_by_budget, ranks_by_number
from ._split_attention import split_attention

_TRIALS = 8  # halvings of the logarithm of the size in the search for a tolerance
Ranks = dict[str, int | None]


class CompressionOptions(NamedTuple):
    """What :func:`compress_network` reads of the parameters."""

    rank: int | float | None
    compression: float
    tolerance: float | None
    method: str
    allocation: str
    sequential: bool
    batch_size: int
    modules: str | Sequence[str] | None
    exclude: str | Sequence[str] | None
    split_attention: bool


class Compressed(NamedTuple):
    """What was done to a network."""

    report: LayerReport
    n_before: int
    n_after: int
    error: float  # relative, of the outputs


class Problem(NamedTuple):
    """A network, the rows that it is called with, and what was seen of its layers before any is replaced."""

    module: nn.Module
    calls: AnyCalls
    outputs: torch.Tensor
    layers: dict[str, nn.Module]
    seen: dict[str, Seen]
    ladders: dict[str, Ladder]
    n_before: int
    pairs: dict[str, Pair]  # of low rank already, in whose places `layers` has their products


def compress_network(held: Held, X: Any, y: Any, options: CompressionOptions, device: torch.device) -> Compressed:
    """Compress the network of a held estimator in place, by what it gives for some rows.

    Raises
    ------
    ValueError
        If outputs are not finite, no layer can be replaced, or `compression` cannot be reached.
    """
    score = _scorer(held, X, y, options.tolerance) if options.tolerance is not None else None
    problem = _problem(held, X, options, device)

    def error():
        return relative_error(outputs_of(problem.module, problem.calls, options.batch_size, device), problem.outputs)

    if options.rank is not None:
        ranks = ranks_by_number(problem.ladders, options.rank)
    elif options.tolerance is None:
        ranks = ranks_by_budget(problem.ladders, _budget(problem, options.compression), options.allocation)
    else:
        ranks = _smallest(problem, options, (lambda: score(device)) if score else error)
    report = _replaced(problem, ranks, options)
    leave_fast_paths(problem.module)
    return Compressed(report, problem.n_before, n_parameters(problem.module), error())


def _problem(held, X, options, device):
    """Return what is known before layers are replaced; the network moves to the device."""
    calls, module = calls_of(held, X), held.module
    n_before, size = n_parameters(module), options.batch_size
    if options.split_attention:
        split_attention(module)
    outputs = outputs_of(module.to(device), calls, size, device)
    check_finite(outputs)
    taken = partial(taken_layers, module, calls, modules=options.modules, exclude=options.exclude)
    names, pairs = taken_with_products(module, taken)
    layers = {name: module.get_submodule(name) for name in names}
    seen = seen_of(module, calls, names, size)
    ladders = {name: ladder_of(layer, seen[name], options.method) for name, layer in layers.items()}
    ladders |= {name: ladders[name]._replace(n_dense=n_parameters(pair)) for name, pair in pairs.items()}
    return Problem(module, calls, outputs, layers, seen, ladders, n_before, pairs)


def _budget(problem, compression):
    """Return how many parameters the layers may have."""
    left = left_layers(problem.module, list(problem.layers))
    return budget_of(problem.ladders, problem.n_before, compression, left)


def _replaced(problem, ranks, options):
    """Replace layers of the network, which is put back as it was before."""
    for name, layer in problem.layers.items():
        problem.module.set_submodule(name, layer)
    how = {"method": options.method, "size": options.batch_size, "sequential": options.sequential}
    report = replace_layers(problem.module, problem.calls, ranks, problem.seen, **how)
    for row in report:
        pair = problem.pairs.get(row["name"])
        if pair is not None:
            row["n_parameters_before"] = n_parameters(pair)
        if pair is not None and row["rank"] is None:
            problem.module.set_submodule(row["name"], pair)
            row["n_parameters"] = n_parameters(pair)
    return report


def _smallest(problem, options, loss):
    """Return the ranks of the smallest network whose loss is within the tolerance, by bisection of the budget."""
    largest = sum(ladder.n_dense for ladder in problem.ladders.values())
    low, high = math.log(least_size(problem.ladders)), math.log(largest)
    best: Ranks = dict.fromkeys(problem.ladders)
    for _ in range(_TRIALS):
        middle = (low + high) / 2
        ranks = ranks_by_budget(problem.ladders, math.exp(middle), options.allocation)
        _replaced(problem, ranks, options)
        if loss() <= options.tolerance:
            best, high = ranks, middle
        else:
            low = middle
    return best


def _scorer(held, X, y, tolerance) -> Callable[[torch.device], float] | None:
    """Return a function that says by how much the estimator's score has dropped; None without a score or targets."""
    if y is None or not hasattr(held.estimator, "score"):
        return None
    refuse_kind(X, "cluster", f"tolerance={tolerance} of a score needs rows in memory. Pass n_calibration, or y=None.")
    home, before = device_of(held.module), held.estimator.score(X, y)

    def drop(device):
        held.module.to(home)
        now = restored_held(stored_held(held)).estimator if is_ours(held.owner) else held.estimator
        found = before - now.score(X, y)
        held.module.eval().to(device)
        return found

    return drop
