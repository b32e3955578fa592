"""What adapters have in common: what is stored of one, and what a fitted one can do."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from sklearn.base import MetaEstimatorMixin
from sklearn.utils.validation import check_is_fitted

from .._core.fitted import keep, public_attributes, recall
from .._core.workspace import open_workspace
from .._nets.goals import codes_of
from .._nets.holding import StoredHeld, hold, restored_held
from .._nets.randomness import fixed_randomness
from .._nets.recording import LayerReport
from .._nets.wrapping import HeldNetwork
from ._adapted_network import Head, WeightUpdate, changed, fingerprint, numbers_of


class AdapterModel(NamedTuple):
    """A fitted adapter as values; its numbers are the attribute `weights_`."""

    base: StoredHeld | None  # the network; None: it is in the FrozenEstimator
    base_fingerprint: str
    layers: list[str]  # that have an update
    replaced: list[str]  # parameters of the network in whose places others are
    head: Head
    recipe: dict[str, Any]  # what else an update is made of
    weights: dict[str, np.ndarray]


class _Off(threading.local):
    """The adapters that are disabled in a thread."""

    def __init__(self):
        self.adapters: WeakKeyDictionary[Any, object] = WeakKeyDictionary()


_OFF = _Off()


class Adapter(MetaEstimatorMixin, HeldNetwork):
    """The methods of a fitted adapter; a subclass has `fit`, and makes the update of a layer of its numbers."""

    if TYPE_CHECKING:
        _update: Callable[[Any, dict[str, torch.Tensor], dict[str, Any]], WeightUpdate]

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
        it. It is a new one at each call. A skorch net with a new head predicts places in its `classes_`, as skorch
        does; the adapter itself predicts labels.

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
        """Replace the numbers by those of another adapter of the same network.

        Names and shapes are compared. Whether the other adapter was fitted to the same network is not known. In another
        process load a fitted adapter, by pickle or joblib, and give it the states of the sites.

        Parameters
        ----------
        state : dict of arrays
            What `get_adapter` of an adapter with the same parameters has returned.

        Returns
        -------
        self : estimator
        """
        message = (
            "This %(name)s instance is not fitted yet, so that it has no layers to which numbers could belong. Load a "
            "fitted adapter of this network, by pickle or joblib, and call set_adapter of that one; or call fit with "
            "max_iter=0 and a few labelled rows before."
        )
        check_is_fitted(self, msg=message)
        model = _model(self)
        weights = _checked_state(state, model.weights)
        if "classes" in weights:
            classes = weights["classes"]
            own = np.asarray(model.head.classes)
            classes = classes.astype(object) if own.dtype.kind == "O" else classes
            labels = None if model.head.labels is None else classes
            model = model._replace(head=model.head._replace(classes=classes, labels=labels))
        ws = open_workspace(np.empty((0, 0)), device="cpu")
        return keep(self, ws, model, **{**public_attributes(self), "weights_": weights})

    @contextmanager
    def disable(self) -> Iterator[Self]:
        """Answer like the network without the adapter within a `with` block, in this thread alone.

        Returns
        -------
        context : context manager
        """
        check_is_fitted(self)
        off = _OFF.adapters
        former = off.get(self)
        off[self] = object()
        try:
            yield self
        finally:
            off.pop(self)
            if former is not None:
                off[self] = former

    @property
    def classes_(self) -> np.ndarray:
        """Class labels: those of the network, or those of y where the head was reset."""
        self._check_fitted("classes_")
        classes = None if self in _OFF.adapters else _model(self).head.classes
        return super().classes_ if classes is None else classes

    def _restored(self):
        model = _model(self)
        held = _base(self, model)
        if self not in _OFF.adapters:
            weights = {name: value for name, value in model.weights.items() if name not in model.replaced}
            updates = {
                name: self._update(held.module.get_submodule(name), numbers_of(weights, name), model.recipe)
                for name in model.layers
            }
            held = changed(held, model.head, updates, {name: model.weights[name] for name in model.replaced})
        return held

    def _answering(self):
        return _OFF.adapters.get(self, vars(self)["_fitted"])

    def _ask(self, method, X, *args, **params):
        labels = None if self in _OFF.adapters or not hasattr(self, "weights_") else _model(self).head.labels
        if labels is None:
            return super()._ask(method, X, *args, **params)
        if method == "score":
            args = (codes_of(args[0], labels),)
        answer = super()._ask(method, X, *args, **params)
        return labels[answer] if method == "predict" else answer

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


# What is stored


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


def _checked_state(state, own):
    """Return another adapter's numbers in the types of those of the fit.

    Raises
    ------
    ValueError
        If their names or shapes are others, or not all are finite.
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
        if name != "classes" and not np.isfinite(found[name]).all():
            raise ValueError(f"{name} of the state has NaN or infinite values. Pass what get_adapter has returned.")
    return {name: found[name].copy() if name == "classes" else found[name].astype(v.dtype) for name, v in own.items()}
