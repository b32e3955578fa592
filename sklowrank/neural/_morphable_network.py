"""Multilayer perceptrons of every width from one set of weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from .._nets.generated import Layers, as_perceptron, perceptron
from .._nets.layers import as_tensor


class Shape(NamedTuple):
    """What a network is besides its weights."""

    weight_function: str  # "nested" or "spectral"
    n_features: int
    n_outputs: int
    n_hidden_layers: int
    activation: str
    smallest: int  # hidden width that it is trained for
    largest: int
    n_frequencies: int

    @property
    def n_rows(self) -> int:
        """The number of rows of the stored weights: units of the largest width, or functions of a basis."""
        return self.largest if self.weight_function == "nested" else 2 * self.n_frequencies + 1

    @property
    def power(self) -> float:
        """The power of the width by which weights behind the first layer are divided."""
        return 0.5 if self.weight_function == "nested" else 1.0

    @property
    def limit(self) -> int:
        """The largest hidden width that it has."""
        return self.largest if self.weight_function == "nested" else 2 * self.largest

    def n_parameters(self, width: int) -> int:
        """Return the number of parameters of the network of a width."""
        inner = (self.n_hidden_layers - 1) * width * (width + 1)
        return width * (self.n_features + 1) + inner + self.n_outputs * (width + 1)


def layers_of(weights: Mapping[str, torch.Tensor], shape: Shape, width: int, *, unit: int = 1) -> Layers:
    """Return weights and offsets of the network of a width, from the first layer.

    Layers but the first are divided by a power of the width, so that units of networks of different widths have outputs
    of one size. Weights are those that are stored; with a `unit`, those divided by this power of it.
    """
    at_units, share = units(shape, width, weights["first"]), (unit / width) ** shape.power
    first = at_units(weights["first"])
    layers = [(first[:, :-1], first[:, -1])]
    for i in range(shape.n_hidden_layers - 1):
        W = at_units(at_units(weights[f"hidden{i}"]).T).T
        layers.append((W * share, at_units(weights[f"hidden{i}_bias"])))
    return [*layers, (at_units(weights["last"]).T * share, weights["last_bias"])]


def units(shape: Shape, width: int, like: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the map from stored rows to those of the units of a width: the first ones, or values of functions."""
    if shape.weight_function == "nested":
        return lambda rows: rows[:width]
    basis = basis_at(width, shape.n_frequencies, like.device).to(like.dtype)
    return lambda rows: basis @ rows


def basis_at(width: int, n_frequencies: int, device: torch.device) -> torch.Tensor:
    """Return the constant, sines and cosines (width, 2 n_frequencies + 1) at the middles of equal parts of [0, 1]."""
    positions = (torch.arange(width, dtype=torch.float64, device=device) + 0.5) / width
    frequencies = torch.arange(1, n_frequencies + 1, dtype=torch.float64, device=device)
    angles = math.pi * positions[:, None] * frequencies
    constant = torch.ones_like(positions[:, None])
    waves = math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([constant, waves], 1) / math.sqrt(2 * n_frequencies + 1)


class MorphableNetwork(nn.Module):
    """A network that has another width, drawn from `widths`, in each training step.

    Rows of its weights belong to units ("nested"), or to functions of the position of a unit ("spectral"). They are of
    the size that weights of the largest width have, so that a rate and a decay mean what they do in other networks, and
    begin with the variances of torch's linear layers at that width: with those of He, which are six times as large,
    small networks learn far more slowly.
    """

    def __init__(self, generator: torch.Generator | None, *, shape: Shape, widths: Sequence[int]):
        super().__init__()
        self.generator, self.shape, self.widths = generator, shape, widths
        n_rows = shape.n_rows
        self._add("first", (n_rows, shape.n_features + 1), shape.n_features)
        for i in range(shape.n_hidden_layers - 1):
            self._add(f"hidden{i}", (n_rows, n_rows), shape.largest)
            self._add(f"hidden{i}_bias", (n_rows,))
        self._add("last", (n_rows, shape.n_outputs), shape.largest)
        self._add("last_bias", (shape.n_outputs,))
        with torch.no_grad():
            self.first[:, -1] = 0.0

    def _add(self, name, size, n_in=None):
        """Add weights of a layer of `n_in` inputs, normal where there is a generator; offsets are zero."""
        values = torch.zeros(size, device="cpu", dtype=torch.float32)
        if self.generator is not None and n_in is not None:
            values.normal_(std=(3 * n_in) ** -0.5, generator=self.generator)
        self.register_parameter(name, nn.Parameter(values))

    def forward(self, x):
        drawn = torch.randint(len(self.widths), (), generator=self.generator, device="cpu")
        width, weights = self.widths[int(drawn)], dict(self.named_parameters())
        layers = layers_of(weights, self.shape, width, unit=self.shape.largest)
        return perceptron(x, layers, self.shape.activation)


def stored_weights(weights: Mapping[str, np.ndarray], shape: Shape) -> dict[str, np.ndarray]:
    """Return the weights of a :class:`MorphableNetwork` as they are stored: without the unit of the largest width."""
    size = np.float32(shape.largest**shape.power)
    divided = [*(f"hidden{i}" for i in range(shape.n_hidden_layers - 1)), "last"]
    return {name: value * size if name in divided else value for name, value in weights.items()}


def network_of_width(weights: Mapping[str, np.ndarray], shape: Shape, width: int) -> nn.Sequential:
    """Return the network of a width as torch's layers, in float32, on the CPU and in eval mode."""
    exact = {name: as_tensor(value).double() for name, value in weights.items()}
    return as_perceptron(layers_of(exact, shape, width), shape.activation)
