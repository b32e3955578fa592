"""Widths of morphable networks, their training, and answers at a width."""

from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.standardize import standardization, standardized
from .._core.validation import is_integer, on_host
from .._core.warn import warn
from .._core.workspace import Workspace
from .._nets.architecture import architecture_of, as_numpy
from .._nets.batches import Batches
from .._nets.designs import Design
from .._nets.estimating import NetworkModel, distinct_outputs, sizes
from .._nets.targets import Head, Weighted, weighted
from .._nets.training import Training
from ._morphable_network import MorphableNetwork, Shape, network_of_width, stored_weights


class Options(NamedTuple):
    """The parameters of the estimator that decide the network and its training."""

    width_range: Any
    weight_function: str
    train_widths: Any
    default_width: int | None
    n_hidden_layers: int
    n_frequencies: int
    activation: str
    standardize: bool
    learning_rate: float
    weight_decay: float
    batch_size: int
    max_iter: int
    verbose: int


class Problem(NamedTuple):
    """What is trained, on what, and how."""

    design: Design
    batches: Batches
    loss: Weighted
    training: Training
    train_widths: torch.Tensor
    mean: torch.Tensor  # (n_features,), float64
    scale: torch.Tensor  # (n_features,), float64


class Model(NamedTuple):
    """A fitted network of every width, and what it sees of rows."""

    shape: Shape
    weights: dict[str, np.ndarray]
    mean: torch.Tensor  # (n_features,), float64
    scale: torch.Tensor  # (n_features,), float64


# Widths


def widths_of_range(width_range: Any) -> tuple[int, int]:
    """Return the smallest and the largest width.

    Raises
    ------
    ValueError
        If these are not two integers, at least 1, in this order.
    """
    given = np.asarray(width_range)
    if given.shape != (2,) or given.dtype.kind not in "iu" or not 1 <= given[0] <= given[1]:
        raise ValueError(
            f"width_range={width_range!r} has to be two integers, the smallest hidden width, at least 1, and the "
            "largest, at least as large."
        )
    return int(given[0]), int(given[1])


def widths_of_training(train_widths: Any, smallest: int, largest: int) -> np.ndarray:
    """Return widths in a range, sorted: those that are given, or that number of evenly spaced ones.

    Raises
    ------
    ValueError
        If one is no integer in the range.
    """
    given = np.asarray(train_widths)
    if given.ndim == 0 and given.dtype.kind in "iu" and given > 0:
        return np.unique(np.rint(np.linspace(largest, smallest, int(given))).astype(np.int64))
    if not _are_integers(given, smallest, largest):
        raise ValueError(
            f"train_widths={train_widths!r} has to be the number of widths, or integers in "
            f"width_range=({smallest}, {largest})."
        )
    return np.unique(given.astype(np.int64))


def widths_of_curve(shape: Shape, widths: Any) -> np.ndarray:
    """Return the widths of a size curve, in the order in which they are given.

    Raises
    ------
    ValueError
        If one is no integer from 1 to the limit of the network, or there is none.
    """
    given = np.asarray(on_host(widths))
    if not _are_integers(given, 1, shape.limit):
        raise ValueError(
            f"widths={widths!r} has to be a sequence of integers from 1 to {shape.limit}, {_described_limit(shape)}. "
            "Pass some of these, or fit with another width_range."
        )
    return given.astype(np.int64)


def _are_integers(given, least, most):
    """Return whether an array is a sequence of integers in a range, at least one."""
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iu":
        return False
    return least <= given.min() and given.max() <= most


def _described_limit(shape):
    """Return what the limit of the widths is, in words."""
    largest = "the largest" if shape.weight_function == "nested" else "twice the largest"
    return f"{largest} of width_range=({shape.smallest}, {shape.largest})"


def check_width(shape: Shape, width: Any, name: str = "width") -> int:
    """Return a width that a network has.

    Raises
    ------
    ValueError
        If it is no integer from 1 to the limit of the network.
    """
    if not is_integer(width) or width > shape.limit:
        raise ValueError(
            f"{name}={width!r} has to be an integer from 1 to {shape.limit}, {_described_limit(shape)}. Pass one of "
            "these, or fit with another width_range."
        )
    return int(width)


def asked_width(shape: Shape, width: Any, default_width: Any) -> int:
    """Return the width of a call: the one it names, or the default one, or the largest.

    It warns where the network was not trained for it.
    """
    name, asked = ("default_width", default_width) if width is None else ("width", width)
    if asked is None:
        return shape.largest
    found = check_width(shape, asked, name)
    if not shape.smallest <= found <= shape.largest:
        warn(
            f"{name}={found} is outside of width_range=({shape.smallest}, {shape.largest}), for which the network was "
            "trained: its answers may be poor. Pass a width of the range, or fit with another width_range.",
            UserWarning,
        )
    return found


# Training


def problem_of_widths(X: Any, target: torch.Tensor, head: Head, options: Options, ws: Workspace) -> Problem:
    """Return the problem of rows X and targets as the head encodes them.

    Raises
    ------
    ValueError
        If parameters do not suit one another.
    """
    shape = _shape(options, X.shape[1], head.n_out)
    train_widths = widths_of_training(options.train_widths, shape.smallest, shape.largest)
    nested = shape.weight_function == "nested"
    drawn = range(shape.smallest, shape.largest + 1) if nested else train_widths.tolist()
    X = ws.load(X)
    mean, scale = standardization(X, "columns" if options.standardize else False)
    rows = standardized(X, mean, scale)
    target = target.to(ws.device, torch.float32 if target.is_floating_point() else None)
    return Problem(
        design=Design(MorphableNetwork, {"shape": shape, "widths": drawn}),
        batches=Batches(lambda at: (rows[at], (target[at], None)), len(rows), whole=True),
        loss=weighted(head.loss),
        training=Training(
            options.max_iter,
            options.batch_size,
            options.learning_rate,
            options.weight_decay,
            verbose=options.verbose,
        ),
        train_widths=torch.from_numpy(train_widths),
        mean=mean,
        scale=scale,
    )


def _shape(options, n_features, n_outputs):
    smallest, largest = widths_of_range(options.width_range)
    shape = Shape(
        options.weight_function,
        n_features,
        n_outputs,
        options.n_hidden_layers,
        options.activation,
        smallest,
        largest,
        options.n_frequencies,
    )
    if shape.weight_function == "spectral" and shape.n_frequencies > smallest:
        raise ValueError(
            f"n_frequencies={shape.n_frequencies} is above the smallest width {smallest}, at which its waves are "
            f"not distinct. Pass at most {smallest}, or another width_range."
        )
    if options.default_width is not None:
        check_width(shape, options.default_width, "default_width")
    return shape


def described(
    problem: Problem, of_targets: dict[str, Any], weights: dict[str, np.ndarray]
) -> tuple[Model, dict[str, Any]]:
    """Return the model and the public attributes that belong to weights of a training."""
    shape = problem.design.arguments["shape"]
    weights = stored_weights(weights, shape)
    model = Model(shape, weights, problem.mean, problem.scale)
    public = {"weights_": weights, "mean_": model.mean, "scale_": model.scale, "train_widths_": problem.train_widths}
    return model, of_targets | public | {"n_parameters_": sum(part.size for part in weights.values())}


# New rows


def outputs_at(X: torch.Tensor, model: Model, width: int) -> torch.Tensor:
    """Return the outputs (n, n_outputs) of the network of a width for rows X, in float64."""
    net = network_of_width(model.weights, model.shape, width).to(X.device, torch.float64)
    rows = standardized(X, model.mean, model.scale, torch.float64)
    size = 8 * (X.shape[1] + sum(p.shape[0] for p in net.parameters()))
    return distinct_outputs(net, rows, size=size)[0]


def network_model(model: Model, width: int) -> tuple[NetworkModel, dict[str, Any]]:
    """Return the network of a width as estimators with one network have it, and its public attributes."""
    shape, weights = model.shape, as_numpy(network_of_width(model.weights, model.shape, width).state_dict())
    layers = {"hidden_layer_sizes": [width] * shape.n_hidden_layers, "activation": shape.activation, "dropout": 0.0}
    architecture = architecture_of(None, None, (shape.n_features,), shape.n_outputs, **layers)
    network = NetworkModel(architecture, weights, model.mean, model.scale, {})
    public = {"weights_": weights, "mean_": model.mean, "scale_": model.scale, "training_": {}}
    return network, public | sizes(architecture)
