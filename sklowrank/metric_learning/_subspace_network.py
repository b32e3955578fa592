"""A network whose outputs are divided among learners: gate, trunk, and a linear map in pieces."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

from .._math.linalg import unit_rows
from .._nets.images import CHANNELS, as_images, convolution, convolutions
from .._nets.layers import linear

_GATE_WIDTH = 128


class Shape(NamedTuple):
    """What the parts around a trunk are built from."""

    n_features: int
    n_components: int
    attention: bool
    image: tuple[int, int, int] | None  # height, width and channels of flattened images
    convolutions: bool  # before the trunk; a user's own trunk has none


class Gate(nn.Module):
    """A factor in (0, 2) for each feature of a row, one at first."""

    def __init__(self, n_features: int, generator: torch.Generator | None):
        super().__init__()
        self.first = linear(n_features, _GATE_WIDTH, generator)
        self.last = linear(_GATE_WIDTH, n_features, generator)
        _start_at_zero(self.last)

    def forward(self, x):
        return 2 * torch.sigmoid(self.last(self.first(x).relu()))


class SpatialGate(nn.Module):
    """A factor in (0, 2) for each pixel of an image (n, c, h, w), one at first."""

    def __init__(self, channels: int, generator: torch.Generator | None):
        super().__init__()
        self.first = convolution(channels, CHANNELS[0], generator)
        self.last = convolution(CHANNELS[0], 1, generator)
        _start_at_zero(self.last)

    def forward(self, x):
        return 2 * torch.sigmoid(self.last(self.first(x).relu()))


def _start_at_zero(layer):
    with torch.no_grad():
        for part in layer.parameters():
            part.zero_()


class Embedding(nn.Module):
    """The network of a fitted model: rows (n, n_features) to their embedding (n, n_components)."""

    def __init__(self, trunk: nn.Module, width: int, generator: torch.Generator | None, *, shape: Shape):
        super().__init__()
        self.image = shape.image
        channels = None if shape.image is None else shape.image[2]
        if not shape.attention:
            self.gate: Any = None
        else:
            self.gate = Gate(shape.n_features, generator) if channels is None else SpatialGate(channels, generator)
        self.convolutions = convolutions(channels, generator) if shape.convolutions and channels else None
        self.trunk = trunk
        self.project = linear(width, shape.n_components, generator, bias=False)

    def hidden(self, x):
        """Return what the trunk gives."""
        if self.image is not None:
            x = as_images(x, self.image)
        if self.gate is not None:
            x = x * self.gate(x)
        return self.trunk(x if self.convolutions is None else self.convolutions(x))

    def forward(self, x):
        return self.project(self.hidden(x))

    def attention_map(self, x):
        """Return the factors of the gate (n, n_features); the channels of a pixel share one."""
        if self.image is None:
            return self.gate(x)
        return self.gate(as_images(x, self.image)).reshape(len(x), -1).repeat_interleave(self.image[2], 1)


class Outputs(NamedTuple):
    """What a batch is to its loss: learners make their own columns of it."""

    hidden: torch.Tensor  # (b, width)
    pieces: list[torch.Tensor]  # of the linear map, by rows
    classes: list[torch.Tensor]  # beta (n_classes,), or proxies by the same pieces (n_classes, columns)

    def of(self, learner: range) -> torch.Tensor:
        """Return the unit rows (b, d) of a learner; nothing else of the map gets a gradient."""
        return unit_rows(self.hidden @ torch.cat([self.pieces[i] for i in learner]).T)

    def proxies_of(self, learner: range) -> torch.Tensor:
        """Return the unit proxies (n_classes, d) of a learner."""
        return unit_rows(torch.cat([self.classes[i] for i in learner], 1))


class Learners(nn.Module):
    """The network while it is trained.

    The linear map is in pieces that any number of learners up to the most can share out among them, each a parameter of
    its own: one without a gradient is left as it is by any optimizer, whatever its momentum.
    """

    def __init__(self, embedding: Embedding, cuts: list[int], classes: list[torch.Tensor]):
        super().__init__()
        self.embedding = embedding
        W = embedding.project.weight.detach()
        self.pieces = nn.ParameterList([W[a:b].clone() for a, b in pairwise(cuts)])
        self.classes = nn.ParameterList(classes)
        del embedding.project

    def forward(self, x):
        return Outputs(self.embedding.hidden(x), list(self.pieces), list(self.classes))

    def embedded(self, x):
        """Return the embedding (n, n_components)."""
        return self.embedding.hidden(x) @ torch.cat(list(self.pieces)).T


def embedding_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of an :class:`Embedding` for those of :class:`Learners`."""
    found = {name.removeprefix("embedding."): W for name, W in weights.items() if name.startswith("embedding.")}
    return found | {"project.weight": torch.cat([W for name, W in weights.items() if name.startswith("pieces.")])}


def class_weights(weights: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return what :class:`Learners` has learned of the classes."""
    return [W for name, W in weights.items() if name.startswith("classes.")]


def bytes_per_row(net: nn.Module) -> int:
    """Return about how many bytes a row takes on its way through a network, in float64."""
    embedding = net.embedding if isinstance(net, Learners) else net
    pixels = 0 if embedding.image is None else sum(CHANNELS) * embedding.image[0] * embedding.image[1]
    return 8 * (2 * pixels + sum(sum(p.shape[:2]) for p in net.parameters()))


def slices_of(n_components: int, n_learners: int) -> list[slice]:
    """Return the columns of each learner; their numbers differ by one at most."""
    ends = [i * n_components // n_learners for i in range(n_learners + 1)]
    return [slice(a, b) for a, b in pairwise(ends)]


def cuts_of(n_components: int, numbers: range) -> list[int]:
    """Return all places at which the columns are cut for any of these numbers of learners."""
    return sorted({0} | {piece.stop for n in numbers for piece in slices_of(n_components, n)})


def pieces_of(columns: slice, cuts: list[int]) -> range:
    """Return which pieces between cuts make up these columns."""
    return range(cuts.index(columns.start), cuts.index(columns.stop))


def unit_slices(Z: torch.Tensor, slices: list[slice]) -> torch.Tensor:
    """Return the embedding with the columns of each learner scaled to length one."""
    return torch.cat([unit_rows(Z[:, columns]) for columns in slices], 1)
