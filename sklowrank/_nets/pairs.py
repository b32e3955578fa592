"""Pairs of layers of low rank that take the place of one layer, of torch's types."""

from collections import Counter
from typing import Any

import torch
from torch import nn

from .layers import ThinLinear, linear


class Pair(nn.Sequential):
    """Two layers that replace one; `weight` and `bias` show their product to code that reads them.

    Sizes and strides of the former layer, such as `in_features`, are attributes.
    """

    __jit_unused_properties__ = ["weight", "bias"]
    kind = "linear"  # of the layer that was replaced, as `layer_type` says it

    @property
    def weight(self) -> torch.Tensor:
        """The product in the shape of the weight that was replaced."""
        layers: Any = self
        first, second = layers[0].weight, layers[1].weight.flatten(1)
        if self.kind == "embedding":
            table = first @ second.T
            return table if self.bias is None else table + self.bias
        product = (second @ first.flatten(1)).reshape(len(second), *first.shape[1:])
        return product.T if self.kind == "transposed" else product

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias of the second layer."""
        second: Any = self[1]
        return second.bias


def in_pairs(module: nn.Module) -> nn.Module:
    """Put two linear layers of torch in the place of each thin one, and return the module.

    What changes, adapts or exports the layers of a network then meets those of torch alone.
    """
    for path, layer in list(module.named_modules()):
        if path and type(layer) is ThinLinear and layer.rank:
            module.set_submodule(path, _pair_of(layer))
    return module


def _pair_of(thin):
    """Return the map of a thin layer as two linear layers of torch, which have copies of the weights."""
    n_out, n_in = len(thin.up), thin.down.shape[1]
    first = linear(n_in, thin.rank, None, bias=False)
    pair = Pair(first, linear(thin.rank, n_out, None, bias=thin.bias is not None))
    named = {"0.weight": thin.down, "1.weight": thin.up} | ({} if thin.bias is None else {"1.bias": thin.bias})
    pair.to(thin.up).load_state_dict(named)
    for name, parameter in pair.named_parameters():
        parameter.requires_grad_(named[name].requires_grad)
    return pair.train(thin.training)


def multiply_pairs(module: nn.Module) -> dict[str, Pair]:
    """Put one linear layer in the place of each pair of linear layers; return the pairs by their names."""
    uses = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    pairs = {name: layer for name, layer in module.named_modules() if name and _is_of_linear_layers(layer, uses)}
    for name, pair in pairs.items():
        weight = pair.weight.detach().contiguous()
        layer = nn.Linear(weight.shape[1], len(weight), bias=pair.bias is not None, device="meta")
        layer.weight = nn.Parameter(weight)
        if pair.bias is not None:
            layer.bias = nn.Parameter(pair.bias.detach().clone())
        module.set_submodule(name, layer.train(pair.training).requires_grad_(pair[1].weight.requires_grad))
    return pairs


def _is_of_linear_layers(layer, uses):
    """Return whether a layer is a pair of linear layers alone: no weight shared, no hook."""
    if not isinstance(layer, Pair) or layer.kind != "linear" or [type(part) for part in layer] != 2 * [nn.Linear]:
        return False
    has_hooks = any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules())
    return not has_hooks and all(uses[id(p)] == 1 for p in layer.parameters())
