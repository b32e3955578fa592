"""What held networks are trained to: targets, and the loss that their estimators have."""

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import is_classifier, is_regressor
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from .._core.validation import on_host
from .calls import Calls, outputs_of
from .found import Found, dtype_of, find_network
from .holding import Held, is_ours


class Goal(NamedTuple):
    """Targets and loss of a training."""

    target: torch.Tensor  # (n, ...), on the CPU
    loss: Any  # outputs and targets to a number


def checked_targets(held: Held, y: Any, n_rows: int, *, frozen: bool, one_class: bool = False) -> np.ndarray:
    """Return the targets as an array: one label for each row of a classifier, else values.

    Raises
    ------
    ValueError
        If there are not as many as rows, only one class where none is allowed, or values that are not finite.
    """
    y = np.asarray(on_host(y))
    if len(y) != n_rows:
        raise ValueError(f"X has {n_rows} rows and y has {len(y)}. Pass a target for each row.")
    if not is_classifier(held.estimator):
        if y.dtype.kind not in "fiub":
            try:
                y = y.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"y has the dtype {y.dtype}. Pass numbers to a regressor.") from error
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise ValueError("y contains NaN or infinity. Leave these rows out.")
        return y
    check_classification_targets(y)
    y = column_or_1d(y, warn=frozen)  # what is fitted first has warned already
    if not one_class and len(np.unique(y)) < 2:
        raise ValueError("y has one class: a classifier can be adapted to two or more.")
    return y


class UnknownLossError(TypeError):
    """The loss of an estimator is not known."""


def goal_of(held: Held, y: np.ndarray, codes: np.ndarray | None = None) -> Goal:
    """Return targets and loss: those of a skorch net, the cross-entropy of other classifiers, our own regressors' loss.

    `codes` are the places of labels y among classes, where they are not those of the estimator.

    Raises
    ------
    UnknownLossError
        If the loss is not known.
    """
    owner = held.owner
    dtype = dtype_of(held.module)
    places = None if codes is None else torch.from_numpy(codes.astype(np.int64))
    if isinstance(owner, NeuralNet):
        target = torch.from_numpy(np.array(y)) if places is None else places
        classes = isinstance(owner, NeuralNetClassifier)
        if isinstance(owner, NeuralNetRegressor) and target.ndim == 1:
            target = target[:, None]
        as_values = target.is_floating_point() or isinstance(owner, NeuralNetBinaryClassifier)
        return Goal(target.long() if classes else target.to(dtype) if as_values else target, _SkorchLoss(owner))
    if is_ours(owner):
        found = find_network(owner)
        _check_loss(found)
        return Goal(found.encode(y) if places is None else places, _MeanLoss(found))
    if is_regressor(owner) or not is_classifier(held.estimator):
        raise UnknownLossError(
            f"The loss of a {type(owner).__name__} is not known, nor in which units its network sees y. Pass a skorch "
            "net, a network of this package, or a classifier."
        )
    if places is None:
        places = torch.from_numpy(codes_of(y, np.asarray(on_host(owner.classes_))))
    return Goal(places, nn.functional.cross_entropy)


class _SkorchLoss:
    """The loss of a skorch net, its criterion on the device of the outputs."""

    def __init__(self, net):
        self.net = net
        self.binary = isinstance(net, NeuralNetBinaryClassifier)

    def __call__(self, outputs, target):
        if isinstance(self.net.criterion_, nn.Module):
            self.net.criterion_.to(target.device)
        outputs = outputs.reshape(-1) if self.binary and isinstance(outputs, torch.Tensor) else outputs
        return self.net.get_loss(outputs, target, X=None, training=True)


class _MeanLoss:
    """The mean over rows of the loss of a network of this package."""

    def __init__(self, found: Found):
        self.found = found

    def __call__(self, outputs, target):
        return self.found.loss(outputs, target).mean()


def _check_loss(found):
    if found.reading.kind == "probabilities":
        raise UnknownLossError("The network gives probabilities, and the loss that it was trained with is not known.")


def codes_of(y: Any, labels: np.ndarray) -> np.ndarray:
    """Return the places of targets (n,) among labels, which need no order; -1 for others."""
    places = {label: place for place, label in enumerate(labels.tolist())}
    return np.array([places.get(label, -1) for label in np.asarray(on_host(y)).reshape(-1).tolist()], dtype=np.int64)


def labels_of_codes(held: Held, calls: Calls) -> np.ndarray | None:
    """Return the labels of what a skorch net predicts, which are codes; None where the codes are the labels."""
    if not isinstance(held.owner, NeuralNetClassifier):
        return None
    classes = np.asarray(held.owner.classes_)
    if classes.dtype.kind not in "iub":
        return classes
    if set(classes.tolist()) == set(range(len(classes))):
        return None
    return classes if classes.max() >= first_outputs(held.module, calls).shape[-1] else None


def first_outputs(module: nn.Module, calls: Calls) -> torch.Tensor:
    """Return the outputs of the first rows, at most two."""
    device = next(module.parameters(), torch.empty(0, device="cpu", dtype=torch.float32)).device
    return outputs_of(module, Calls([next(calls.batches(2))]), 2, device)
