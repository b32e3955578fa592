"""Several networks of one architecture, trained and asked together."""

import torch
from torch import nn

from .._core.blocks import in_blocks, rows_per_block
from .architecture import Architecture, build
from .layers import ACTIVATIONS, check_layers, dropout_layer, linear
from .randomness import fixed_randomness

_ROWS = 4096  # at most at once


class SideBySide(nn.Module):
    """K multilayer perceptrons of one shape, computed at once: (K, b, n_features) to (K, b, n_outputs).

    A linear map is added to the output of the layers. Weights and dropout are drawn from `generator`, on the CPU, so
    that a seed means the same on every device; without one the weights are to be loaded.
    """

    def __init__(
        self, count: int, n_features: int, n_outputs: int, generator, *, hidden_layer_sizes, activation, dropout
    ):
        super().__init__()
        check_layers(hidden_layer_sizes, activation, dropout)
        self.activation, self.dropout = ACTIVATIONS[activation](), dropout_layer(dropout, generator)

        def drawn(n_in, *shape):
            weights = torch.empty(count, *shape, device="cpu", dtype=torch.float32)
            if generator is not None:
                weights.uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
            return nn.Parameter(weights)

        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in zip([n_features, *hidden_layer_sizes], [*hidden_layer_sizes, n_outputs]):
            self.weights.append(drawn(n_in, n_in, n_out))
            self.biases.append(drawn(n_in, 1, n_out))
        self.straight = drawn(n_features, n_features, n_outputs)
        self.count = count

    def forward(self, x):
        last, straight = len(self.weights) - 1, torch.bmm(x, self.straight)
        for i, (W, b) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(b, x, W)
            if i < last:
                x = self.dropout(self.activation(x))
        return x + straight

    def parts(self) -> list[dict[str, torch.Tensor]]:
        """Return a copy of each net's weights."""
        state = self.state_dict()
        return [{name: value[k].clone() for name, value in state.items()} for k in range(self.count)]

    def load_parts(self, parts) -> None:
        """Take weights as `parts` returns them."""
        stacked = {name: torch.stack([torch.as_tensor(part[name]) for part in parts]) for name in parts[0]}
        self.load_state_dict(stacked)


class OneByOne(nn.Module):
    """K networks of the user's own: same shapes as `SideBySide`."""

    def __init__(self, nets):
        super().__init__()
        self.nets, self.count = nn.ModuleList(nets), len(nets)

    def forward(self, x):
        return torch.stack([net(rows) for net, rows in zip(self.nets, x)])

    def parts(self) -> list[dict[str, torch.Tensor]]:
        """Return a copy of each net's weights."""
        return [{name: value.detach().clone() for name, value in net.state_dict().items()} for net in self.nets]

    def load_parts(self, parts) -> None:
        """Take weights as `parts` returns them."""
        for net, part in zip(self.nets, parts):
            net.load_state_dict({name: torch.as_tensor(value) for name, value in part.items()})


def build_ensemble(architecture: Architecture, count: int, generator) -> SideBySide | OneByOne:
    """Return new nets on the CPU; the user's own ones draw under `Randomness.scope`, and a linear layer follows."""
    n_features, n_outputs = architecture.n_in[0], architecture.n_out or 1
    if architecture.module is None:
        return SideBySide(count, n_features, n_outputs, generator, **architecture.params)
    trunk = architecture._replace(n_out=None)

    def with_layer(net, width, generator):
        return nn.Sequential(net, linear(width, n_outputs, generator))

    return OneByOne([build(trunk, generator, with_layer) for _ in range(count)])


def restore_ensemble(architecture: Architecture, weights, device) -> SideBySide | OneByOne:
    """Return nets with the given weights."""
    with fixed_randomness().scope():
        nets = build_ensemble(architecture, len(weights), None)
    nets.load_parts(weights)
    return nets.to(device)


def ensemble_outputs(nets: SideBySide | OneByOne, X: torch.Tensor) -> torch.Tensor:
    """Return the outputs of all nets next to one another, (n, K d), in float64.

    The default nets are computed in float64, too: an output must not depend on the other rows of a block. A user's
    module may know float32 only.
    """
    nets.eval()
    if isinstance(nets, SideBySide):
        nets.double()
    X = X.to(next(nets.parameters()).dtype)
    size = 4 * nets.count * sum(p.shape[-1] for p in nets.parameters())
    step = min(_ROWS, rows_per_block("auto", len(X), size))

    def of(rows):
        return nets(X[rows].expand(nets.count, -1, -1)).double().transpose(0, 1).flatten(1)

    with torch.inference_mode():
        return torch.cat(list(in_blocks(of, len(X), step, bytes_per_row=size)))
