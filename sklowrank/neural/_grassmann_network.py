"""The network of subspaces of classes: unit features, and their lengths in the subspaces."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._core.rows import Rows, map_rows
from .._math.linalg import unit_rows
from .._nets.architecture import Architecture, restore
from ._grassmannian import orthonormal

TRUNK = "features.trunk."  # what names of the weights in front begin with
_CONSTANT = 1.5  # times the length of rows: with less, no line of directions is near to all rows of a table


class Model(NamedTuple):
    """A fitted network and the subspaces of the classes of its features."""

    architecture: Architecture  # of the network in front
    weights: dict[str, np.ndarray]
    subspaces: torch.Tensor  # (C, d, k), orthonormal columns and zeros
    scale: float  # rows are divided by
    constant: bool  # whether features have a constant coordinate
    gamma: float
    optimizer: dict[int, Any]  # its state, with which `partial_fit` goes on

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimension of the subspace of each class."""
        return tuple(self.subspaces.any(1).sum(1).tolist())

    @property
    def plain(self) -> bool:
        """Whether features are rows, without a network in front."""
        return is_plain(self.architecture)


def is_plain(architecture: Architecture) -> bool:
    """Return whether there is no network: not a default one without layers."""
    return architecture.module is None and not architecture.params["hidden_layer_sizes"]


class UnitFeatures(nn.Module):
    """Rows to features of length one: a network, a constant coordinate where asked for, and the normalisation."""

    def __init__(self, trunk: nn.Module, constant: bool, scale: float = 1.0):
        super().__init__()
        self.trunk, self.constant, self.scale = trunk, constant, scale

    def forward(self, x):
        features = self.trunk(x if self.scale == 1 else x / self.scale)
        if self.constant:
            features = nn.functional.pad(features, (0, 1), value=_CONSTANT * features.shape[1] ** 0.5)
        return unit_rows(features)


class SubspaceNet(nn.Module):
    """Unit features, and for each class gamma times their length in its subspace.

    Without a network in front it takes the features themselves. Its subspaces are random where there is a generator,
    else they are to be loaded.
    """

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        generator,
        *,
        dims: tuple[int, ...],
        plain: bool,
        constant: bool,
        gamma: float,
    ):
        super().__init__()
        self.features = nn.Identity() if plain else UnitFeatures(trunk, constant)
        self.gamma = gamma
        S = torch.zeros(len(dims), width + constant, max(dims), device="cpu", dtype=torch.float32)
        if generator is not None:
            S.normal_(generator=generator)
            S = orthonormal(S * kept_columns(dims)[:, None])
        self.subspaces = nn.Parameter(S)

    def forward(self, x):
        return logits(self.features(x), self.subspaces, self.gamma)


def kept_columns(dims: tuple[int, ...]) -> torch.Tensor:
    """Return which columns belong to a subspace of each dimension, (C, k)."""
    at = torch.arange(max(dims), dtype=torch.int64, device="cpu")
    return at < torch.tensor(dims, dtype=torch.int64, device="cpu")[:, None]


def logits(U: torch.Tensor, S: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return gamma times the lengths of features U (n, d) projected to the subspaces S (C, d, k): (n, C)."""
    C, d, k = S.shape
    return gamma * (U @ S.transpose(0, 1).reshape(d, C * k)).reshape(-1, C, k).norm(dim=2)


def restored(model: Model, device, generator=None) -> SubspaceNet:
    """Return a fitted network; with a generator it can be trained on."""
    weights: dict[str, Any] = {f"{TRUNK}{name}": value for name, value in model.weights.items()}
    weights["subspaces"] = model.subspaces.float()
    head = partial(SubspaceNet, dims=model.dims, plain=model.plain, constant=model.constant, gamma=model.gamma)
    return restore(model.architecture, weights, device, generator, head)


def feature_network(model: Model, device: torch.device | str = "cpu") -> UnitFeatures:
    """Return the network in float32 that takes rows as they are to unit features."""
    trunk = nn.Sequential() if model.plain else restored(model, device).features.trunk
    return UnitFeatures(trunk, model.constant, model.scale).eval()


def features_of(model: Model, rows: Rows, device: torch.device) -> torch.Tensor:
    """Return the unit features of rows; the default network is computed in float64, one of a user in float32."""
    return _computed(model, rows, device, lambda U: U)


def scores_of(model: Model, rows: Rows, device: torch.device) -> torch.Tensor:
    """Return the scores of rows (n, C), in float64."""
    return _computed(model, rows, device, lambda U: logits(U.double(), model.subspaces, model.gamma))


def _computed(model, rows, device, function):
    """Return a function of the unit features of rows, of which a block is in memory at a time."""
    dtype = torch.float64 if model.architecture.module is None else torch.float32
    net = feature_network(model, device).to(dtype)
    C, d, k = model.subspaces.shape
    size = 8 * (rows.shape[1] + sum(p.shape[0] for p in net.parameters()) + 2 * d + C * k)
    with torch.inference_mode():
        return map_rows(rows, lambda X: function(net(dense(X, device).to(dtype))), size=size)


def dense(X: Any, device) -> torch.Tensor:
    """Return a block of rows as a tensor in float64."""
    return (X if isinstance(X, torch.Tensor) else torch.from_numpy(X.toarray())).to(device).double()
