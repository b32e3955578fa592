"""How outputs of a network, targets and predictions belong together; weights of rows."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._core.standardize import standardization


class Head(NamedTuple):
    """What is made of a network's outputs."""

    n_out: int
    encode: Callable[[Any], torch.Tensor]  # y to targets of training (n, ...), on the CPU
    loss: nn.Module  # outputs and targets to a loss PER ROW; its class says what the outputs are
    answer: Callable[[torch.Tensor], torch.Tensor]  # outputs to probabilities, or to values in the units of y


def classes_head(y: Any, *, classes: np.ndarray | None = None) -> tuple[Head, dict[str, Any]]:
    """Return the head of a classifier, and its fitted attribute `classes_`: of labels y, unless they are given."""
    classes = np.unique(y) if classes is None else classes
    head = Head(
        len(classes), partial(_codes, classes), nn.CrossEntropyLoss(reduction="none"), partial(torch.softmax, dim=1)
    )
    return head, {"classes_": classes}


def _codes(classes, y):
    codes = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    unknown = np.asarray(y)[classes[codes] != y]
    if len(unknown):
        raise ValueError(f"y has the label {unknown.tolist()[0]!r}, which is not among the classes {classes.tolist()}.")
    return torch.from_numpy(codes.astype(np.int64))


def values_head(
    y: Any, *, standardize: bool = True, sample_weight: torch.Tensor | None = None, fitted: tuple | None = None
) -> tuple[Head, dict[str, Any]]:
    """Return the head of a regressor for y (n,) or (n, q), and its fitted attributes `y_mean_` and `y_scale_`.

    Targets are standardised one by one, rows weighted, unless mean and scale are `fitted` already. The loss of a row is
    the mean of the squared errors of its targets.
    """
    flat = np.ndim(y) == 1
    if fitted is None:
        share = None if sample_weight is None else sample_weight / sample_weight.sum()
        columns = torch.from_numpy(np.asarray(y, dtype=np.float64).reshape(len(y), -1))
        fitted = standardization(columns, "columns" if standardize else False, share)
    mean, scale = (torch.as_tensor(part, dtype=torch.float64, device="cpu") for part in fitted)
    head = Head(len(mean), partial(_units, mean, scale), _SquaredError(), partial(_values, mean, scale, flat))
    return head, {"y_mean_": mean.numpy(), "y_scale_": scale.numpy()}


def _units(mean, scale, y):
    columns = torch.from_numpy(np.asarray(y, dtype=np.float64).reshape(len(y), -1))
    return ((columns - mean) / scale).float()


class _SquaredError(nn.MSELoss):
    def forward(self, outputs, target):
        return (outputs - target).square().mean(1)


def _values(mean, scale, flat, outputs):
    values = outputs.double() * scale.to(outputs.device) + mean.to(outputs.device)
    return values[:, 0] if flat else values


def unit_weights(weights: torch.Tensor | None, n_rows: int) -> torch.Tensor:
    """Return weights of rows (n,) in float32, divided by their mean; ones where there are none."""
    if weights is None:
        return torch.ones(n_rows, dtype=torch.float32, device="cpu")
    return (weights / weights.mean()).float().cpu()


class Weighted(NamedTuple):
    """The weighted mean of a loss per row, of outputs and of (targets, weights)."""

    criterion: nn.Module

    def __call__(self, outputs: torch.Tensor, target: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return (self.criterion(outputs, target[0]) * target[1]).mean()

    def row_weights(self, target: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the weights (n,) of the rows of a batch."""
        return target[1]


def weighted(loss: nn.Module) -> Callable[[torch.Tensor, tuple], torch.Tensor]:
    """Return the weighted mean of a loss per row, of outputs and of (targets, weights)."""
    return Weighted(loss)
