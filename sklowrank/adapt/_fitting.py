"""The walk through the fit of an adapter."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetRegressor
from torch import nn

from .._core.fitted import fitted_attributes, keep, options
from .._core.iterate import drive
from .._core.workspace import Workspace, open_workspace
from .._nets.batches import Batches
from .._nets.calls import Calls
from .._nets.estimating import held_out_rows
from .._nets.found import array_of
from .._nets.goals import Goal, checked_targets, first_outputs, goal_of
from .._nets.holding import Held, StoredHeld, hold, is_ours, network_calls, stored_held
from .._nets.randomness import Randomness
from .._nets.recording import LayerReport, select_layers
from .._nets.training import Training, train, weights_of
from .._nets.wrapping import checked_rows
from ._adapted_network import (
    AdaptedNetwork,
    Head,
    WeightUpdate,
    find_head,
    fingerprint,
    give_head,
    names_of_norms,
    plain_labels,
    qualified,
)
from ._adapting import AdapterModel

_OF_PAIRS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)  # of outputs and targets of one shape


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


def begin(adapter: Any, X: Any, y: Any, *, types: tuple[str, ...]) -> Begun:
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
    randomness = Randomness(ws.generator, ws.device, seeds_global=True)
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
        goal_of(held, y, head.codes(y)),
        (X, y),
        {},
    )
    names = _selected(adapter, begun, types)
    give_head(held.module, head, randomness.layers)
    _check_outputs(begun)
    _check_batches(adapter, begun)
    return begun._replace(layers={name: held.module.get_submodule(name) for name in names})


def _selected(adapter, begun, types):
    """Return the names of the layers that get an update."""
    types = (*types, "transposed") if "linear" in types else types
    exclude = [adapter.exclude] if isinstance(adapter.exclude, str) else list(adapter.exclude or ())
    exclude += [begun.head.name] * (begun.head.name is not None)
    choice = {"types": types, "modules": adapter.modules, "exclude": exclude, "grouped": True}
    try:
        with begun.randomness.scope():
            return select_layers(begun.held.module, begun.calls, **choice).names
    except ValueError as error:
        if begun.head.name is None:
            raise
        why = f"The last linear layer {begun.head.name!r} is trained in full; with head='keep' it is one of these."
        raise ValueError(f"{error} {why}") from error


def _check_outputs(begun):
    """Raise a ValueError where a new head is not what gives the outputs, or these do not suit targets or criterion."""
    n_out = begun.head.n_out
    if n_out is None and not isinstance(begun.held.owner, NeuralNetRegressor):
        return
    shape = tuple(first_outputs(begun.held.module, begun.calls).shape[1:])
    if n_out is not None and shape[-1:] != (n_out,):
        raise ValueError(
            f"head='reset': the last linear layer {begun.head.name!r} does not give the outputs of the network. Set "
            "head='keep', and pass labels that the network knows."
        )
    _check_criterion(begun, shape)


def _check_criterion(begun, shape):
    """Raise a ValueError where torch would broadcast targets, or a skorch net has weights of other classes."""
    owner, wanted, n_out = begun.held.owner, tuple(begun.goal.target.shape[1:]), begun.head.n_out
    criterion = getattr(owner, "criterion_", None)
    if isinstance(owner, NeuralNetRegressor) and isinstance(criterion, _OF_PAIRS) and shape != wanted:
        raise ValueError(
            f"The network has outputs of shape {shape} for each row, and y has {wanted}. Pass y as the "
            "network was fitted to it, or set head='reset' for another number of targets."
        )
    weight: Any = getattr(criterion, "weight", None)
    of_classes = begun.head.classes is not None and n_out != 1 and isinstance(weight, torch.Tensor)
    if of_classes and len(weight) != n_out:
        raise ValueError(
            f"head='reset': y has {n_out} classes, and the criterion of the net has weights of {len(weight)}. Set "
            "criterion__weight=None of the net, or weights of the new classes."
        )


def _check_batches(adapter, begun):
    """Raise a ValueError where statistics are to be taken of single rows."""
    takes_statistics = getattr(adapter, "train_norm", False) and bool(names_of_norms(begun.held.module))
    if takes_statistics and adapter.batch_size == 1:
        raise ValueError("batch_size=1: with train_norm=True a batch needs statistics. Set batch_size to 2 or more.")


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
    replaced += [
        qualified(name, "bias")
        for name, layer in begun.layers.items()
        if biases and getattr(layer, "bias", None) is not None
    ]
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
            weights["classes"] = plain_labels(begun.head.classes)
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
    n_fitted = len(target) - (0 if held_out is None else len(held_out))
    single = n_fitted > adapter.batch_size and n_fitted % adapter.batch_size == 1
    whole = not (network.train_norm and single)  # a row alone has no statistics
    batches = Batches(lambda at: (at, target[at.to(ws.device)]), len(target), held_out, whole=whole)
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
    advice = (
        f"The loss of the held-out rows was lowest within the last n_iter_no_change={training.n_iter_no_change} "
        "epochs. Raise max_iter, or set validation_fraction=0."
    )
    run = drive(adapter, steps, attributes=attributes, X=X, y=y, max_iter=training.max_iter, tol=0.0, advice=advice)
    return run.n_iter, run.loss_curve


def _stored_base(held):
    """Return a network as values; an estimator of ours has them already."""
    return StoredHeld(held.estimator, None, {}) if is_ours(held.owner) else stored_held(held)
