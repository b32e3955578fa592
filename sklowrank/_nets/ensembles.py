"""Several networks of one architecture, trained and asked together."""

from contextlib import nullcontext

import numpy as np
import torch
from torch import nn

from .._core.blocks import in_blocks, rows_per_block
from .architecture import Architecture, build
from .layers import SideBySide, linear
from .randomness import fixed_randomness

_ROWS = 4096  # at most at once


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


def build_ensemble(architecture: Architecture, count: int, generator) -> SideBySide | OneByOne:
    """Return new nets on the CPU; networks of the user draw under `Randomness.scope`, and a linear layer follows."""
    n_features, n_outputs = architecture.n_in[0], architecture.n_out or 1
    if architecture.module is None:
        return SideBySide(count, n_features, n_outputs, generator, **architecture.params)
    trunk = architecture._replace(n_out=None)

    def with_layer(net, width, generator):
        return nn.Sequential(net, linear(width, n_outputs, generator))

    return OneByOne([build(trunk, generator, with_layer) for _ in range(count)])


def restore_ensemble(architecture: Architecture, weights, device) -> SideBySide | OneByOne:
    """Return nets with the given weights."""
    with nullcontext() if architecture.module is None else fixed_randomness().scope():
        nets = build_ensemble(architecture, len(weights), None)
    parts = [{k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in part.items()} for part in weights]
    if isinstance(nets, SideBySide):
        state = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    else:
        state = {f"nets.{k}.{name}": value for k, part in enumerate(parts) for name, value in part.items()}
    nets.load_state_dict(state)
    return nets.to(device)


def ensemble_outputs(nets: SideBySide | OneByOne, X: torch.Tensor) -> torch.Tensor:
    """Return the outputs of all nets next to one another, (n, K d), in float64.

    The default nets are computed in float64, too: an output must not depend on the other rows of a block. A user's
    module may take float32 alone.
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
