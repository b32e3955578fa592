"""The network of `LieGroupConvClassifier`: samples of a group, kernels moved by them, invariant features of images."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .._nets.images import as_images
from .._nets.layers import dropout_layer, linear

GROUPS = {"so2": 0, "sl2": 2, "gl2": 3}  # by how many numbers the symmetric factor is described
_LEAST_SIDE = 15  # of images: smaller ones are enlarged
_STRIDE = 2
_HIDDEN = 64  # width of the layer between features and classes
_DROPOUT = 0.3
_ON_THE_EDGE = 1e-6  # by how much a pixel may be outside of the unit disc by rounding
_START = 0.2  # standard deviation of the values of a kernel at the start


class LiftShape(NamedTuple):
    """The sizes of a network."""

    n_features: int  # of a row; pixels beyond them are zero
    image: list[int]  # height, width and channels
    sides: list[int]  # height and width after the image is enlarged
    n_classes: int
    n_channels: int
    kernel_size: int
    kernel_points: int
    pad: int

    @property
    def n_places(self) -> int:
        """The number of places at which a kernel is applied."""
        return math.prod((side + 2 * self.pad - self.kernel_size) // _STRIDE + 1 for side in self.sides)


def lift_shape(
    image: tuple[int, int, int],
    n_features: int,
    n_classes: int,
    *,
    n_channels: int,
    kernel_size: int,
    kernel_points: int,
    pad: int,
) -> LiftShape:
    """Return the sizes of a network for images (height, width, channels) that are rows of `n_features` columns.

    An image is enlarged until its shorter side has 15 pixels, and by one pixel more where the places of the kernel
    would not be symmetric about its centre.

    Raises
    ------
    ValueError
        If the kernel is larger than the image with its margin.
    """
    least = min(image[:2])
    factor = max(1.0, _LEAST_SIDE / least)
    sides = [round(factor * side) for side in image[:2]]
    room = min(sides) + 2 * pad
    if kernel_size > room:
        raise ValueError(
            f"kernel_size={kernel_size} is larger than images of image_shape={image[:2]}, whose shorter side has "
            f"{min(sides)} pixels, after it was enlarged where it had fewer than {_LEAST_SIDE}, and {room} with "
            f"pad={pad}. Pass at most {room}, or raise pad."
        )
    sides = [side + (side + 2 * pad - kernel_size) % _STRIDE for side in sides]
    return LiftShape(n_features, list(image), sides, n_classes, n_channels, kernel_size, kernel_points, pad)


# The group


def group_elements(generator: torch.Generator, *, group: str, n_samples: int, spd_scale: float) -> torch.Tensor:
    """Draw elements (n, 2, 2) of a group in float64: each is a symmetric positive definite matrix times a rotation.

    The angles of the rotations are equidistant, from a random one on. Logarithms of the symmetric factors have
    independent normal coordinates of variance `spd_scale`: strains, and for "gl2" a change of size.
    """
    double = {"dtype": torch.float64, "device": "cpu"}
    angles = (torch.arange(n_samples, **double) + torch.rand((), generator=generator, **double)) * math.tau / n_samples
    rotations = _matrices(angles.cos(), -angles.sin(), angles.sin(), angles.cos())
    n_coordinates = GROUPS[group]
    if not n_coordinates:
        return rotations
    drawn = torch.randn(3, n_samples, generator=generator, **double) * (spd_scale / 2) ** 0.5
    stretch, shear, size = drawn if n_coordinates == 3 else (*drawn[:2], torch.zeros(n_samples, **double))
    return torch.linalg.matrix_exp(_matrices(size + stretch, shear, shear, size - stretch)) @ rotations


def _matrices(a, b, c, d):
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)


def kernel_weights(elements: torch.Tensor, kernel_size: int, kernel_points: int) -> torch.Tensor:
    """Return by which weights the values of a kernel make up its moved copies: (n, pixels, points).

    Values are at `kernel_points` x `kernel_points` places on [-1, 1]^2. At a pixel x, of `kernel_size` x `kernel_size`
    on the same square, the copy of an element g has the value at g^-1 x, by bilinear interpolation, times the
    determinant of g^-1, and zero outside of the unit disc. Pixels and points are listed by rows; the first coordinate
    runs along them.
    """
    settings = {"dtype": elements.dtype, "device": elements.device}
    pixels = torch.arange(kernel_size, **settings) - (kernel_size - 1) / 2
    pixels = pixels / max((kernel_size - 1) / 2, 1.0)
    x = torch.cartesian_prod(pixels, pixels).flip(1)  # (pixels, 2)
    inverse = torch.linalg.inv(elements)
    z = x @ inverse.mT  # (n, pixels, 2)
    points = torch.linspace(-1, 1, kernel_points, **settings)
    near = (1 - (z[..., None] - points).abs() * ((kernel_points - 1) / 2)).clamp(min=0)  # (n, pixels, 2, points)
    weights = (near[:, :, 1, :, None] * near[:, :, 0, None, :]).flatten(2)
    inside = z.square().sum(-1) <= 1 + _ON_THE_EDGE
    return weights * (inside * torch.linalg.det(inverse).abs()[:, None])[..., None]


# The layers


class ImageNorm(nn.Module):
    """Layer normalisation over places, samples and channels of an image (b, places, channels); channels have scales."""

    def __init__(self, n_channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(n_channels, device="cpu", dtype=torch.float32))
        self.shift = nn.Parameter(torch.zeros(n_channels, device="cpu", dtype=torch.float32))

    def forward(self, h):
        return F.layer_norm(h, h.shape[1:]) * self.scale + self.shift


class Lifting(nn.Module):
    """A convolution of images with one kernel, moved by elements of a group: (b, n_features) to (b, places, channels).

    The places of the output are those of the image, for each of them all elements.
    """

    def __init__(self, shape: LiftShape, generator: torch.Generator | None):
        super().__init__()
        self.shape = shape
        sizes = shape.kernel_points**2, shape.image[2], shape.n_channels
        values = torch.empty(sizes, device="cpu", dtype=torch.float32)
        if generator is not None:
            values.normal_(std=_START, generator=generator)
        self.values = nn.Parameter(values)

    def forward(self, x, elements):
        size, n_channels = self.shape.kernel_size, self.shape.n_channels
        weights = kernel_weights(elements, size, self.shape.kernel_points).to(x)
        kernels = weights @ self.values.flatten(1)  # (n, pixels, channels of images and outputs)
        kernels = kernels.unflatten(2, (-1, n_channels)).movedim(0, 2).reshape(-1, len(elements) * n_channels)
        patches = self.enlarged(x).unfold(2, size, _STRIDE).unfold(3, size, _STRIDE)
        patches = patches.permute(0, 2, 3, 4, 5, 1).reshape(-1, len(kernels))
        return (patches @ kernels).reshape(len(x), -1, n_channels)

    def enlarged(self, x):
        """Return rows as images (b, channels, height, width), enlarged and with a margin of zeros."""
        height, width, channels = self.shape.image
        x = F.pad(x, (0, height * width * channels - x.shape[1]))
        images = as_images(x, (height, width, channels))
        if self.shape.sides != self.shape.image[:2]:
            images = F.interpolate(images, self.shape.sides, mode="bilinear", align_corners=True)
        return F.pad(images, (self.shape.pad,) * 4)


class LiftedNet(nn.Module):
    """Images to the scores of classes, by features that are the largest values over places and elements of a group.

    `draw` makes the elements of a training step of the generator.
    """

    def __init__(
        self,
        generator: torch.Generator | None,
        *,
        shape: LiftShape,
        draw: Callable[[torch.Generator], torch.Tensor] | None = None,
    ):
        super().__init__()
        self.generator, self.draw = generator, draw
        n_channels = shape.n_channels
        self.lifting = Lifting(shape, generator)
        self.shared = nn.Sequential(
            ImageNorm(n_channels),
            nn.GELU(),
            linear(n_channels, 2 * n_channels, generator),
            ImageNorm(2 * n_channels),
            nn.GELU(),
            linear(2 * n_channels, 4 * n_channels, generator),
        )
        self.head = nn.Sequential(
            nn.LayerNorm(4 * n_channels, device="cpu", dtype=torch.float32),
            linear(4 * n_channels, _HIDDEN, generator),
            nn.LayerNorm(_HIDDEN, device="cpu", dtype=torch.float32),
            nn.GELU(),
            dropout_layer(_DROPOUT, generator),
            linear(_HIDDEN, shape.n_classes, generator),
        )

    def features(self, x, elements):
        """Return the invariant features (b, 4 n_channels)."""
        return self.shared(self.lifting(x, elements)).amax(1)

    def forward(self, x):
        return self.head(self.features(x, self.draw(self.generator).to(x.device)))


class InvariantFeatures(nn.Module):
    """Rows in their own units to the means of their features over several samples of the group."""

    def __init__(self, net: LiftedNet, elements: torch.Tensor, scale: float):
        super().__init__()
        self.net, self.scale = net, scale
        self.register_buffer("elements", elements)

    def forward(self, x):
        x = x / self.scale
        return torch.stack([self.net.features(x, sample) for sample in self.elements]).mean(0)
