"""Networks that others have fitted: the module, what rows and outputs mean, the loss; how a changed one is stored."""

import copy
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from skorch import NeuralNet, NeuralNetBinaryClassifier
from torch import nn

from .._core.fitted import recall
from .._core.standardize import standardized
from .._core.validation import on_host
from .._core.workspace import open_workspace
from .architecture import Architecture, Edit, copied_module, restore, without_weights
from .estimating import NetworkModel, distinct_outputs
from .layers import InOwnUnits, as_tensor
from .targets import classes_head, in_units, values_head
from .training import current_edits

_TAKEN = (
    "an estimator of sklowrank with network(), a skorch net that has been fitted, a torch.nn.Module, or one of these "
    "in a FrozenEstimator or as the last step of a Pipeline"
)


class Reading(NamedTuple):
    """What the rows and the outputs of a network mean, as values that are stored.

    Outputs are by `kind` "classes": logits of the classes; "codes": logits, of which the place of the largest is the
    prediction; "probabilities": the same, of probabilities; "binary": one logit; "values": numbers in units of their
    own; "outputs": whatever a module gives.
    """

    kind: str
    steps: Any = None  # fitted steps of a pipeline, before the network
    mean: np.ndarray | None = None  # what rows are standardised with
    scale: np.ndarray | None = None
    classes: np.ndarray | None = None
    threshold: float = 0.5  # of the probability of the second of two classes
    y_mean: np.ndarray | float = 0.0  # the units of values
    y_scale: np.ndarray | float = 1.0


class Found(NamedTuple):
    """A fitted network: ``answer(module(prepare(X)))`` is what the model that holds it predicts."""

    module: nn.Module  # a copy, in eval mode, on the CPU
    architecture: Architecture  # how it is built: see `restored_network`
    reading: Reading
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None  # of a skorch net, per entry

    @property
    def classes(self) -> np.ndarray | None:
        """The classes of a classifier."""
        return self.reading.classes

    @property
    def has_probabilities(self) -> bool:
        """Whether outputs can be made probabilities."""
        return self.reading.kind in ("classes", "codes", "probabilities", "binary")

    def prepare(self, X: Any) -> torch.Tensor:
        """Return rows as the model takes them as those that the module takes, in its precision, on its device.

        Integers stay integers where nothing is standardised: they may be indices.
        """
        steps, mean, scale = self.reading.steps, self.reading.mean, self.reading.scale
        rows = rows_as_tensor(steps.transform(X) if steps is not None and len(steps) else X)
        where = next(self.module.parameters(), torch.empty(0, device="cpu", dtype=torch.float32)).device
        dtype = dtype_of(self.module)
        if mean is None or scale is None:
            return rows.to(where, dtype if rows.is_floating_point() else None)
        return standardized(rows.to(where), as_tensor(mean).to(where), as_tensor(scale).to(where), dtype)

    def outputs(self, X: Any) -> torch.Tensor:
        """Return the outputs for rows as the model takes them, in blocks; equal rows get equal ones."""
        rows = self.prepare(X)
        size = 8 * (math.prod(rows.shape[1:]) + sum(len(p) for p in self.module.parameters() if p.ndim))
        return distinct_outputs(self.module, rows, size=size)[0]

    def answer(self, outputs: torch.Tensor) -> np.ndarray:
        """Return what the model predicts where its network has these outputs; the outputs of a bare module."""
        kind, classes = self.reading.kind, self.reading.classes
        outputs = outputs.detach()
        if kind == "values":
            return in_units(outputs, self.reading.y_mean, self.reading.y_scale).cpu().numpy()
        if kind == "outputs":
            return outputs.cpu().numpy()
        if kind == "binary":
            codes = (torch.sigmoid(outputs.reshape(len(outputs))) > self.reading.threshold).long().cpu().numpy()
        else:
            codes = outputs.argmax(1).cpu().numpy()
        return codes if kind in ("codes", "probabilities") else np.asarray(classes)[codes]

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of the classes; see `has_probabilities`."""
        outputs = outputs.detach()
        if self.reading.kind == "binary":
            second = torch.sigmoid(outputs.reshape(len(outputs)))
            return torch.stack([1 - second, second], 1)
        return outputs if self.reading.kind == "probabilities" else outputs.softmax(1)

    def encode(self, y: Any) -> torch.Tensor:
        """Return targets as :meth:`loss` takes them, on the CPU.

        Of a bare module integers of shape (n,) are classes, anything else are values.
        """
        reading = self.reading
        if reading.kind == "classes":
            return classes_head(None, classes=reading.classes)[0].encode(np.asarray(on_host(y)))
        if reading.kind == "values":
            return values_head(on_host(y), fitted=(reading.y_mean, reading.y_scale))[0].encode(on_host(y))
        target = rows_as_tensor(on_host(y))
        if reading.kind == "binary":
            return target.to(dtype_of(self.module))
        integers = not target.is_floating_point() and target.ndim == 1
        return target.long() if integers else target.to(dtype_of(self.module))

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row (n,), as the model was trained with it, gradients included.

        That of a bare module is the cross-entropy of classes, and the mean squared error of values.
        """
        if self.reading.kind == "binary":
            outputs = outputs.reshape(len(outputs))
        if self.criterion is not None:
            found = self.criterion(outputs, target)
        elif not target.is_floating_point():
            found = nn.functional.cross_entropy(outputs, target, reduction="none")
        else:
            found = (outputs.reshape(len(outputs), -1) - target.reshape(len(target), -1).to(outputs)).square()
        return found.reshape(len(outputs), -1).mean(1)


class StoredNetwork(NamedTuple):
    """A found network, changed or not, as values: what a fitted estimator keeps, and recalls by its type."""

    architecture: Architecture
    reading: Reading
    weights: dict[str, np.ndarray]


def find_network(model: Any) -> Found:
    """Return the network in a fitted model, which is not changed.

    Raises
    ------
    TypeError
        If there is none; the error names what is taken.
    """
    if isinstance(model, FrozenEstimator):
        return find_network(model.estimator)
    if isinstance(model, Pipeline):
        last = None if len(model) == 0 or model[-1] in (None, "passthrough") else model[-1]
        found = find_network(last)
        steps = model[:-1]
        if found.reading.steps is not None:  # a pipeline within
            steps = Pipeline([("before", steps), ("after", found.reading.steps)]) if len(steps) else found.reading.steps
        return found._replace(reading=found.reading._replace(steps=steps))
    if isinstance(model, NeuralNet) and getattr(model, "initialized_", False):
        return _of_skorch(model)
    if isinstance(model, nn.Module):
        copied = _copied(model)
        return Found(copied, _as_it_is(copied), Reading("outputs"))
    if "skeleton" in getattr(model, "_fitted", {}):  # what a compressor or an adapter made: its estimator, or a module
        return find_network(model.network() if model.estimator_ is None else model.estimator_)
    if not isinstance(model, type) and callable(getattr(model, "network", None)):
        return _of_ours(model)
    raise TypeError(f"A {type(model).__name__} holds no network. Pass {_TAKEN}.")


def stored_network(found: Found, edits: Iterable[Edit] = ()) -> StoredNetwork:
    """Return as values the network whose module may have been changed in place; `edits` are layers that were replaced.

    The weights are those that the module has now, in its precision.
    """
    every = [*found.architecture.edits, *edits]
    architecture = found.architecture._replace(edits=current_edits(found.module, every), expansion=None)
    weights = found.module.state_dict()
    return StoredNetwork(architecture, found.reading, {name: array_of(value) for name, value in weights.items()})


def restored_network(stored: StoredNetwork, device: torch.device | str = "cpu") -> Found:
    """Return a stored network with a new module, in eval mode."""
    module = restore(stored.architecture, stored.weights, device)
    return Found(module, stored.architecture, stored.reading)


def _as_it_is(module):
    """Return the architecture of a module that others have built."""
    return Architecture(without_weights(module), {}, ())


def _copied(module):
    return copied_module(module).cpu().eval()


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the precision of the first floating parameter."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def rows_as_tensor(X: Any) -> torch.Tensor:
    """Return rows as a tensor, in their precision; columns of several types become float64.

    Raises
    ------
    TypeError
        If X is sparse, or has columns that are not numbers.
    """
    if isinstance(X, torch.Tensor):
        return X.detach()
    if issparse(X):
        raise TypeError("The network takes no sparse matrix. Pass X.toarray().")
    array = np.array(X)
    return torch.from_numpy(array.astype(np.float64) if array.dtype == object else array)


def array_of(value: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array with memory of its own; numpy has no bfloat16."""
    value = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
    return value.cpu().numpy().copy()


def _of_skorch(net):
    criterion = copy.deepcopy(net.criterion_)
    if isinstance(criterion, nn.Module):
        criterion = criterion.cpu()
    probabilities = isinstance(criterion, nn.NLLLoss)
    if hasattr(criterion, "reduction"):
        criterion.reduction = "none"
    classes = getattr(net, "classes_", None)
    if isinstance(net, NeuralNetBinaryClassifier):
        reading = Reading("binary", classes=np.asarray(classes), threshold=net.threshold)
    elif classes is not None:
        reading = Reading("probabilities" if probabilities else "codes", classes=np.asarray(classes))
    else:
        reading = Reading("outputs")
    in_logarithms = probabilities and classes is not None  # skorch takes logarithms in its classifiers alone
    loss = partial(_criterion_by_row, criterion, in_logarithms)
    module = _copied(net.module_)
    return Found(module, _as_it_is(module), reading, loss)


def _criterion_by_row(criterion, in_logarithms, outputs, target):
    """Return what a criterion of torch gives for each entry; logarithms of probabilities as skorch takes them."""
    if not hasattr(criterion, "reduction"):
        name = type(criterion).__name__
        raise TypeError(f"criterion={name} has no reduction, so that there is no loss of a row. Use one of torch's.")
    return criterion((outputs + torch.finfo(outputs.dtype).eps).log() if in_logarithms else outputs, target)


def _of_ours(model):
    ws = open_workspace(np.empty((0, 0)), device="cpu").exact()
    if "reading" in vars(model).get("_fitted", {}):
        return restored_network(recall(model, StoredNetwork, ws))
    module = model.network()
    if "optimizer" not in vars(model).get("_fitted", {}):  # it predicts no targets: its module takes rows as they are
        return find_network(module)
    if not hasattr(model, "mean_"):
        raise TypeError(
            f"A {type(model).__name__} predicts by more than the outputs of its network. Pass its network(), a torch "
            "module, where one is taken."
        )
    fitted = recall(model, NetworkModel, ws).architecture
    architecture = fitted._replace(edits=current_edits(module, fitted.edits))
    return Found(module, architecture, reading_of(model))


def reading_of(model: Any) -> Reading:
    """Return what the rows and outputs of the network of a fitted classifier or regressor of ours mean."""
    mean, scale = (np.asarray(on_host(part)) for part in (model.mean_, model.scale_))
    classes = getattr(model, "classes_", None)
    if classes is not None:
        return Reading("classes", None, mean, scale, np.asarray(on_host(classes)))
    return Reading("values", None, mean, scale, y_mean=on_host(model.y_mean_), y_scale=on_host(model.y_scale_))


def whole_network(module: nn.Module, reading: Reading) -> nn.Module:
    """Return a module that takes rows in their own units and gives values in theirs; a classifier's gives logits.

    Steps of a pipeline are not in it.
    """
    units = (reading.y_mean, reading.y_scale) if reading.kind == "values" else None
    if reading.mean is None and units is None:
        return module
    rows = None if reading.mean is None else (reading.mean, reading.scale)
    return InOwnUnits(module, dtype_of(module), rows, units).eval()
