"""Networks whose weights are updated by few numbers: the module that is trained, its head, its loss, its numbers.

The weights of the network are constants. Where it is called, an update makes of the weight of a layer another one, and
a few parameters, such as those of the head, take the places of the network's own.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.base import is_classifier
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from .._core.fitted import update_attributes
from .._core.validation import on_host
from .._nets.calls import Calls
from .._nets.goals import codes_of, labels_of_codes
from .._nets.holding import Held, restored_held, stored_held
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

    def codes(self, y: np.ndarray) -> np.ndarray | None:
        """Return the places of labels; None where they are not the head's own."""
        labels = self.labels if self.classes is None else self.classes
        return None if labels is None else codes_of(y, labels)


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
        If it has to stay and y has a label that is no class of the network, if there is no such layer, or one whose
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
            f"head={kind!r} needs a linear layer that can be trained in full, and the network has none. Pass labels "
            "that the network knows and set head='keep'."
        )
    if kind == "keep" or name is None:
        return Head(None, labels=labels_of_codes(held, calls))
    if not unknown and kind != "reset":
        _check_not_shared(held.module, name, kind)
        return Head(name, labels=labels_of_codes(held, calls))
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


def give_head(module: nn.Module, head: Head, generator: torch.Generator | None) -> None:
    """Put a new layer in the place of the last linear one, where the head says so."""
    if head.name is not None and head.n_out is not None:
        former: Any = module.get_submodule(head.name)
        layer = linear(former.in_features, head.n_out, generator, bias=former.bias is not None)
        module.set_submodule(head.name, layer.to(former.weight))


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
