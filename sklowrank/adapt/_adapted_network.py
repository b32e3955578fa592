"""Networks whose weights are updated by few numbers: the module that is trained, its head, its loss, its numbers.

The weights of the network are constants. Where it is called, an update makes of the weight of a layer another one, and
a few parameters, such as those of the head, take the places of the network's own.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.base import is_classifier, is_regressor
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from .._core.fitted import update_attributes
from .._core.validation import on_host
from .._nets.found import Found, dtype_of, find_network
from .._nets.holding import Calls, Held, is_ours, outputs_of, restored_held, stored_held
from .._nets.layers import linear
from .._nets.recording import reached

HeadKind = Literal["auto", "keep", "train", "reset"]


class WeightUpdate(nn.Module):
    """An update of one weight: called with the weight, it returns another one. Its parameters are what is trained."""

    def numbers(self) -> dict[str, torch.Tensor]:
        """Return what is stored, by name: of these an update of the same weight can be made again."""
        return {name: value.detach() for name, value in self.named_parameters()}


class Head(NamedTuple):
    """What becomes of the last linear layer."""

    name: str | None  # None: it is a layer like the others
    n_out: int | None = None  # of the layer that takes its place; None: it stays
    classes: np.ndarray | None = None  # of y, where another layer has taken its place
    labels: np.ndarray | None = None  # of the codes that a skorch net predicts; None: its predictions are labels


class Goal(NamedTuple):
    """Targets and loss of a training."""

    target: torch.Tensor  # (n, ...), on the CPU
    loss: Any  # outputs and targets to a number


# The module that is trained


class AdaptedNetwork(nn.Module):
    """A frozen network with updates of its weights; called with indices of rows, it returns their outputs.

    Its parameters and buffers are what is trained, and nothing else: those of the updates, and those that take the
    places of the network's own, which are `replaced`. The network is no part of it for torch.
    """

    def __init__(
        self,
        network: nn.Module,
        updates: Mapping[str, WeightUpdate],
        replaced: Sequence[str],
        calls: Calls,
        *,
        train_norm: bool = False,
    ):
        super().__init__()
        network.requires_grad_(False)
        self.apart = network, calls  # in a tuple torch does not see the network
        self.layer_names, self.updates = tuple(updates), nn.ModuleList(updates.values())
        parameters = dict(network.named_parameters())
        self.parameter_names = [name for name in replaced if name in parameters]
        self.own = nn.ParameterList(nn.Parameter(parameters[name].detach().clone()) for name in self.parameter_names)
        self.buffer_names = [name for name in replaced if name not in parameters]
        for i, name in enumerate(self.buffer_names):
            self.register_buffer(f"buffer{i}", network.get_buffer(name).clone())
        self.train_norm = train_norm

    def forward(self, rows):
        network, calls = self.apart
        args, kwargs = calls.taken(rows, rows.device).arguments[0]
        return functional_call(network, self.weights(), args, kwargs)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights that take the places of the network's, by their names in it."""
        layers = [self.apart[0].get_submodule(name) for name in self.layer_names]
        updated = {
            qualified(name, "weight"): updated_weight(layer, update)
            for name, layer, update in zip(self.layer_names, layers, self.updates)
        }
        return updated | self._replaced()

    def numbers(self) -> dict[str, torch.Tensor]:
        """Return what is stored, by name."""
        of_updates = {
            qualified(layer, name): value
            for layer, update in zip(self.layer_names, self.updates)
            for name, value in update.numbers().items()  # type: ignore[operator]
        }
        return of_updates | self._replaced()

    def train(self, mode=True):
        super().train(mode)
        self.apart[0].train(mode)
        for _, norm in () if self.train_norm else norms(self.apart[0]):
            norm.eval()
        return self

    def _apply(self, fn, recurse=True):
        network, calls = self.apart
        self.apart = network._apply(fn), calls
        return super()._apply(fn, recurse)

    def _replaced(self):
        buffers = {name: getattr(self, f"buffer{i}") for i, name in enumerate(self.buffer_names)}
        return dict(zip(self.parameter_names, self.own)) | buffers


def qualified(layer: str, name: str) -> str:
    """Return the name of a part of a layer in the network, which may be the layer itself."""
    return f"{layer}.{name}" if layer else name


def updated_weight(layer: Any, update: nn.Module) -> torch.Tensor:
    """Return the updated weight of a layer; the row of an embedding that stands for padding stays."""
    weight = update(layer.weight)
    padding = getattr(layer, "padding_idx", None)
    if padding is None:
        return weight
    rows = torch.arange(len(weight), device=weight.device, dtype=torch.int64)
    return torch.where((rows == padding)[:, None], layer.weight, weight)


def norms(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers that keep statistics of rows, with their names."""
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, _NormBase))


def names_of_norms(module: nn.Module) -> list[str]:
    """Return the names of the parameters and buffers of these layers."""
    return [qualified(name, part) for name, norm in norms(module) for part in norm.state_dict()]


# The head


def find_head(held: Held, calls: Calls, y: np.ndarray, kind: HeadKind) -> Head:
    """Return what becomes of the last linear layer that a pass reaches.

    Raises
    ------
    ValueError
        If it has to stay and y has a label that the network does not know, if there is no such layer, or one whose
        weight others share.
    """
    classes = np.unique(y) if is_classifier(held.estimator) else None
    known = None if classes is None else np.asarray(on_host(held.estimator.classes_))
    unknown = [] if classes is None else [label for label in classes.tolist() if label not in known.tolist()]
    if unknown and kind in ("keep", "train"):
        raise ValueError(
            f"y has the label {unknown[0]!r}, which the network does not know: its classes are {known.tolist()}. "
            f"head={kind!r} keeps them; set head='reset' or 'auto'."
        )
    names = [name for name, layer in held.module.named_modules() if type(layer) is nn.Linear]
    name = next(iter(reached(held.module, calls, names)[::-1]), None) if names else None
    if name is None and (unknown or kind in ("train", "reset")):
        raise ValueError(
            f"head={kind!r} needs a linear layer that can be trained in full, and the network has none. Pass labels that "
            "the network knows and set head='keep'."
        )
    if kind == "keep" or name is None:
        return Head(None, labels=_labels_of_codes(held, calls))
    if not unknown and kind != "reset":
        _check_not_shared(held.module, name, kind)
        return Head(name, labels=_labels_of_codes(held, calls))
    if isinstance(held.owner, NeuralNetBinaryClassifier):
        if len(classes) > 2:
            raise ValueError(
                f"head={kind!r}: a {type(held.owner).__name__} has two classes, and y has {len(classes)}. Adapt a net "
                "with an output for each class."
            )
        return Head(name, 1, classes, classes)
    labels = classes if isinstance(held.owner, NeuralNetClassifier) else None
    return Head(name, len(classes) if classes is not None else _width(y), classes, labels)


def _width(y):
    return 1 if y.ndim == 1 else y.shape[1]


def _check_not_shared(module, name, kind):
    weight = module.get_submodule(name).weight
    if sum(p is weight for _, p in module.named_parameters(remove_duplicate=False)) > 1:
        raise ValueError(f"head={kind!r}: the weight of the last linear layer {name} is shared. Set head='keep'.")


def _labels_of_codes(held, calls):
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
    return outputs_of(module, Calls([next(calls.batches(2))]), 2)


def places(y: Any, labels: np.ndarray) -> np.ndarray:
    """Return the places of targets (n,) among labels in any order; -1 for others."""
    at = {label: place for place, label in enumerate(labels.tolist())}
    return np.array([at.get(label, -1) for label in np.asarray(on_host(y)).reshape(-1).tolist()])


def give_head(module: nn.Module, head: Head, generator: torch.Generator | None) -> None:
    """Put a new layer in the place of the last linear one, where the head says so."""
    if head.name is not None and head.n_out is not None:
        former: Any = module.get_submodule(head.name)
        layer = linear(former.in_features, head.n_out, generator, bias=former.bias is not None)
        module.set_submodule(head.name, layer.to(former.weight))


# Targets and loss


def checked_targets(held: Held, y: Any, n_rows: int, *, frozen: bool) -> np.ndarray:
    """Return the targets as an array: one label for each row of a classifier, else values.

    Raises
    ------
    ValueError
        If there are not as many as rows, only one class, or values that are not finite.
    """
    y = np.asarray(on_host(y))
    if len(y) != n_rows:
        raise ValueError(f"X has {n_rows} rows and y has {len(y)}. Pass a target for each row.")
    if not is_classifier(held.estimator):
        if y.dtype.kind not in "fiub":
            try:
                y = y.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"A regressor is adapted to numbers, and y has the dtype {y.dtype}.") from error
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise ValueError("y contains NaN or infinity. Leave these rows out.")
        return y
    check_classification_targets(y)
    y = column_or_1d(y, warn=frozen)  # what is fitted first has warned already
    if len(np.unique(y)) < 2:
        raise ValueError("y has one class: a classifier can be adapted to two or more.")
    return y


def goal_of(held: Held, head: Head, y: np.ndarray) -> Goal:
    """Return targets and loss: those of a skorch net, the cross-entropy of other classifiers, our own regressors' loss.

    Raises
    ------
    TypeError
        If the loss is not known.
    """
    owner = held.owner
    dtype = dtype_of(held.module)
    codes = None if head.classes is None else torch.from_numpy(np.searchsorted(head.classes, y).astype(np.int64))
    if isinstance(owner, NeuralNet):
        if codes is None:
            codes = torch.from_numpy(places(y, head.labels) if head.labels is not None else np.array(y))
        classes = isinstance(owner, NeuralNetClassifier)
        if isinstance(owner, NeuralNetRegressor) and codes.ndim == 1:
            codes = codes[:, None]
        as_values = codes.is_floating_point() or isinstance(owner, NeuralNetBinaryClassifier)
        target = codes.long() if classes else codes.to(dtype) if as_values else codes
        return Goal(target, _SkorchLoss(owner))
    if is_ours(owner):
        found = find_network(owner)
        _check_loss(found)
        return Goal(found.encode(y) if codes is None else codes, _MeanLoss(found))
    if is_regressor(owner) or not is_classifier(held.estimator):
        raise TypeError(
            f"The loss of a {type(owner).__name__} is not known, nor in which units its network sees y. Pass a skorch "
            "net, a network of this package, or a classifier."
        )
    return Goal(
        codes if codes is not None else torch.from_numpy(places(y, np.asarray(on_host(owner.classes_)))),
        nn.functional.cross_entropy,
    )


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
        raise TypeError("The network gives probabilities, and the loss that it was trained with is not known.")


# What is stored


def fingerprint(module: nn.Module) -> str:
    """Return a digest of the parameters and buffers of a module, which tells whether they are the same."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def plain_labels(classes: np.ndarray) -> np.ndarray:
    """Return labels as an array that is stored without pickling, where all are strings."""
    texts = classes.dtype.kind == "O" and all(isinstance(label, str) for label in classes.tolist())
    return classes.astype(str) if texts else classes


def numbers_of(weights: Mapping[str, np.ndarray], layer: str) -> dict[str, torch.Tensor]:
    """Return the numbers of the update of one layer."""
    start = qualified(layer, "")
    return {name.removeprefix(start): torch.from_numpy(v) for name, v in weights.items() if name.startswith(start)}


def changed(held: Held, head: Head, updates: Mapping[str, WeightUpdate], replaced: Mapping[str, np.ndarray]) -> Held:
    """Return the held network with the updates added into its weights, and with parameters that replace its own."""
    give_head(held.module, head, None)
    with torch.no_grad():
        for name, update in updates.items():
            layer: Any = held.module.get_submodule(name)
            layer.weight.copy_(updated_weight(layer, update))
        own = dict(held.module.named_parameters()) | dict(held.module.named_buffers())
        for name, value in replaced.items():
            own[name].copy_(torch.from_numpy(value))
    if head.classes is not None:
        _give_classes(held.owner, head.classes)
    return restored_held(stored_held(held))


def _give_classes(owner, classes):
    """Give a classifier other classes."""
    if isinstance(owner, NeuralNetBinaryClassifier):
        return  # these are 0 and 1, whatever their labels
    if isinstance(owner, NeuralNet):
        owner.classes, owner.classes_inferred_ = None, classes
        return
    found = {"classes_": classes}
    fitted = vars(owner).get("_fitted", {})
    if "reading" in fitted:
        found["_fitted"] = {**fitted, "reading": {**fitted["reading"], "classes": classes}}
    update_attributes(owner, found)
