"""A network watched in training: what is seen of it at some epochs, and how far it has come from its start."""

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from .._core.validation import on_host
from .._nets.architecture import edited
from .._nets.layers import linear_layers
from ..metrics import effective_rank, kernel_alignment, tangent_kernel
from ._wrapped_network import last_step

MEASURES = ("weight", "kernel", "representation", "sign")
_NAME = "learning_regime"  # of the callback


# The fit, watched


class Snapshot(NamedTuple):
    """The network at some epoch."""

    epoch: int
    loss: float  # of the training rows, the mean over the epoch
    module: nn.Module


class Snapshots(Callback):
    """Takes copies of a network when training begins, after epochs 1, 2, 4, 8, ..., and when it has ended."""

    def __init__(self):
        self.taken: list[Snapshot] = []

    def on_train_begin(self, net, **kwargs):
        self.epoch, self.taken = 0, []
        self._take(net)

    def on_epoch_end(self, net, **kwargs):
        self.epoch += 1
        if self.epoch & (self.epoch - 1) == 0:
            self._take(net)

    def on_train_end(self, net, **kwargs):
        if self.epoch and self.taken[-1].epoch == self.epoch:
            del self.taken[-1]  # the fitted network may be that of an earlier epoch
        self._take(net)

    def _take(self, net):
        loss = net.history[-1].get("train_loss", np.nan) if self.epoch else np.nan
        self.taken.append(Snapshot(self.epoch, float(loss), copy.deepcopy(net.module_).eval()))


def fit_watched(model, X, y) -> list[Snapshot]:
    """Fit the model, and return the copies that were taken; no callback is left in the model."""
    last, watch = last_step(model), Snapshots()
    if isinstance(last, NeuralNet):
        former = last.callbacks
        if isinstance(former, str):
            raise ValueError("callbacks='disable' would disable the one that measures. Pass callbacks=None or a list.")
        last.callbacks = [*(former or []), (_NAME, watch)]
        model.fit(X, y)
        last.callbacks = former
        last.callbacks_ = [pair for pair in last.callbacks_ if pair[1] is not watch]
    else:
        former = last.net_params
        callbacks = [*((former or {}).get("callbacks") or []), (_NAME, watch)]
        last.net_params = {**(former or {}), "callbacks": callbacks}
        model.fit(X, y)
        last.net_params = former
    return watch.taken


def probe_rows(X, y, size, random_state):
    """Draw rows without replacement; of each class its share, where the targets are classes."""
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    order = random_state.permutation(n_rows)
    if size >= n_rows:
        return order
    if y is not None:
        classes = np.unique(np.asarray(on_host(y)).ravel(), return_inverse=True)[1]
        order = order[np.argsort(classes[order], kind="stable")]
    return order[((np.arange(size) + 0.5) * n_rows / size).astype(int)]


# What is seen of a network


class View(NamedTuple):
    """What is compared of a network."""

    weights: dict[str, torch.Tensor]  # (o, p) by layer
    kernel: torch.Tensor | None
    representations: dict[str, torch.Tensor]  # (n, d) by layer


def _layers(module) -> dict[str, nn.Module]:
    """Return linear and convolutional layers, and what has taken the place of one, by path and in order."""
    linear = dict(linear_layers(module))
    kinds = nn.Linear | nn.modules.conv._ConvNd
    return {path: part for path, part in module.named_modules() if path in linear or isinstance(part, kinds)}


def chosen_layers(module, layers):
    known = list(_layers(module))
    if isinstance(layers, str):
        chosen = known if layers == "all" else known[:-1]
        if not chosen:
            raise ValueError(
                f"layers={layers!r}, but the network has {len(known)} linear or convolutional layers. "
                + ("Pass layers='all', or add a hidden layer." if known else "It needs one at least.")
            )
        return chosen
    for path in layers:
        if path not in known:
            raise ValueError(f"layers has {path!r}, but the layers of the network are {', '.join(map(repr, known))}.")
    if not len(layers):
        raise ValueError(f"layers is empty. Pass some of {', '.join(map(repr, known))}, or 'hidden'.")
    return list(layers)


def seen(module, rows, layers, measures, method) -> View:
    """Return what is compared of a copy of a network, in which layers of rules are multiplied out."""
    for path, layer in linear_layers(module):
        if hasattr(layer, "multiplied_out"):
            edited(module, path, layer.multiplied_out())
    like = next(module.parameters())
    rows = rows.to(like.device, like.dtype if rows.is_floating_point() else None)
    parts = _layers(module)
    there = [path for path in layers if path in parts]  # a rule may have put something else there
    weights = {path: parts[path].weight.detach().flatten(1).double().cpu() for path in there}
    kernel = tangent_kernel(module, rows, params=there, method=method) if "kernel" in measures else None
    representations = _representations(module, rows, parts, there) if {"representation", "sign"} & {*measures} else {}
    return View(weights if "weight" in measures else {}, kernel, representations)


def _representations(module, rows, parts, layers) -> dict[str, torch.Tensor]:
    """Return what lies behind layers: the input (n, d) of the layer that is called next; of the last one its output."""
    calls: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    handles = [
        part.register_forward_hook(
            lambda layer, args, output, path=path: calls.append((path, args[0].clone(), output.clone()))
        )
        for path, part in parts.items()
    ]
    try:
        with torch.inference_mode():
            module(rows)
    finally:
        for handle in handles:
            handle.remove()
    behind: dict[str, torch.Tensor] = {}
    for i, (path, _, output) in enumerate(calls):
        if path in layers:
            H = calls[i + 1][1] if i + 1 < len(calls) else output
            behind.setdefault(path, H.reshape(len(rows), -1).double())
    return behind


# Comparisons


def compared(start: View, end: View, measures) -> dict[str, Any]:
    """Return by measure what the layers that both views have give."""
    weights, behind = _both(start.weights, end.weights), _both(start.representations, end.representations)
    change = {path: float((W - W_0).norm()) for path, (W_0, W) in weights.items()}
    found: dict[str, Any] = {
        "weight_change": change,
        "relative_weight_change": {path: _ratio(change[path], float(W_0.norm())) for path, (W_0, _) in weights.items()},
        "sign_similarity": {p: float((H.sign() == H_0.sign()).double().mean()) for p, (H_0, H) in behind.items()},
    }
    if "kernel" in measures:
        found["kernel_alignment"] = kernel_alignment(end.kernel, start.kernel)
    if "representation" in measures:
        found["representation_alignment"] = {
            p: kernel_alignment(H @ H.T, H_0 @ H_0.T) for p, (H_0, H) in behind.items()
        }
    return found


def _both(start, end):
    """Return pairs of what two views have of one shape."""
    return {path: (A, end[path]) for path, A in start.items() if path in end and end[path].shape == A.shape}


def _ratio(change, norm):
    return change / norm if norm > 0 else float("inf" if change > 0 else 0)


_FOUND = {
    "weight": ("weight_change", "relative_weight_change"),
    "kernel": ("kernel_alignment",),
    "representation": ("representation_alignment",),
    "sign": ("sign_similarity",),
}


def found_attributes(start: View, end: View, last, measures) -> dict[str, Any]:
    found = {f"{name}_": last[name] for measure in measures for name in _FOUND[measure]}
    if "weight" in measures:
        weights = _both(start.weights, end.weights)
        found["effective_rank_"] = {
            path: (effective_rank(W_0), effective_rank(W)) for path, (W_0, W) in weights.items()
        }
    return found


def history_of(taken, course, measures) -> dict[str, list]:
    """Return the measures of each epoch at which there was a copy, means over layers."""
    names = [name for measure in MEASURES if measure in measures for name in _FOUND[measure] if name != "weight_change"]
    history: dict[str, list] = {
        "epoch": [snapshot.epoch for snapshot in taken[1:]],
        "train_loss": [snapshot.loss for snapshot in taken[1:]],
    }
    return history | {name: [_mean(found[name]) for found in course] for name in names}


def _mean(value):
    return sum(value.values()) / max(1, len(value)) if isinstance(value, dict) else value
