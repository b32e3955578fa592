"""Perceptrons whose weights are computed of other numbers, so that gradients reach these."""

from collections.abc import Sequence

import torch
from torch import nn

from .layers import ACTIVATIONS, linear

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]  # weights (n_out, n_in) and offsets (n_out,), from the first


def perceptron(x: torch.Tensor, layers: Layers, activation: str) -> torch.Tensor:
    """Return the outputs (n, n_outputs) of a multilayer perceptron that has these weights."""
    between = ACTIVATIONS[activation]()
    for W, b in layers[:-1]:
        x = between(nn.functional.linear(x, W, b))
    return nn.functional.linear(x, *layers[-1])


def as_perceptron(layers: Layers, activation: str) -> nn.Sequential:
    """Return the same map as a module of torch's layers, in float32 and on the CPU, in eval mode.

    It is the default network of :func:`~sklowrank._nets.layers.mlp`: names of its weights are the same.
    """
    modules: list[nn.Module] = []
    for W, b in layers:
        layer = linear(W.shape[1], W.shape[0], None)
        with torch.no_grad():
            layer.weight.copy_(W)
            layer.bias.copy_(b)
        modules += [layer, ACTIVATIONS[activation]()]
    return nn.Sequential(*modules[:-1]).eval()
