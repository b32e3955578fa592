"""What adapters have in common: their parameters, the walk through a fit, and what a fitted one can do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from sklearn.base import MetaEstimatorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.compat import HasMethods, Interval, StrOptions
from .._core.fitted import fitted_attributes, keep, options, public_attributes, recall
from .._core.iterate import drive
from .._core.workspace import Workspace, open_workspace
from .._nets.estimating import held_out_rows
from .._nets.found import array_of
from .._nets.holding import (
    Calls,
    Held,
    StoredHeld,
    hold,
    is_ours,
    network_calls,
    outputs_of,
    restored_held,
    stored_held,
)
from .._nets.parameters import NETWORK_CONSTRAINTS
from .._nets.randomness import Randomness, fixed_randomness
from .._nets.recording import LayerReport, select_layers
from .._nets.training import Batches, Training, train, weights_of
from .._nets.wrapping import HeldNetwork, checked_rows
from ._adapted_network import (
    AdaptedNetwork,
    Goal,
    Head,
    WeightUpdate,
    changed,
    checked_targets,
    find_head,
    fingerprint,
    give_head,
    goal_of,
    names_of_norms,
    numbers_of,
    qualified,
)

ADAPTER_CONSTRAINTS = {
    "estimator": [HasMethods(["fit", "predict"]), nn.Module],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "learning_rate": NETWORK_CONSTRAINTS["learning_rate"],
    "batch_size": NETWORK_CONSTRAINTS["batch_size"],
    "weight_decay": NETWORK_CONSTRAINTS["weight_decay"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "n_iter_no_change": NETWORK_CONSTRAINTS["n_iter_no_change"],
    "head": [StrOptions({"auto", "keep", "train", "reset"})],
    "modules": [str, list, tuple, None],
    "exclude": [str, list, tuple, None],
    "module_getter": [callable, None],
    "device": NETWORK_CONSTRAINTS["device"],
    "random_state": NETWORK_CONSTRAINTS["random_state"],
    "verbose": NETWORK_CONSTRAINTS["verbose"],
}

_TEXTS = {
    "estimator": """
    estimator : estimator with a torch network, mostly in a FrozenEstimator
        A skorch net, a network of this package, any classifier that shows its torch module as `module_`, or a
        Pipeline with one of these last. What is in a :class:`~sklearn.frozen.FrozenEstimator` is adapted as it is; of
        anything else a clone is fitted to the same rows first. It is never changed.
""",
    "training": """
    max_iter : int, default=60
        Maximum number of iterations. An iteration is an epoch; 0 keeps the answers of the network.
    learning_rate : float, default=1e-2
        Step size of the optimizer. It is AdamW.
    batch_size : int, default=64
        Number of rows per training step; it changes the result.
    weight_decay : float, default=0.0
        Strength of the weight decay of the optimizer. It acts on what is trained alone.
    validation_fraction : float, default=0.0
        Share of the training rows that is held out. The best epoch by their loss is kept. With 0 all rows are trained
        on, for `max_iter` epochs.
    n_iter_no_change : int, default=10
        Number of epochs without an improvement of the loss of the held-out rows after which training stops. Not
        used where `validation_fraction` is 0.
    head : {"auto", "keep", "train", "reset"}, default=HEAD
        What becomes of the last linear layer. "keep": it is a layer like the others and gets an update. "train": it
        is trained in full. "reset": a new layer for the labels of y takes its place. "auto": "train" where the
        network knows all labels of y, else "reset".
    modules : str, list of str or None, default=None
        Glob patterns of the names of the layers that get an update; None: all.
    exclude : str, list of str or None, default=None
        Glob patterns of the names of layers that get none.
    module_getter : callable or None, default=None
        Returns the torch module of a fitted estimator, where it is not found otherwise.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It decides the start, batches and
        dropout.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration. An iteration is an epoch.
""",
    "attributes": """
    weights_ : dict of arrays
        The adapter: numbers of the updates, and all else that was trained, by their names.
    estimator_ : estimator
        The inner estimator with the adapted network, new at each access.
    n_adapter_parameters_ : int
        Number of parameters of the updates.
    n_trainable_parameters_ : int
        Number of parameters that were trained: with those of the head, of biases and of norms.
    layer_report_ : list of dicts
        `name`, `type`, `shape`, `ranks` and `n_parameters` of each layer with an update; it has ``to_frame()``.
    loss_curve_ : list of float
        Loss of each epoch; of the held-out rows, where there are some.
    n_iter_ : int
        Number of epochs.
    classes_ : array of shape (n_classes,)
        Class labels of a classifier: those of the network, or those of y where the head was reset.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.
""",
}


def adapter_texts(*, head: str):
    """Fill the lines ``<estimator>``, ``<training>`` and ``<attributes>`` of a class's docstring."""

    def fill(cls):
        for name, text in _TEXTS.items():
            cls.__doc__ = (cls.__doc__ or "").replace(f"<{name}>", text.strip().replace("HEAD", f'"{head}"'))
        return cls

    return fill


class AdapterModel(NamedTuple):
    """A fitted adapter as values; its numbers are the attribute `weights_`."""

    base: StoredHeld | None  # the network; None: it is in the FrozenEstimator
    base_fingerprint: str
    layers: list[str]  # that have an update
    replaced: list[str]  # parameters of the network in whose places others are
    head: Head
    recipe: dict[str, Any]  # what else an update is made of
    weights: dict[str, np.ndarray]


class Begun(NamedTuple):
    """A fit up to the choice of the layers."""

    ws: Workspace
    randomness: Randomness
    held: Held  # the network in it is to be trained
    base: StoredHeld | None
    fingerprint: str
    calls: Calls
    head: Head
    goal: Goal
    rows: tuple[Any, Any]  # X and y
    layers: dict[str, nn.Module]  # by name, in the order of a pass


_OFF: WeakKeyDictionary[Any, object] = WeakKeyDictionary()  # adapters that are disabled


class Adapter(MetaEstimatorMixin, HeldNetwork):
    """The methods of a fitted adapter; a subclass has `fit` and `_update`."""

    weights_: dict[str, np.ndarray]
    n_adapter_parameters_: int
    n_trainable_parameters_: int
    layer_report_: LayerReport
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def merge(self) -> Any:
        """Return the inner estimator with the updates added into the weights of its network.

        It has the class and the architecture of what was adapted and costs no more, and nothing of the adapter is in
        it. It is a new one at each call.

        Returns
        -------
        estimator : estimator
        """
        check_is_fitted(self)
        return self._restored().estimator

    def get_adapter(self) -> dict[str, np.ndarray]:
        """Return a copy of all numbers that were trained, by name.

        ``numpy.savez(file, **adapter.get_adapter())`` stores them. Where the head was reset, its labels are among
        them, as `classes`.

        Returns
        -------
        state : dict of arrays
        """
        check_is_fitted(self)
        return {name: value.copy() for name, value in self.weights_.items()}

    def set_adapter(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take the numbers of another adapter of the same network in place of the own ones.

        Parameters
        ----------
        state : dict of arrays
            What `get_adapter` of an adapter with the same parameters has returned.

        Returns
        -------
        self : estimator
        """
        check_is_fitted(self)
        model = _model(self)
        weights = _checked_state(state, model.weights)
        if "classes" in weights:
            classes = weights["classes"]
            labels = None if model.head.labels is None else classes
            model = model._replace(head=model.head._replace(classes=classes, labels=labels))
        ws = open_workspace(np.empty((0, 0)), device="cpu")
        return keep(self, ws, model, **{**public_attributes(self), "weights_": weights})

    @contextmanager
    def disable(self) -> Iterator[Self]:
        """Answer like the network without the adapter within a `with` block.

        Returns
        -------
        context : context manager
        """
        check_is_fitted(self)
        former = _OFF.get(self)
        _OFF[self] = object()
        try:
            yield self
        finally:
            _OFF.pop(self)
            if former is not None:
                _OFF[self] = former

    @property
    def classes_(self) -> np.ndarray:
        """Class labels: those of the network, or those of y where the head was reset."""
        self._check_fitted("classes_")
        classes = None if self in _OFF else _model(self).head.classes
        return super().classes_ if classes is None else classes

    def _update(self, layer: Any, numbers: dict[str, torch.Tensor], recipe: dict[str, Any]) -> WeightUpdate:
        """Return the update of a layer that has these numbers."""
        raise NotImplementedError

    def _restored(self, device="cpu"):
        model = _model(self)
        held = _base(self, model)
        if self not in _OFF:
            weights = {name: value for name, value in model.weights.items() if name not in model.replaced}
            updates = {
                name: self._update(held.module.get_submodule(name), numbers_of(weights, name), model.recipe)
                for name in model.layers
            }
            held = changed(held, model.head, updates, {name: model.weights[name] for name in model.replaced})
        held.module.to(device)
        return held

    def _answering(self):
        return _OFF.get(self, vars(self)["_fitted"])

    def _ask(self, method, X, *args, **params):
        labels = None if self in _OFF or not hasattr(self, "weights_") else _model(self).head.labels
        if labels is None:
            return super()._ask(method, X, *args, **params)
        if method == "score":
            args = (_codes(args[0], labels),)
        answer = super()._ask(method, X, *args, **params)
        return labels[answer] if method == "predict" else answer

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


# The walk through a fit


def begin(adapter: Any, X: Any, y: Any, *, types: tuple[str, ...], grouped: bool) -> Begun:
    """Return the network of a fit, with targets, loss and the layers that get an update.

    Raises
    ------
    TypeError
        If there is no network, or none of which the loss is known.
    ValueError
        If rows, targets or parameters do not suit the network.
    """
    if isinstance(adapter.estimator, nn.Module):
        raise TypeError("A torch module alone has no loss. Pass a skorch net of it, such as NeuralNetClassifier.")
    X = checked_rows(adapter, X, reset=True)
    if y is None:
        raise ValueError(f"{type(adapter).__name__} requires y to be passed, but the target y is None.")
    ws = open_workspace(np.empty((0, 0)), device=adapter.device, random_state=adapter.random_state)
    randomness = Randomness(ws.generator, ws.device, lends=True)
    held = hold(adapter.estimator, X, y, randomness, adapter.module_getter)
    frozen = isinstance(adapter.estimator, FrozenEstimator)
    calls = network_calls(held, X).joined()
    y = checked_targets(held, y, calls.n_rows, frozen=frozen)
    head = find_head(held, calls, y, adapter.head)
    begun = Begun(
        ws,
        randomness,
        held,
        None if frozen else _stored_base(held),
        fingerprint(held.module),
        calls,
        head,
        goal_of(held, head, y),
        (X, y),
        {},
    )
    names = _selected(adapter, begun, types, grouped)
    give_head(held.module, head, randomness.layers)
    _check_outputs(begun)
    return begun._replace(layers={name: held.module.get_submodule(name) for name in names})


def _selected(adapter, begun, types, grouped):
    """Return the names of the layers that get an update."""
    types = (*types, "transposed") if "linear" in types else types
    exclude = [adapter.exclude] if isinstance(adapter.exclude, str) else list(adapter.exclude or ())
    exclude += [begun.head.name] * (begun.head.name is not None)
    choice = {"types": types, "modules": adapter.modules, "exclude": exclude, "grouped": grouped}
    try:
        with begun.randomness.scope():
            return select_layers(begun.held.module, begun.calls, **choice).names
    except ValueError as error:
        if begun.head.name is None:
            raise
        why = f"The last linear layer {begun.head.name!r} is trained in full; with head='keep' it is one of these."
        raise ValueError(f"{error} {why}") from error


def _check_outputs(begun):
    """Raise a ValueError where the new head is not what gives the outputs."""
    n_out = begun.head.n_out
    if n_out is None:
        return
    outputs = outputs_of(begun.held.module, Calls([next(begun.calls.batches(2))]), 2)
    if outputs.shape[-1] != n_out:
        raise ValueError(
            f"head='reset': the last linear layer {begun.head.name!r} does not give the outputs of the network. Set "
            "head='keep', and pass labels that the network knows."
        )


def adapt(
    adapter: Any,
    begun: Begun,
    updates: Mapping[str, WeightUpdate],
    *,
    ranks: Mapping[str, tuple[int, ...]],
    recipe: dict[str, Any],
    biases: bool = False,
    train_norm: bool = False,
) -> Any:
    """Train the updates of the layers, and what else is to be trained, and store them in the adapter."""
    head = begun.head.name
    replaced = [qualified(head, name) for name, _ in _parameters_of(begun, head)]
    replaced += [qualified(name, "bias") for name, layer in begun.layers.items() if biases and layer.bias is not None]
    replaced += names_of_norms(begun.held.module) if train_norm else []
    calls = begun.calls.taken(torch.arange(begun.calls.n_rows, dtype=torch.int64, device="cpu"), begun.ws.device)
    network = AdaptedNetwork(begun.held.module, updates, replaced, calls, train_norm=train_norm)
    model = AdapterModel(begun.base, begun.fingerprint, list(updates), replaced, begun.head, recipe, {})
    report = LayerReport(
        {
            "name": name,
            "type": type(layer).__name__,
            "shape": tuple(layer.weight.shape),
            "ranks": tuple(ranks[name]),
            "n_parameters": _count(updates[name]),
        }
        for name, layer in begun.layers.items()
    )
    sizes = {
        "layer_report_": report,
        "n_adapter_parameters_": sum(row["n_parameters"] for row in report),
        "n_trainable_parameters_": _count(network),
    }

    def described():
        weights = {name: array_of(value) for name, value in network.numbers().items()}
        if begun.head.classes is not None:
            weights["classes"] = begun.head.classes
        return model._replace(weights=weights), {"weights_": weights, **sizes}

    n_iter, loss_curve = _trained(adapter, begun, network, described)
    model, attributes = described()
    return keep(adapter, begun.ws, model, n_iter_=n_iter, loss_curve_=loss_curve, **attributes)


def _parameters_of(begun, head):
    return () if head is None else begun.held.module.get_submodule(head).named_parameters()


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _trained(adapter, begun, network, described):
    """Train the network with its updates; return the number of epochs and their losses."""
    if adapter.max_iter == 0:
        return 0, []
    ws, target = begun.ws, begun.goal.target
    training = options(adapter, Training, net_params={"optimizer": torch.optim.AdamW, "optimizer__fused": True})
    held_out = None
    if adapter.validation_fraction:
        held_out = held_out_rows(target, adapter.validation_fraction, ws.generator)
    target = target.to(ws.device)
    batches = Batches(lambda at: (at, target[at.to(ws.device)]), len(target), held_out, whole=True)
    steps = train(
        network,
        batches,
        begun.goal.loss,
        training,
        randomness=begun.randomness,
        device=ws.device,
        keep_best=held_out is not None,
    )

    def attributes(snapshot):
        now = weights_of(network)
        network.load_state_dict(snapshot.weights)
        model, found = described()
        network.load_state_dict(now)
        return fitted_attributes(ws, model, **found)

    X, y = begun.rows
    run = drive(adapter, steps, attributes=attributes, X=X, y=y, max_iter=training.max_iter, tol=0.0)
    return run.n_iter, run.loss_curve


# What is stored


def _stored_base(held):
    """Return a network as values; an estimator of ours has them already."""
    return StoredHeld(held.estimator, None, {}) if is_ours(held.owner) else stored_held(held)


def _model(adapter) -> AdapterModel:
    return recall(adapter, AdapterModel, open_workspace(np.empty((0, 0)), device="cpu"))


def _base(adapter, model):
    """Return the network that was adapted, new at each call."""
    if model.base is not None:
        return restored_held(model.base)
    held = hold(adapter.estimator, None, None, fixed_randomness(), adapter.module_getter)
    if fingerprint(held.module) != model.base_fingerprint:
        raise ValueError(
            "The network in the FrozenEstimator is not the one that was adapted: it has been changed or exchanged "
            "since the fit. Fit again, or give the adapter the network that it was fitted with."
        )
    return held


def _codes(y, labels):
    """Return the places of targets among labels; -1 for others."""
    places = {label: place for place, label in enumerate(labels.tolist())}
    return np.array([places.get(label, -1) for label in np.asarray(y).tolist()])


def _checked_state(state, own):
    """Return another adapter's numbers in the types of the own ones.

    Raises
    ------
    ValueError
        If their names or shapes are others.
    """
    found = {name: np.asarray(value) for name, value in state.items()}
    missing, more = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    if missing or more:
        named = ", ".join([*(f"no {name}" for name in missing[:3]), *(f"an unknown {name}" for name in more[:3])])
        raise ValueError(f"The state is not of an adapter with these parameters: it has {named}.")
    for name, value in own.items():
        if found[name].shape != value.shape:
            raise ValueError(
                f"{name} of the state has the shape {found[name].shape}, and that of the fit {value.shape}."
            )
    return {name: found[name].copy() if name == "classes" else found[name].astype(v.dtype) for name, v in own.items()}
