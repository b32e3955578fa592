"""Training of maps between fields: grids, units of fields, the loss, predictions."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch.callbacks import GradientNormClipping
from torch import nn

from .._core.standardize import standardization, standardized
from .._core.validation import is_integer
from .._nets.batches import Batches
from .._nets.designs import Design
from .._nets.estimating import distinct_outputs
from .._nets.images import as_images, as_rows, field_shape
from .._nets.training import Training
from ._latent_spectral_network import LatentSpectralNet

_MOST_LEVELS = 5
_COARSEST = 4  # points of an axis that "auto" leaves at the last level
_LARGEST_GRADIENT = 1.0  # norm to which longer ones are cut
_ZERO = 1e-8  # relative to y: a field whose root mean square is lower is zero

FieldShape = tuple[int, int, int]  # height, width, channels


class Options(NamedTuple):
    """The parameters of the estimator that decide the network and its training."""

    width: int
    n_levels: int | str
    n_basis: int
    n_tokens: int
    n_heads: int
    patch_size: int
    loss: str
    normalize: bool
    learning_rate: float
    weight_decay: float
    batch_size: int
    max_iter: int
    verbose: int


class Units(NamedTuple):
    """What the columns of X and y are centred with and divided by, in float64."""

    mean: torch.Tensor  # (n_features,)
    scale: torch.Tensor  # (n_features,)
    y_mean: torch.Tensor  # (n_targets,)
    y_scale: torch.Tensor  # (n_targets,)


class Problem(NamedTuple):
    """What is trained, on what, and how."""

    design: Design
    batches: Batches
    loss: Callable[[torch.Tensor, Any], torch.Tensor]
    training: Training
    units: Units
    y_axes: tuple[int, ...]  # the shape of a target as the user has it


class Model(NamedTuple):
    """A fitted network, the units of its fields, and the axes of a target."""

    arguments: dict[str, Any]  # of the network
    weights: dict[str, np.ndarray]
    mean: torch.Tensor
    scale: torch.Tensor
    y_mean: torch.Tensor
    y_scale: torch.Tensor
    y_axes: tuple[int, ...]

    @property
    def design(self) -> Design:
        """How the network is built."""
        return Design(LatentSpectralNet, {**self.arguments, "grid": tuple(self.arguments["grid"])})

    @property
    def field(self) -> FieldShape:
        """Height, width and channels of the fields of X."""
        return (*self.arguments["grid"], self.arguments["channels_in"])

    @property
    def y_field(self) -> FieldShape:
        """Height, width and channels of the fields of y."""
        return (*self.arguments["grid"], self.arguments["channels_out"])


# Grids


def checked_grid(grid_shape: Any, x_axes: tuple[int, ...] | None, y_axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the grid of fields: one or two numbers of points. A table without one is a single point.

    `x_axes` and `y_axes` are the shapes of fields with several axes.

    Raises
    ------
    ValueError
        If `grid_shape` is no grid, or is missing.
    """
    if grid_shape is not None:
        if len(grid_shape) not in (1, 2) or not all(map(is_integer, grid_shape)):
            raise ValueError(f"grid_shape={grid_shape!r} has to be (height, width) or (length,), ints >= 1.")
        return tuple(int(n) for n in grid_shape)
    if x_axes is not None:
        return x_axes[:2]
    if y_axes is not None:
        raise ValueError(
            f"X is a table and grid_shape is None, but y has fields of shape {y_axes}. Pass grid_shape={y_axes[:2]}, "
            "or X with the axes of its grid."
        )
    return (1, 1)


def auto_levels(grid: tuple[int, ...]) -> int:
    """Return as many levels as leave every axis at least four points, one at least and five at most.

    An axis of a single point does not count.
    """
    smallest = min((n for n in grid if n > 1), default=1)
    return max(1, min(_MOST_LEVELS, 1 + int(math.log2(max(smallest / _COARSEST, 1)))))


# The problem


def field_problem(
    X: torch.Tensor,
    Y: torch.Tensor,
    grid: tuple[int, ...],
    x_axes: tuple[int, ...] | None,
    y_axes: tuple[int, ...] | None,
    options: Options,
) -> Problem:
    """Return the problem of mapping rows X (n, n_features) to y, (n,) or (n, n_targets), which are fields on a grid.

    Raises
    ------
    ValueError
        If X or y is not on the grid, or parameters do not suit one another.
    """
    if options.width % options.n_heads:
        raise ValueError(
            f"width={options.width} has to be a multiple of n_heads={options.n_heads}, which share the channels. Pass "
            f"width={-(-options.width // options.n_heads) * options.n_heads}, or another n_heads."
        )
    y_axes, Y = tuple(Y.shape[1:]) if y_axes is None else y_axes, Y.reshape(len(Y), -1)
    x_field = field_shape("X", x_axes, X.shape[1], grid)
    y_field = field_shape("y", y_axes if len(y_axes) > 1 else None, Y.shape[1], grid)
    arguments = {"grid": x_field[:2], "channels_in": x_field[2], "channels_out": y_field[2]}
    arguments |= {name: getattr(options, name) for name in ("width", "n_basis", "n_tokens", "n_heads", "patch_size")}
    arguments["n_levels"] = auto_levels(grid) if options.n_levels == "auto" else options.n_levels
    units = units_of(X, Y, options.normalize)
    inputs = as_images(standardized(X, units.mean, units.scale), x_field)
    divisors = torch.where(units.y_scale > 0, units.y_scale, math.inf)
    targets = as_images(standardized(Y, units.y_mean, divisors), y_field)
    relative = options.loss == "relative_l2"
    typical = root_mean_square(Y - units.y_mean)
    weight = (typical / lengths(Y) if relative else torch.full_like(Y[:, 0], 1 / Y.shape[1])).float()
    scale = as_images((units.y_scale / typical)[None], y_field).float()
    return Problem(
        Design(LatentSpectralNet, arguments),
        even_batches(lambda at: (inputs[at], (targets[at], weight[at])), len(X), options.batch_size),
        partial(mean_error, scale, relative),
        training(options),
        units,
        y_axes,
    )


def units_of(X: torch.Tensor, Y: torch.Tensor, normalize: bool) -> Units:
    """Return the means and standard deviations of points, or zeros and ones.

    A point at which X is constant gets the root mean square of all standard deviations, so that another value in new
    fields has the size of an ordinary one, in any units. One at which y is constant has zero: it is predicted as it
    is, whatever the network says, and takes no part in the loss. Fixed values at a boundary are the usual case.
    """
    how = "columns" if normalize else False
    mean, scale = standardization(X, how, constant=0.0)
    scale = torch.where(scale > 0, scale, root_mean_square(scale))
    return Units(mean, scale, *standardization(Y, how, constant=0.0))


def root_mean_square(Y: torch.Tensor) -> torch.Tensor:
    """Return the root of the mean of the squares, one where all are zero."""
    peak = Y.abs().max()
    found = (Y / torch.where(peak > 0, peak, 1.0)).square().mean().sqrt() * peak
    return torch.where(found > 0, found, 1.0)


def lengths(Y: torch.Tensor) -> torch.Tensor:
    """Return the norms (n,) of rows, by which errors are divided; of rows of zeros that of a typical row."""
    typical = root_mean_square(Y)
    found = torch.linalg.vector_norm(Y / typical, dim=1)
    p = Y.shape[1] ** 0.5
    return torch.where(found > _ZERO * p, found, p) * typical


def even_batches(make: Any, n_rows: int, batch_size: int) -> Batches:
    """Return batches whose sizes differ by one at most, so that batch normalisation never has a single field."""
    batches = Batches(make, n_rows, whole=True)
    return batches._replace(drawn=partial(_drawn, n_rows, batches.per_epoch(batch_size)))


def _drawn(n_rows: int, count: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    order = torch.randperm(n_rows, generator=generator, device="cpu", dtype=torch.int64)
    return iter(order.tensor_split(count))


def mean_error(scale: torch.Tensor, relative: bool, outputs: torch.Tensor, target: tuple[torch.Tensor, ...]):
    """Return the weighted mean of the norms of the errors of fields, or of the squared norms, in the units of y."""
    values, weight = target
    errors = torch.linalg.vector_norm(((outputs - values) * scale).flatten(1), dim=1)
    return ((errors if relative else errors.square()) * weight).mean()


def training(options: Options) -> Training:
    """Return how the network is trained: gradients of a norm above one are cut."""
    own = {
        "optimizer": torch.optim.AdamW,
        "optimizer__fused": True,
        "callbacks": [("gradient_clipping", GradientNormClipping(_LARGEST_GRADIENT))],
    }
    return Training(
        options.max_iter,
        options.batch_size,
        options.learning_rate,
        weight_decay=options.weight_decay,
        net_params=own,
        verbose=options.verbose,
    )


# What is kept, and answers


def described(problem: Problem, weights: dict[str, np.ndarray]) -> tuple[Model, dict[str, Any]]:
    """Return the model of some weights, and the public attributes."""
    model = Model(problem.design.arguments, weights, *problem.units, problem.y_axes)
    n_parameters = sum(part.numel() for part in problem.design.built(None).parameters())
    public = {f"{name}_": getattr(model, name) for name in ("weights", *Units._fields)}
    return model, public | {"n_parameters_": n_parameters, "n_levels_": model.arguments["n_levels"]}


def check_axes(name: str, axes: tuple[int, ...] | None, field: FieldShape) -> None:
    """Raise a ValueError where fields with several axes, of the shape `axes`, are on another grid than the fitted."""
    height, width, channels = field
    grids = {(height, width), (height,)} if width == 1 else {(height, width)}
    if axes is not None and axes not in {(*grid, channels) for grid in grids} | (grids if channels == 1 else set()):
        raise ValueError(
            f"{name} has fields of the shape {axes}, and the network was fitted to height, width and channels "
            f"{field}. Pass fields on that grid."
        )


def predictions(model: Model, X: torch.Tensor) -> torch.Tensor:
    """Return the fields (n, ...) of rows X, with the axes that y had, computed in float64."""
    net = _OfRows(model.design.restored(model.weights, X.device, torch.float64), model.field)
    rows = standardized(X, model.mean, model.scale, torch.float64)
    (found,) = distinct_outputs(net, rows, size=_bytes_per_field(model))
    return (found * model.y_scale + model.y_mean).reshape(len(X), *model.y_axes)


def _bytes_per_field(model):
    """Return about how many bytes the network takes for a field in float64: what is kept of the finest level."""
    of, points = model.arguments, math.prod(model.arguments["grid"])
    tokens = of["n_tokens"] * (of["width"] + of["n_heads"])
    series = 2 * of["width"] * of["n_tokens"] * of["n_basis"] / of["patch_size"] ** 2
    return int(8 * points * (12 * of["width"] + 128 + 3 * tokens + 3 * series))


class _OfRows(nn.Module):
    """A network of fields that takes and returns rows, channels last."""

    def __init__(self, network: nn.Module, field: FieldShape):
        super().__init__()
        self.network, self.field = network, field

    def forward(self, x):
        return as_rows(self.network(as_images(x, self.field)))


class FieldMap(nn.Module):
    """A network of fields (n, channels, height, width) in their own units."""

    def __init__(self, network: nn.Module, model: Model):
        super().__init__()
        self.network = network
        for name in Units._fields:
            field = model.y_field if name.startswith("y_") else model.field
            self.register_buffer(name, as_images(getattr(model, name)[None], field).float())

    def forward(self, x):
        return self.network((x - self.mean) / self.scale) * self.y_scale + self.y_mean
