"""Rows that are images, channels last as numpy has them; convolutions over what torch wants of them."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from .._core.validation import is_integer

CHANNELS = 16, 32  # of the two convolutions of `convolutions`
_POOLED = 4  # rows and columns of pixels that they leave
N_POOLED = CHANNELS[1] * _POOLED**2  # columns behind them


def image_shape_of(shape: Any, n_features: int, *, name: str = "image_shape") -> tuple[int, int, int]:
    """Return height, width and channels of images that are rows of `n_features` columns.

    Raises
    ------
    ValueError
        If the shape is no two or three positive integers, or has another number of pixels.
    """
    sizes = [*shape, 1][:3]
    if len(shape) not in (2, 3) or not all(map(is_integer, sizes)):
        raise ValueError(f"{name}={shape!r} has to be (height, width) or (height, width, channels), ints >= 1.")
    if math.prod(sizes) != n_features:
        raise ValueError(
            f"{name}={shape!r} has {math.prod(sizes)} pixels, and X has n_features={n_features}. Pass the shape "
            "of one row, or None."
        )
    height, width, channels = (int(n) for n in sizes)
    return height, width, channels


def as_images(x: torch.Tensor, image: tuple[int, int, int]) -> torch.Tensor:
    """Return flattened images (n, n_features), channels last, as (n, channels, height, width)."""
    return x.reshape(len(x), *image).movedim(-1, 1)


def as_rows(images: torch.Tensor) -> torch.Tensor:
    """Return images (n, channels, height, width) as rows (n, n_features), channels last."""
    return images.movedim(1, -1).reshape(len(images), -1)


def flat_rows(values: Any) -> tuple[Any, tuple[int, ...] | None]:
    """Return fields with several axes (n, ...) as rows in C order, and the shape of one; tables are not touched."""
    if isinstance(values, list | tuple):
        values = np.asarray(values) if np.ndim(values) > 2 else values
    shape: tuple[int, ...] = getattr(values, "shape", ())
    if len(shape) < 3:
        return values, None
    if not hasattr(values, "reshape"):  # such as arrays with names of axes
        values = np.asarray(values)
    return values.reshape(shape[0], math.prod(shape[1:])), tuple(shape[1:])


def field_shape(
    name: str, shape: tuple[int, ...] | None, n_columns: int, grid: tuple[int, ...]
) -> tuple[int, int, int]:
    """Return height, width and channels of fields on a grid of one or two axes; a line has the width 1.

    `shape` is that of one field, None where it is a row of `n_columns` columns.

    Raises
    ------
    ValueError
        If the fields are not on that grid.
    """
    n_points = math.prod(grid)
    if shape is None and n_columns % n_points:
        cure = " To predict numbers that are no field, use NetworkRegressor on flattened fields." if name == "y" else ""
        raise ValueError(
            f"grid_shape={grid} has {n_points} points, and {name} has {n_columns} columns, which is no multiple of it. "
            f"Pass rows with one column per point and channel.{cure}"
        )
    if shape is not None and (shape[: len(grid)] != grid or len(shape) > len(grid) + 1):
        raise ValueError(
            f"grid_shape={grid} is not the grid of {name}, whose fields have the shape {shape}. Pass fields of shape "
            f"{grid} or {(*grid, 'channels')}."
        )
    height, width = [*grid, 1][:2]
    return height, width, n_columns // n_points


def convolution(
    n_in: int,
    n_out: int,
    generator: torch.Generator | None,
    *,
    size: int | tuple[int, int] = 3,
    bias: bool = True,
) -> nn.Conv2d:
    """Return a convolution of `size` x `size` pixels in float32, on the CPU; an odd size keeps height and width.

    Two numbers are the height and the width of a kernel that is no square. The weights have torch's initial
    distribution, drawn from `generator`; without one they are to be loaded.
    """
    height, width = (size, size) if isinstance(size, int) else size
    layer = nn.utils.skip_init(
        nn.Conv2d,
        n_in,
        n_out,
        (height, width),
        padding=(height // 2, width // 2),
        bias=bias,
        device="cpu",
        dtype=torch.float32,
    )
    if generator is not None:
        bound = (height * width * n_in) ** -0.5
        with torch.no_grad():
            for part in layer.parameters():
                part.uniform_(-bound, bound, generator=generator)
    return layer


def convolutions(channels: int, generator: torch.Generator | None) -> nn.Sequential:
    """Return two convolutions with pooling, from images to rows of `N_POOLED` columns."""
    return nn.Sequential(
        convolution(channels, CHANNELS[0], generator),
        nn.ReLU(),
        convolution(CHANNELS[0], CHANNELS[1], generator),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(_POOLED),
        nn.Flatten(),
    )
