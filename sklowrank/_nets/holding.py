"""Fitted estimators with a network in them: a copy whose network may be changed, and how that is stored.

The network is found, rows reach it and predictions are made by the estimator itself, whatever it does with X. Its
module is stored without the numbers of its weights, which are kept as numpy arrays: see :func:`without_weights`.
"""

import copy
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping
from torch import nn

from .._core.fitted import fitted_attributes, recall, update_attributes
from .._core.validation import check_new_data
from .._core.workspace import on_cluster, open_workspace
from .architecture import answers_exactly, copied_module, with_weights, without_weights
from .calls import Calls, mapped
from .estimating import NetworkModel, sizes
from .found import StoredNetwork, array_of, dtype_of, find_network, rows_as_tensor
from .pairs import in_pairs
from .randomness import Randomness, fixed_randomness

_TAKEN = (
    "a torch.nn.Module, a skorch net, an estimator that shows its torch module as `module_` or by network(), or one of "
    "these as the last step of a Pipeline; where the module is elsewhere, say by module_getter how to get it"
)


class Held(NamedTuple):
    """A copy of a fitted estimator and the network in it, which may be changed in place."""

    estimator: Any  # None: there is only a module
    module: nn.Module  # in eval mode

    @property
    def owner(self) -> Any:
        """What has the module: the estimator, or the last step of the pipeline."""
        return last_step(self.estimator)


class Spot(NamedTuple):
    """Where a skorch net in an estimator has the module."""

    net: int  # its place among :func:`skorch_nets`
    path: str  # in its `module_`, which is the module where this is empty
    is_instance: bool  # whether its parameter `module` is its `module_`


class StoredHeld(NamedTuple):
    """A held network as values: what a fitted estimator keeps."""

    shell: Any  # the estimator without its module, what is there in its place, and its spots
    skeleton: Any  # the module without its weights
    weights: dict[str, np.ndarray]  # by their names in the module


def hold(estimator: Any, X: Any, y: Any, randomness: Randomness, module_getter: Callable | None = None) -> Held:
    """Return a copy of a fitted estimator with its network; one that is not frozen is cloned and fitted first.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module
        A module and what is in a FrozenEstimator are taken as they are; they are never changed.
    X, y : rows and targets
        What a clone of anything else is fitted to.
    randomness : Randomness
        Seeds torch's global generators for that fit.
    module_getter : callable or None
        Returns the module of a fitted estimator.

    Raises
    ------
    TypeError
        If there is no network; the error names what is taken.
    ValueError
        If a clone would be fitted to rows of a cluster.
    NotFittedError
        If a frozen estimator is not fitted.
    """
    if isinstance(estimator, nn.Module):
        return Held(None, in_pairs(copied_module(_changeable(estimator)).cpu().eval()))
    if on_cluster(X) and not isinstance(estimator, FrozenEstimator):
        raise ValueError(
            f"estimator={type(estimator).__name__} would be fitted to rows of a cluster, which it cannot read. Fit it "
            "before, and pass it in a FrozenEstimator."
        )
    with randomness.scope():
        if isinstance(estimator, FrozenEstimator):
            check_fitted(estimator.estimator)
            fitted = _copy_of(estimator.estimator)
        else:
            fitted = clone(estimator).fit(X, y)
    return held(fitted, module_getter)


def held(fitted: Any, module_getter: Callable | None = None) -> Held:
    """Return a fitted estimator, which may be changed, with its network."""
    if isinstance(fitted, FrozenEstimator):
        return held(fitted.estimator, module_getter)
    last = last_step(fitted)
    if hasattr(last, "_fitted") and hasattr(last, "_restored"):  # what a compressor or an adapter made
        inner = last._restored()
        if inner.estimator is None:
            return inner
        fitted = _with_last(fitted, inner.estimator)
        last = last_step(fitted)
    if module_getter is not None:
        module = module_getter(fitted)
    elif is_ours(last):
        module = find_network(last).module
    else:
        module = getattr(last, "module_", None)
    if not isinstance(module, nn.Module):
        where = f"module_getter returned a {type(module).__name__}" if module_getter else "none was found in it"
        raise TypeError(f"A {type(last).__name__} is not known to hold a torch network: {where}. Pass {_TAKEN}.")
    plain = _changeable(module)
    if plain is not module and getattr(last, "module_", None) is module:
        last.module_ = plain
    return Held(fitted, in_pairs(plain.eval()))


def _changeable(module: nn.Module) -> nn.Module:
    """Return the module, or that in one of torch.compile, whose layers call no hooks.

    Raises
    ------
    TypeError
        If it is a script of torch.jit, whose layers cannot be replaced.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            "A scripted or traced torch module has a fixed graph, in which no layer can be changed. Pass the module of "
            "which it was made, and script what network() gives."
        )
    return getattr(module, "_orig_mod", module) if type(module).__name__ == "OptimizedModule" else module


def skorch_nets(estimator: Any) -> list[NeuralNet]:
    """Return the skorch nets in an estimator, itself or in its attributes, in an order that copies have, too."""
    found, seen, queue = [], set(), [estimator]
    while queue:
        part = queue.pop(0)
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, NeuralNet):
            found.append(part)
            continue
        inner = vars(part).values() if isinstance(part, BaseEstimator) else part
        inner = inner.values() if isinstance(inner, dict) else inner
        queue += [value for value in inner if isinstance(value, BaseEstimator | NeuralNet | dict | list | tuple)]
    return found


def _copy_of(estimator):
    """Return a copy of a fitted estimator.

    Skorch copies an instance that is its parameter `module` and its `module_` twice: it is one again.
    """
    copied = copy.deepcopy(estimator)
    for net, new in zip(skorch_nets(estimator), skorch_nets(copied)):
        if hasattr(net, "module_") and net.module is net.module_:
            new.module = new.module_
    return copied


def is_ours(estimator: Any) -> bool:
    """Return whether an estimator stores its network as values, and builds the module when it needs it."""
    return {"architecture"} <= set(getattr(estimator, "_fitted", {}))


def last_step(estimator: Any) -> Any:
    """Return what is last in pipelines and frozen estimators, or the estimator itself."""
    while isinstance(estimator, FrozenEstimator | Pipeline):
        estimator = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator[-1]
    return estimator


def network_calls(held: Held, X: Any) -> Calls:
    """Return what the network is called with where its estimator predicts rows X.

    A module alone is called with the rows as a tensor, floating values in its own precision.
    """
    if held.estimator is None:
        rows = rows_as_tensor(X)
        return Calls([((rows.to(dtype_of(held.module)) if rows.is_floating_point() else rows,), {})])
    if is_ours(held.owner):
        return Calls([((_rows_of_ours(held, X).cpu(),), {})])
    seen: list[tuple[tuple, dict]] = []
    here = threading.get_ident()

    def see(module, args, kwargs=None):  # torch leaves out kwargs where another thread has just removed its hook
        if threading.get_ident() == here:
            seen.append(mapped(torch.clone, (args, kwargs)))

    hook = held.module.register_forward_pre_hook(see, with_kwargs=True)
    try:
        with torch.no_grad(), fixed_randomness().scope():
            (held.estimator.predict_proba if hasattr(held.estimator, "predict_proba") else held.estimator.predict)(X)
    finally:
        hook.remove()
    held.module.eval()
    if not seen:
        raise TypeError(
            f"predict of a {type(held.estimator).__name__} does not call its torch module, so that no rows reach it."
        )
    return Calls(seen)


def _rows_of_ours(held, X):
    """Return rows as the network of an estimator of ours takes them, checked as its `predict` checks them."""
    found = find_network(held.estimator)
    if "reading" in held.owner._fitted:  # it takes whatever the network takes that it was made of
        return found.prepare(X)
    steps = found.reading.steps
    rows = check_new_data(held.owner, X if steps is None or not len(steps) else steps.transform(X), method="predict")
    return found._replace(reading=found.reading._replace(steps=None)).prepare(rows)


def stored_held(held: Held) -> StoredHeld:
    """Return a held network, changed or not, as values."""
    weights = {name: array_of(value) for name, value in held.module.state_dict().items() if torch.is_tensor(value)}
    skeleton = without_weights(held.module)
    if held.estimator is None:
        return StoredHeld(None, skeleton, weights)
    owner = held.owner
    if is_ours(owner):
        _give_network(owner, skeleton, weights)
        return StoredHeld(held.estimator, None, weights)
    spots = _spots(held)
    with _detached(held, spots) as placeholder:
        shell = copy.deepcopy(held.estimator, {id(held.module): placeholder})
    return StoredHeld((shell, placeholder, [tuple(spot) for spot in spots]), skeleton, weights)


def restored_held(stored: StoredHeld, device: torch.device | str = "cpu") -> Held:
    """Return a held network of its values: new objects, ready to predict and to be trained on."""
    if stored.skeleton is None:
        estimator = copy.deepcopy(stored.shell)
        return Held(estimator, in_pairs(find_network(last_step(estimator)).module).to(device))
    module = with_weights(stored.skeleton, stored.weights, device)
    if stored.shell is None:
        return Held(None, module)
    shell, placeholder, spots = stored.shell
    estimator = copy.deepcopy(shell, {id(placeholder): module})
    nets = skorch_nets(estimator)
    for spot in (Spot(*values) for values in spots):
        _attach(nets[spot.net], spot, module)
    return Held(estimator, module)


def _give_network(owner, skeleton, weights):
    """Give an estimator of ours a network that it builds from a skeleton."""
    ws = _plain()
    pruned = "reading" in owner._fitted
    kind: Any = StoredNetwork if pruned else NetworkModel
    model = recall(owner, kind, ws.exact())
    former = model.architecture
    n_dense = former.n_dense or getattr(owner, "n_dense_parameters_", None)
    architecture = former._replace(
        module=skeleton,
        params={},
        n_in=(),
        edits=(),
        expansion=None,
        n_dense=n_dense,
        of_default=answers_exactly(former),
    )
    model = model._replace(architecture=architecture, weights=weights)
    if not pruned:
        model = model._replace(optimizer={})
    shown = {f"{name}_": None for name in model._fields if f"{name}_" in vars(owner)}  # these stay as they are
    now = {"_fitted": fitted_attributes(ws, model, **shown)["_fitted"], "weights_": weights}
    if pruned:
        now["n_parameters_"] = sum(p.numel() for p in skeleton.parameters())
    else:
        now |= {name: value for name, value in sizes(architecture).items() if hasattr(owner, name)}
    update_attributes(owner, now)


def _spots(held):
    """Return where skorch nets have the module."""
    return [
        Spot(at, path, net.module is net.module_)
        for at, net in enumerate(skorch_nets(held.estimator))
        if hasattr(net, "module_")
        for path, part in net.module_.named_modules(remove_duplicate=False)
        if part is held.module
    ]


@contextmanager
def _detached(held, spots):
    """Yield a placeholder; within, skorch nets hold it in the place of the module, and no optimizer."""
    placeholder, nets = nn.Identity(), skorch_nets(held.estimator)
    before = [
        (net, net.module_, net.optimizer_, net.module) for net in {spot.net: nets[spot.net] for spot in spots}.values()
    ]
    for spot in spots:
        net = nets[spot.net]
        _forget_weights(net)
        _put(net, spot, placeholder)
        net.optimizer_ = None
    try:
        yield placeholder
    finally:
        for spot in spots:
            if spot.path:
                nets[spot.net].module_.set_submodule(spot.path, held.module)
        for net, module, optimizer, parameter in before:
            net.module_, net.optimizer_, net.module = module, optimizer, parameter


def _forget_weights(net):
    """Let callbacks forget the former weights: they make schedules anew where a training begins."""
    for _, callback in net.callbacks_:
        held = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
        update_attributes(callback, {name: None for name, value in vars(callback).items() if isinstance(value, held)})
        if isinstance(callback, EarlyStopping):
            callback.best_model_weights_ = None


def _attach(net, spot, module):
    """Give a skorch net a module, where the net computes, and an optimizer of its parameters."""
    if net.device is not None:
        module.to(net.device)
    _put(net, spot, module)
    with fixed_randomness().scope():
        net.initialize_optimizer()
    for group in net.optimizer_.param_groups:
        group.setdefault("initial_lr", group["lr"])  # schedules of torch ask for it where a training goes on


def _put(net, spot, module):
    if spot.path:
        net.module_.set_submodule(spot.path, module)
    else:
        net.module_ = module
    if spot.is_instance:
        net.module = net.module_


def _with_last(estimator, last):
    """Return an estimator in which the last step of its pipelines is another one."""
    if isinstance(estimator, Pipeline):
        name, step = estimator.steps[-1]
        return Pipeline([*estimator.steps[:-1], (name, _with_last(step, last))], memory=estimator.memory)
    if isinstance(estimator, FrozenEstimator):
        return FrozenEstimator(_with_last(estimator.estimator, last))
    return last


def check_fitted(estimator: Any) -> None:
    """Raise a NotFittedError where an estimator, a skorch net or what is last in a pipeline is not fitted."""
    if isinstance(last_step(estimator), NeuralNet):
        if not getattr(last_step(estimator), "initialized_", False):
            raise NotFittedError("The skorch net has not been fitted. Call its fit before.")
    elif not isinstance(estimator, nn.Module):
        check_is_fitted(estimator)


def _plain():
    return open_workspace(np.empty((0, 0)), device="cpu")
