"""How outputs of a network, targets and predictions belong together; weights of rows."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.multiclass import unique_labels
from torch import nn

from .._core.standardize import standardization
from .._core.validation import on_host
from .._core.workspace import Workspace


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


def labels_head(y: Any, classes: Any = None) -> tuple[Head, dict[str, Any]]:
    """Return the head of :func:`classes_head` for labels of the user's array library, which `classes_` are of, too."""
    head, found = classes_head(on_host(y), classes=None if classes is None else on_host(classes))
    return head, found if isinstance(y, np.ndarray) else {"classes_": torch.from_numpy(found["classes_"])}


def classes_of_stream(estimator, classes: Any) -> Any:
    """Return all classes that `partial_fit` will meet: those it was first given.

    Raises
    ------
    ValueError
        If the first call names none, or a later one names others.
    """
    known = getattr(estimator, "classes_", None)
    if known is None and classes is None:
        raise ValueError("classes must be passed on the first call to partial_fit.")
    if known is not None and classes is not None and not np.array_equal(on_host(known), unique_labels(classes)):
        raise ValueError(f"classes={classes!r} is not the same as in the first call to partial_fit: {known!r}.")
    return unique_labels(on_host(classes)) if known is None else known


def chosen_classes(classes: Any, index: torch.Tensor, ws: Workspace) -> Any:
    """Return the classes at some indices (n,), in the library that they are of."""
    if isinstance(classes, np.ndarray):
        return classes[index.cpu().numpy()]
    return ws.store(ws.load(classes)[index])


def log_probabilities(outputs: torch.Tensor, ws: Workspace) -> Any:
    """Return the logarithms of the probabilities of classes, of a network's outputs, as the user gets them.

    They are finite where a probability is 0 in the precision of X. Where it is 1 in that precision they are 0, so that
    they agree with the probabilities that `predict_proba` returns.
    """
    found = outputs.log_softmax(1)
    return ws.answer(found.masked_fill(found.exp().to(ws.precision) == 1, 0.0))


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

    These are numbers where y is a vector. Targets are standardised one by one, rows weighted, unless mean and scale are
    `fitted` already. The loss of a row is the mean of the squared errors of its targets.

    Raises
    ------
    ValueError
        If y has another number of targets than the fitted ones.
    """
    columns = _columns(y)
    if fitted is None:
        share = None if sample_weight is None else (sample_weight / sample_weight.sum()).cpu()
        fitted = tuple(part.numpy() for part in standardization(columns, "columns" if standardize else False, share))
        if np.ndim(y) == 1:
            fitted = tuple(float(part[0]) for part in fitted)
    mean, scale = fitted
    if np.size(mean) != columns.shape[1]:
        raise ValueError(f"y has {columns.shape[1]} targets, but the network was fitted to {np.size(mean)}.")
    head = Head(np.size(mean), partial(_units, mean, scale), _SquaredError(), partial(in_units, mean=mean, scale=scale))
    return head, {"y_mean_": mean, "y_scale_": scale}


def _columns(y):
    return torch.from_numpy(np.require(y, np.float64, ["C", "W"]).reshape(len(y), -1))


def _units(mean, scale, y):
    mean, scale = (torch.as_tensor(part, dtype=torch.float64, device="cpu") for part in (mean, scale))
    return (_columns(y) - mean) / scale


class _SquaredError(nn.MSELoss):
    def forward(self, outputs, target):
        return (outputs - target).square().mean(1)


def in_units(outputs: torch.Tensor, mean, scale) -> torch.Tensor:
    """Return outputs (n, q) of a regression as values, in float64: (n,) where mean and scale are numbers."""
    if np.ndim(mean) == 0:
        return outputs[:, 0].double() * scale + mean
    mean, scale = (torch.as_tensor(part, dtype=torch.float64, device=outputs.device) for part in (mean, scale))
    return outputs.double() * scale + mean


def unit_weights(weights: torch.Tensor | None) -> torch.Tensor | None:
    """Return weights of rows (n,) divided by their mean, on the CPU; None where there are none."""
    return None if weights is None else (weights / weights.mean()).cpu()


class Weighted:
    """The weighted mean of a loss per row, of outputs and of (targets, weights)."""

    def __init__(self, criterion: nn.Module):
        self.criterion = criterion

    def __call__(self, outputs: torch.Tensor, target: tuple[torch.Tensor, ...]) -> torch.Tensor:
        losses = self.criterion(outputs, target[0])
        return (losses if target[1] is None else losses * target[1]).mean()

    def row_weights(self, target: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        """Return the weights (n,) of the rows of a batch; None where they are equal."""
        return target[1]


def weighted(loss: nn.Module) -> Weighted:
    """Return the weighted mean of a loss per row, of outputs and of (targets, weights)."""
    return Weighted(loss)
