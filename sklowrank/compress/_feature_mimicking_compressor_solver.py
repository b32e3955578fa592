"""The compression of tables and dense layers by what they give on some rows, before any training."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from .._nets.calls import outputs_of
from .._nets.holding import Held
from .._nets.passes import AnyCalls, calls_of
from .._nets.recording import LayerReport, device_of, layer_type, reached, run, watching
from ._fused_tables import fuse, readers_of
from ._layer_pairs import (
    ladder_of,
    leave_fast_paths,
    left_layers,
    n_parameters,
    product_weight,
    replace_layers,
    seen_of,
    taken_layers,
    taken_with_products,
)
from ._low_rank_compressor_solver import check_finite
from ._rank_budgets import Ladder, budget_of, ranks_by_budget, ranks_by_number

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
_METHOD = "output_pca"
_ROWS_OF_START = 1 << 14  # rows that the start of an activation is taken from
_CONSTANT = 4.0  # spread, in roundings of the largest one, of what differs by rounding alone
_WIDTH = 3.0  # standard deviations that tanh has within its linear part, and those that SiLU is scaled to


class MimickingOptions(NamedTuple):
    """What :func:`mimic_layers` reads of the parameters."""

    embedding_rank: int | float | None
    linear_rank: int | float | None
    compression: float | None
    inner_activation: str | None
    first_layer: bool
    last_layer: bool
    fuse: bool
    batch_size: int
    n_calibration: int | None
    modules: str | Sequence[str] | None
    exclude: str | Sequence[str] | None


class Problem(NamedTuple):
    """A network, the rows that it is called with, and what it gives for them before it is changed."""

    module: nn.Module
    calls: AnyCalls  # all rows
    outputs: torch.Tensor  # for all rows, on the CPU
    some: torch.Tensor | None  # the rows that layers are fitted to; None: all
    n_before: int
    size: int  # rows that are processed at once

    @property
    def fitted_calls(self) -> AnyCalls:
        """The rows that layers are fitted to."""
        return self.calls if self.some is None else self.calls.taken(self.some)

    @property
    def fitted_outputs(self) -> torch.Tensor:
        """What the network gave for them."""
        return self.outputs if self.some is None else self.outputs[self.some]


class Activated(nn.Sequential):
    """A linear layer, an activation and a linear layer, which replace one."""


def mimicking_problem(
    held: Held, X: Any, options: MimickingOptions, generator: torch.Generator, device: torch.device
) -> Problem:
    """Return what is known before layers are replaced; the network moves to the device.

    Raises
    ------
    ValueError
        If outputs are not finite.
    """
    calls = calls_of(held, X).joined()
    outputs = outputs_of(held.module.to(device), calls, options.batch_size, device).clone()
    check_finite(outputs)
    some, count = None, options.n_calibration
    if count is not None and count < calls.n_rows:
        some = torch.randperm(calls.n_rows, generator=generator, device="cpu", dtype=torch.int64)[:count].sort().values
    return Problem(held.module, calls, outputs, some, n_parameters(held.module), options.batch_size)


def mimic_layers(problem: Problem, options: MimickingOptions, generator: torch.Generator) -> LayerReport:
    """Replace tables, then dense layers in the order of a pass, by those of low rank; return what was done to each.

    Raises
    ------
    ValueError
        If no layer can be replaced, or `compression` cannot be reached.
    """
    module, calls, size = problem.module, problem.fitted_calls, options.batch_size
    names, pairs = taken_with_products(module, partial(_taken, module, calls, options))
    seen = seen_of(module, calls, names, size)
    tables = [name for name in names if layer_type(module.get_submodule(name)) == "embedding"]
    readers = readers_of(module, calls, tables) if options.fuse and tables else []
    if options.compression is not None:  # it gives tables ranks of their own
        readers = [reader.without_stacks() for reader in readers]
    ranks = _ranks(problem, names, seen, readers, pairs, options)
    layers: dict[str, Any] = {name: module.get_submodule(name) for name in names}
    before = {
        name: {
            "type": type(layer).__name__,
            "shape": tuple(layer.weight.shape),
            "n_parameters_before": n_parameters(pairs.get(name, layer)),
        }
        for name, layer in layers.items()
    }
    for name in [name for name in pairs if ranks[name] is None]:
        module.set_submodule(name, pairs[name])
        readers = [r._replace(name=f"{name}.0") if r.name == name else r for r in readers]
    narrow, dense = ({name: ranks[name] for name in names if (name in tables) == is_one} for is_one in (True, False))

    report = replace_layers(module, calls, narrow, seen, method=_METHOD, size=size)
    for reader in readers:
        fuse(module, reader)
    if any(narrow.values()) and dense:
        seen |= seen_of(module, calls, [name for name, rank in dense.items() if rank is not None], size)
        dense = {name: _paying(module.get_submodule(name), rank, options) for name, rank in dense.items()}
    then = None
    if options.inner_activation is not None:
        then = partial(_activate, module, _rows_of_start(calls, generator), options)
    report += replace_layers(module, calls, dense, seen, method=_METHOD, size=size, then=then)
    leave_fast_paths(module, (Activated,))
    for row in report:
        row |= before[row["name"]]
        row["n_parameters"] = n_parameters(module.get_submodule(row["name"]))
    return LayerReport(report)


def _taken(module, calls, options):
    """Return the names of the layers that may be replaced, tables first."""
    by_budget = options.compression is not None
    types = ("embedding",) if by_budget or options.embedding_rank is not None else ()
    types += ("linear", "transposed") if by_budget or options.linear_rank is not None else ()
    if not types:
        raise ValueError("embedding_rank, linear_rank and compression are None, so that nothing is to be compressed.")
    exclude = [options.exclude] if isinstance(options.exclude, str) else list(options.exclude or ())
    linear = [name for name, layer in module.named_modules() if type(layer) is nn.Linear]
    linear = reached(module, calls, linear) if linear else []
    kept = [] if options.first_layer else linear[:1]
    kept += [] if options.last_layer else linear[-1:]
    try:
        names = taken_layers(module, calls, types=types, modules=options.modules, exclude=[*exclude, *kept])
    except ValueError as error:
        if not kept:
            raise
        why = f"The first and the last linear layer stay unless first_layer or last_layer: {', '.join({*kept})}."
        raise ValueError(f"{error} {why}") from error
    return sorted(names, key=lambda name: layer_type(module.get_submodule(name)) != "embedding")


def _ranks(problem, names, seen, readers, pairs, options):
    """Return the rank of each layer; None where the layer stays as it is."""
    layers = {name: problem.module.get_submodule(name) for name in names}
    ladders = {name: _ladder(layer, seen[name], options) for name, layer in layers.items()}
    ladders |= {name: ladders[name]._replace(n_dense=n_parameters(pair)) for name, pair in pairs.items()}
    for reader in readers:
        if reader.name not in names:  # else what it is made of changes, too
            ladders |= _fused_ladders(problem.module.get_submodule(reader.name), reader, ladders)
    if options.compression is not None:
        left = left_layers(problem.module, names)
        budget = budget_of(ladders, problem.n_before, options.compression, left)
        return ranks_by_budget(ladders, budget, "greedy")
    ranks = {}
    for name, layer in layers.items():
        rank = options.embedding_rank if layer_type(layer) == "embedding" else options.linear_rank
        ranks |= ranks_by_number({name: ladders[name]}, rank)
    return ranks


def _ladder(layer, seen, options):
    """Return what ranks cost and lose; an activation has a bias of its own."""
    ladder = ladder_of(layer, seen, _METHOD)
    inside = options.inner_activation is not None and layer_type(layer) != "embedding"
    return ladder._replace(n_per_rank=ladder.n_per_rank + inside)


def _fused_ladders(layer, reader, ladders):
    """Return what ranks of the tables of a reader cost: its columns become fewer, and no map is behind them."""
    n_out, found = layer.out_features, {}
    for table, count in Counter(field.table for field in reader.fields if field.table is not None).items():
        ladder = ladders[table]
        width = len(ladder.lost) - 1
        n_rows, n_columns = ladder.n_dense // width, n_out * count
        bias = 0 if layer.bias is not None else n_out
        found[table] = Ladder(ladder.n_dense + n_columns * width, n_rows + n_columns, bias, ladder.lost)
    return found


def _paying(layer, rank, options):
    """Return the rank, or None where the layer, as it is by now, would not become smaller."""
    n_out, n_in = product_weight(layer).shape
    return (
        rank
        if rank is not None and rank * (n_in + n_out + (options.inner_activation is not None)) < n_in * n_out
        else None
    )


# An activation between the two layers of a pair


def _rows_of_start(calls, generator):
    """Return the rows that activations are started with: all of them, or some that are drawn."""
    if calls.n_rows <= _ROWS_OF_START:
        return calls
    order = torch.randperm(calls.n_rows, generator=generator, device="cpu", dtype=torch.int64)
    return calls.taken(order[:_ROWS_OF_START].sort().values)


def _activate(module, calls, options, name):
    """Put an activation between the two layers of a pair."""
    pair = module.get_submodule(name)
    between: list[torch.Tensor] = []
    with watching(module, [f"{name}.0"], lambda _, layer, args, out: between.append(out.flatten(0, -2).double().cpu())):
        run(module, calls, options.batch_size)
    shift, scale = activation_start(torch.cat(between), options.inner_activation, pair[0].weight.dtype)
    module.set_submodule(name, activated(pair, options.inner_activation, shift, scale))


def activation_start(
    between: torch.Tensor, activation: str, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return shift and scale (r,) with which ``scale * act((z - shift) / scale) + shift`` is close to rows z (n, r).

    ReLU lets pass what is above the 5 % quantile. SiLU has that shift, and a scale at which it bends little. Tanh is
    within its linear part. What differs by rounding alone, in the dtype that rows were computed in, has no scale of its
    own.
    """
    spread = between.std(0, correction=0)
    largest = spread.max()
    spread = torch.where(
        spread > _CONSTANT * torch.finfo(dtype).eps * largest, spread, torch.where(largest > 0, largest, 1.0)
    )
    if activation == "tanh":
        return between.mean(0), _WIDTH * spread
    at = (0.05 * (len(between) - 1)) // 1
    low = between.sort(0).values[int(at)]
    return low, spread / _WIDTH if activation == "silu" else torch.ones_like(spread)


def activated(pair: Any, activation: str, shift: torch.Tensor, scale: torch.Tensor) -> Activated:
    """Return the layers of a pair with an activation between them, shifted and scaled, and back behind it."""
    shift, scale = shift.to(device_of(pair)), scale.to(device_of(pair))
    W, U = (layer.weight.detach().double() for layer in pair)
    bias = U @ shift if pair[1].bias is None else pair[1].bias.detach().double() + U @ shift
    weights = ((W / scale[:, None], -shift / scale), (U * scale, bias))
    layers = []
    for weight, offset in weights:
        layer = nn.Linear(weight.shape[1], len(weight), device="meta")
        layer.weight, layer.bias = (
            nn.Parameter(part.to(pair[0].weight.dtype).contiguous()) for part in (weight, offset)
        )
        layers.append(layer)
    found = Activated(layers[0], _ACTIVATIONS[activation](), layers[1])
    return found.train(pair.training).requires_grad_(pair[0].weight.requires_grad)
