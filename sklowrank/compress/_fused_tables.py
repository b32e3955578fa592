"""Tables whose vectors reach a linear layer with nothing between: what a trace of the network shows; fusing them.

A table of width r and a map ``v -> v @ U.T + mu`` are read by a layer with the weight W through a concatenation. The
map goes into that layer: its columns for the table become ``W U``, and its bias takes ``W mu``.
"""

from collections import Counter
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from .._nets.calls import Calls
from .._nets.recording import device_of, layer_type

_CONCATENATIONS = {torch.cat, torch.concat, torch.concatenate, torch.stack}
_WHOLE = {"None", "Ellipsis", str(slice(None))}  # what in an index leaves the entries as they are
_RESHAPES = {"flatten", "reshape", "view"}


class Field(NamedTuple):
    """Columns that a layer reads one after another."""

    table: str | None  # None: they are of no table
    width: int
    stack: str | None = None  # the concatenation for which widths have to be equal


class Reader(NamedTuple):
    """A linear layer that reads vectors of tables."""

    name: str
    fields: list[Field]

    def without_stacks(self) -> "Reader":
        """Return it without the tables of which vectors can be read only where all have the same width."""
        return self._replace(fields=[f if f.stack is None else f._replace(table=None) for f in self.fields])


def readers_of(module: nn.Module, calls: Calls, tables: list[str]) -> list[Reader]:
    """Return the linear layers that read vectors of some tables, where nothing else reads these.

    Only concatenations and flattening stand between. Tables and layers are used once. A network that torch cannot trace
    has none.
    """
    traced = _traced(module, calls)
    if traced is None:
        return []
    used = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    uses = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    free = {name for name in tables if used[name] == 1}
    found = []
    for node in traced.graph.nodes:
        layer: Any = module.get_submodule(node.target) if node.op == "call_module" else None
        if layer is None or layer_type(layer) != "linear" or used[str(node.target)] > 1 or node.kwargs:
            continue
        if layer._forward_hooks or layer._forward_pre_hooks or any(uses[id(p)] > 1 for p in layer.parameters()):
            continue
        fields = _fields(node.args[0], free, module) if len(_shape(node)) == 2 else []
        if any(field.table for field in fields) and sum(field.width for field in fields) == layer.in_features:
            found.append(Reader(str(node.target), fields))
    return found


def fuse(module: nn.Module, reader: Reader) -> list[str]:
    """Give the tables of a reader their small ones, and the reader the maps behind them; return these tables."""
    layer: Any = module.get_submodule(reader.name)
    maps: dict[str, Any] = {}
    for table in {field.table for field in reader.fields if field.table is not None}:
        pair = module.get_submodule(table)
        if isinstance(pair, nn.Sequential):  # it was replaced
            maps[table] = pair
    for table in _uneven(reader.fields, {table: pair[1].in_features for table, pair in maps.items()}):
        maps.pop(table, None)
    if not maps:
        return []
    columns, bias = [], None if layer.bias is None else layer.bias.detach().double()
    parts = layer.weight.detach().double().split([field.width for field in reader.fields], 1)
    for field, part in zip(reader.fields, parts):
        if field.table in maps:
            behind = maps[field.table][1]
            if behind.bias is not None:
                added = part @ behind.bias.detach().double()
                bias = added if bias is None else bias + added
            part = part @ behind.weight.detach().double()
        columns.append(part)
    weight = torch.cat(columns, 1)
    fused = nn.Linear(weight.shape[1], len(weight), bias=bias is not None, device="meta")
    for name, value in {"weight": weight, "bias": bias}.items():
        if value is not None:
            fused.register_parameter(name, nn.Parameter(value.to(layer.weight.dtype)))
    fused.train(layer.training).requires_grad_(layer.weight.requires_grad)
    module.set_submodule(reader.name, fused)
    for table, pair in maps.items():
        module.set_submodule(table, pair[0])
    return list(maps)


def _uneven(fields, narrow):
    """Return the tables in stacks whose vectors would not all have the same width."""
    found = set()
    for stack in {field.stack for field in fields} - {None}:
        tables = {field.table for field in fields if field.stack == stack}
        if (
            None in tables
            or len({narrow.get(field.table, field.width) for field in fields if field.stack == stack}) > 1
        ):
            found |= tables
    return found


def _traced(module, calls):
    """Return the trace of a module with the shapes of two rows; None where there is none."""
    args, kwargs = next(calls.batches(2, device_of(module)))
    with suppress(Exception), torch.no_grad():  # whatever the code of the network does with what is no tensor
        traced = fx.symbolic_trace(module)
        places = [node.target for node in traced.graph.nodes if node.op == "placeholder"]
        args = (*args, *(kwargs[name] for name in places[len(args) :] if name in kwargs))
        ShapeProp(traced).propagate(*args)
        return traced
    return None


def _shape(node):
    """Return the shape of a tensor in the trace; of anything else, an empty one."""
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))


def _fields(node, free, module):
    """Return the entries of a row of a tensor in their order, as fields; those that may not be fused have no table."""
    shape = _shape(node)
    others = [Field(None, torch.Size(shape[1:]).numel())]
    if len([user for user in node.users if not _asks_for_rows(user)]) > 1:
        return others
    if node.op == "call_module" and node.target in free:
        return [Field(node.target, shape[-1])] * torch.Size(shape[1:-1]).numel()
    layer = module.get_submodule(node.target) if node.op == "call_module" else None
    parts = _parts(node, layer)
    if parts is None or any(_shape(part)[:1] != shape[:1] for part in parts):
        return others
    fields = [field for part in parts for field in _fields(part, free, module)]
    if len(parts) > 1 and len(shape) > 2:
        fields = [field._replace(stack=node.name) for field in fields]
    return fields


def _parts(node, layer):
    """Return the tensors that a concatenation puts one after another in each row, or what is flattened; else None."""
    args, kwargs = node.args, node.kwargs
    if type(layer) is nn.Identity or (type(layer) is nn.Flatten and layer.start_dim == 1 and layer.end_dim == -1):
        return [args[0]]
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if name == "unsqueeze" or (name == "getitem" and isinstance(args[1], tuple) and set(map(str, args[1])) <= _WHOLE):
        return [args[0]] if _shape(node)[0] == _shape(args[0])[0] else None
    if node.op == "call_function" and node.target in _CONCATENATIONS:
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return list(args[0]) if dim in (1, 1 - len(_shape(node))) else None
    if node.op in ("call_method", "call_function") and name in _RESHAPES and not kwargs and len(_shape(node)) == 2:
        sizes = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
        last = (1,) if name == "flatten" else (-1,)  # sizes are not to be those of the vectors
        return [args[0]] if tuple(sizes)[-1:] == last and len(sizes) == (1 if name == "flatten" else 2) else None
    if node.op in ("call_method", "call_function") and name == "flatten" and kwargs == {"start_dim": 1}:
        return [args[0]]
    return None


def _asks_for_rows(node):
    """Return whether a node asks for the number of rows of a tensor."""
    return node.op == "call_method" and node.target == "size" and tuple(node.args[1:]) == (0,)
