"""Training and answers of `LieGroupConvClassifier`."""

from functools import partial
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._core.warn import warn
from .._core.workspace import Workspace
from .._nets.batches import Batches
from .._nets.designs import Design
from .._nets.estimating import distinct_outputs
from .._nets.images import image_shape_of
from .._nets.randomness import Randomness
from ._lie_group_conv_network import InvariantFeatures, LiftedNet, LiftShape, group_elements, lift_shape


class Options(NamedTuple):
    """The parameters of the estimator that decide the network and its samples of the group."""

    image_shape: Any
    group: str
    n_group_samples: int
    n_test_samples: int
    spd_scale: float
    n_channels: int
    kernel_size: int
    kernel_points: int
    pad: int


class Model(NamedTuple):
    """A fitted network, and the samples of the group with which it answers."""

    shape: LiftShape
    weights: dict[str, np.ndarray]
    group_elements: torch.Tensor  # (n_test_samples, n_group_samples, 2, 2), float64
    scale: float  # rows are divided by


class Problem(NamedTuple):
    """What is trained, and on what."""

    design: Design
    batches: Batches
    model: Model  # without weights
    image_shape: tuple[int, ...]  # as the user says it


def image_shape(given: Any, n_features: int) -> tuple[int, ...]:
    """Return the shape of images that are rows of `n_features` columns, as it was given.

    None is the smallest square that holds them, of one channel.

    Raises
    ------
    ValueError
        If the shape has another number of pixels.
    """
    if given is not None:
        image_shape_of(given, n_features)
        return tuple(int(n) for n in given)
    side = isqrt(n_features - 1) + 1
    warn(
        f"image_shape=None takes rows of n_features={n_features} for images of {side} x {side} pixels. Pass the "
        "shape of the images; for rows that are no images use another classifier.",
        UserWarning,
    )
    return side, side


def largest_value(X: torch.Tensor) -> float:
    """Return the largest absolute value of images, 1 where it is 0; images far from 0 warn."""
    low, high = (float(bound) for bound in X.aminmax())
    scale = max(abs(low), abs(high)) or 1.0
    if 0 < high - low < scale / 2:
        warn(
            f"X has values from {low:.4g} to {high:.4g}, far from 0, the value of the margin around the images: "
            "its edge hides what the images show. Subtract the value of the background from X, in new rows too.",
            UserWarning,
        )
    return scale


def lifted_images(
    X: torch.Tensor,
    codes: torch.Tensor,
    n_classes: int,
    options: Options,
    randomness: Randomness,
) -> Problem:
    """Return the problem of images X (n, n_features) and the codes of their classes.

    Elements of the group are drawn anew in each training step.

    Raises
    ------
    ValueError
        If there is one class only, or `image_shape` or `kernel_size` does not suit the images.
    """
    if n_classes < 2:
        raise ValueError("y has only one class. Pass rows of two classes at least.")
    image = image_shape(options.image_shape, X.shape[1])
    sizes = {name: getattr(options, name) for name in ("n_channels", "kernel_size", "kernel_points", "pad")}
    height, width, channels = (*image, 1)[:3]
    shape = lift_shape((height, width, channels), X.shape[1], n_classes, **sizes)
    draw = partial(group_elements, group=options.group, n_samples=options.n_group_samples, spd_scale=options.spd_scale)
    elements = torch.stack([draw(randomness.generator) for _ in range(options.n_test_samples)])
    scale = largest_value(X)
    codes = codes.to(X.device)

    def batch(at):
        return (X[at] / scale).float(), (codes[at], None)

    design = Design(LiftedNet, {"shape": shape, "draw": draw})
    return Problem(design, Batches(batch, len(X), whole=True), Model(shape, {}, elements, scale), image)


def described(problem: Problem, weights: dict[str, np.ndarray], **attributes: Any) -> tuple[Model, dict[str, Any]]:
    """Return the model with trained weights, and its public attributes beside others."""
    model = problem.model._replace(weights=weights)
    public = {f"{name}_": getattr(model, name) for name in ("weights", "group_elements", "scale")}
    return model, attributes | public | {"image_shape_": problem.image_shape}


def feature_network(model: Model, device: torch.device | str, dtype: torch.dtype) -> InvariantFeatures:
    """Return the network from rows in their own units to invariant features."""
    net = Design(LiftedNet, {"shape": model.shape}).restored(model.weights, device, dtype)
    return InvariantFeatures(net, model.group_elements.to(device, dtype), model.scale).eval()


def score_network(model: Model, device: torch.device | str, dtype: torch.dtype) -> nn.Sequential:
    """Return the network from rows in their own units to the scores of the classes."""
    features = feature_network(model, device, dtype)
    return nn.Sequential(features, features.net.head).eval()


def answers(net: nn.Module, X: Any, model: Model, ws: Workspace) -> torch.Tensor:
    """Return the outputs of a network in float64 for all rows."""
    shape, n_samples = model.shape, model.group_elements.shape[1]
    patches, layers = shape.kernel_size**2 * shape.image[2], 10 * n_samples * shape.n_channels
    size = 8 * shape.n_places * (patches + layers)
    return distinct_outputs(net, ws.exact().load(X), size=size)[0]
