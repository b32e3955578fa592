"""Networks that others have fitted: the module, what its rows have to look like, and what is made of its outputs."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from skorch import NeuralNet, NeuralNetBinaryClassifier
from torch import nn

_TAKEN = (
    "an estimator of sklowrank with network(), a skorch net that has been fitted, a torch.nn.Module, or one of these "
    "in a FrozenEstimator or as the last step of a Pipeline"
)


class Found(NamedTuple):
    """A fitted network: ``answer(module(prepare(X)))`` is what the model that holds it predicts."""

    module: nn.Module  # a copy, in eval mode, on the CPU
    prepare: Callable[[Any], torch.Tensor]  # rows as the model takes them to those that the module takes
    answer: Callable[[torch.Tensor], Any]  # outputs to predictions; of a bare module the outputs as an array
    classes: np.ndarray | None  # of a classifier


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
        return found._replace(prepare=partial(_after_steps, model[:-1], found.prepare))
    if isinstance(model, NeuralNet) and getattr(model, "initialized_", False):
        return _of_skorch(model)
    if isinstance(model, nn.Module):
        module = _copied(model)
        return Found(module, partial(_as_tensor, _dtype_of(module)), _as_array, None)
    if not isinstance(model, type) and callable(getattr(model, "network", None)):
        return _of_ours(model)
    raise TypeError(f"A {type(model).__name__} holds no network. Pass {_TAKEN}.")


def _after_steps(steps, prepare, X):
    return prepare(steps.transform(X) if len(steps) else X)


def _copied(module):
    return copy.deepcopy(module).cpu().eval()


def _dtype_of(module):
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def _as_tensor(dtype, X):
    """Return rows as a tensor, floating values in the precision of the weights; integers may be indices."""
    X = X if isinstance(X, torch.Tensor) else torch.from_numpy(np.array(X))
    return X.to("cpu", dtype if X.is_floating_point() else None)


def _as_array(outputs):
    return outputs.detach().cpu().numpy()


def _of_skorch(net):
    module = _copied(net.module_)
    prepare, classes = partial(_as_tensor, _dtype_of(module)), getattr(net, "classes_", None)
    if classes is None:
        return Found(module, prepare, _as_array, None)
    classes = np.asarray(classes)
    if isinstance(net, NeuralNetBinaryClassifier):
        return Found(module, prepare, partial(_above_zero, classes, net.threshold), classes)
    return Found(module, prepare, partial(_most_likely, classes), classes)


def _above_zero(classes, threshold, outputs):
    return classes[(torch.sigmoid(outputs.reshape(len(outputs))) > threshold).long().cpu().numpy()]


def _most_likely(classes, outputs):
    return classes[outputs.argmax(1).cpu().numpy()]


def _of_ours(model):
    module = model.network()
    mean, scale = (np.asarray(torch.as_tensor(part, device="cpu")) for part in (model.mean_, model.scale_))
    prepare, classes = partial(_standardised, mean, scale, _dtype_of(module)), getattr(model, "classes_", None)
    if classes is not None:
        return Found(module, prepare, partial(_most_likely, classes), classes)
    return Found(module, prepare, partial(_in_units, model.y_mean_, model.y_scale_, np.ndim(model.y_mean_)), None)


def _standardised(mean, scale, dtype, X):
    return torch.as_tensor((np.asarray(X, dtype=np.float64) - mean) / scale, dtype=dtype, device="cpu")


def _in_units(mean, scale, ndim, outputs):
    values = _as_array(outputs).astype(np.float64) * scale + mean
    return values[:, 0] if values.shape[1] == 1 else values
