"""Fitted predictors as differentiable functions of the features: what a projection is to keep the answers of."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.utils import column_or_1d
from skorch import NeuralNet
from torch import nn

from .._core.validation import check_classes, on_host
from .._nets.architecture import with_weights, without_weights
from .._nets.found import Found, Reading, array_of, dtype_of, find_network
from .._nets.holding import check_fitted, held

_TAKEN = (
    "a linear model with coef_, a network (of sklowrank, of skorch, with module_, or a torch.nn.Module), a Pipeline of "
    "affine steps that ends in one of these, or a callable from tensor to tensor"
)
CHECKED_ROWS = 200  # rows on which what is assumed of estimators is compared with what they do
_LINEAR = 1e-3  # largest relative deviation of these
_ROUNDING = 1e-8  # largest relative deviation of steps from an affine map


class InputMap(NamedTuple):
    """What is done to rows before the function: ``(X - shift) * gain + offset``, or ``@`` where gain is a matrix."""

    shift: np.ndarray
    gain: np.ndarray
    offset: np.ndarray


class StoredTeacher(NamedTuple):
    """A teacher as values: what a fitted projection keeps of it."""

    kind: str  # "classes": logits; "binary": one logit; "probabilities"; "values"
    skeleton: Any  # a module without its weights; None: there is a function
    weights: dict[str, np.ndarray]
    function: Any
    entry: InputMap | None
    classes: np.ndarray | None
    y_mean: Any  # units of the values
    y_scale: Any


class Teacher(NamedTuple):
    """A teacher that computes: outputs for rows are logits of classes, or values."""

    kind: str
    function: Callable[[torch.Tensor], Any]
    dtype: torch.dtype  # of the rows that the function takes
    entry: tuple[torch.Tensor, ...] | None  # in float64

    def outputs(self, X: torch.Tensor) -> torch.Tensor:
        """Return the outputs (n, K) in float64, gradients included; those of two classes are -z/2 and z/2."""
        if self.entry is not None:
            shift, gain, offset = self.entry
            X = X.double() - shift
            X = (X * gain if gain.ndim == 1 else X @ gain) + offset
        out = self.function(X.to(self.dtype))
        out = _checked_output(out[0] if isinstance(out, tuple | list) and out else out, len(X)).double()
        if self.kind == "binary":
            return torch.cat([-out / 2, out / 2], 1)
        return out.clamp(min=torch.finfo(self.dtype).tiny).log() if self.kind == "probabilities" else out

    @property
    def classifies(self) -> bool:
        """Whether outputs are logits."""
        return self.kind != "values"


def _checked_output(out, n):
    """Return an output as rows (n, K)."""
    if not isinstance(out, torch.Tensor):
        raise TypeError(f"estimator has to return a tensor for a tensor of rows, but returned a {type(out).__name__}.")
    if out.shape[:1] != (n,) or not out.numel():
        raise ValueError(
            f"estimator returned a tensor of shape {tuple(out.shape)} for {n} rows. It has to be of shape ({n},) or "
            f"({n}, n_outputs)."
        )
    return out.reshape(n, -1)


def divergence(outputs: torch.Tensor, truth: torch.Tensor, *, classifies: bool) -> torch.Tensor:
    """Return for each row the Kullback-Leibler divergence of the classes, or the mean squared difference of values."""
    if not classifies:
        return (outputs - truth).square().mean(-1)
    truth = truth.log_softmax(-1)
    return (truth.exp() * (truth - outputs.log_softmax(-1))).sum(-1)


def label_loss(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return for each row the cross-entropy of classes (n,), or the mean squared error of values (n, K)."""
    if target.is_floating_point():
        return (outputs - target).square().mean(-1)
    return nn.functional.cross_entropy(outputs, target, reduction="none")


def live_teacher(stored: StoredTeacher, device: torch.device, dtype: torch.dtype) -> Teacher:
    """Return a stored teacher ready to compute on a device; a function gets rows of the given precision."""
    entry = None
    if stored.entry is not None:
        entry = tuple(torch.from_numpy(np.array(part, dtype=np.float64)).to(device) for part in stored.entry)
    if stored.skeleton is None:
        return Teacher(stored.kind, stored.function, dtype, entry)
    module = with_weights(stored.skeleton, stored.weights, device).requires_grad_(False)
    return Teacher(stored.kind, module, dtype_of(module), entry)


def encoded(stored: StoredTeacher, y: Any, device: torch.device) -> torch.Tensor:
    """Return labels as :func:`label_loss` takes them.

    Raises
    ------
    ValueError
        If a label is none of the teacher's classes, or there are several labels of a row.
    """
    y = np.asarray(on_host(y))
    if stored.kind == "values":
        values = torch.from_numpy((y.astype(np.float64).reshape(len(y), -1) - stored.y_mean) / stored.y_scale)
        return values.to(device)
    y = column_or_1d(y)
    classes = np.unique(y) if stored.classes is None else np.asarray(stored.classes)
    codes = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    if not np.array_equal(classes[codes], y):
        raise ValueError(f"y has labels that are no classes of the estimator, which are {classes}.")
    return torch.from_numpy(codes).to(device, torch.int64)


# Where teachers come from


def find_teacher(model: Any, X: torch.Tensor) -> StoredTeacher:
    """Return a fitted predictor of rows like X as a function that can be differentiated; it is not changed.

    Raises
    ------
    TypeError
        If it is none; the error names its class.
    NotFittedError
        If it is not fitted.
    ValueError
        If it was fitted to another number of features.
    """
    while isinstance(model, FrozenEstimator):
        model = model.estimator
    if isinstance(model, nn.Module):
        return _of_network(find_network(model))
    if not isinstance(model, type) and hasattr(model, "fit"):
        return _of_estimator(model, X)
    if callable(model) and not isinstance(model, type):
        return StoredTeacher("values", None, {}, model, None, None, 0.0, 1.0)
    kind = f"The class {model.__name__}" if isinstance(model, type) else f"A {type(model).__name__}"
    raise TypeError(f"{kind} cannot be differentiated. Pass {_TAKEN}.")


def fitted_teacher(X: torch.Tensor, y: Any, mean: torch.Tensor, scale: torch.Tensor) -> StoredTeacher:
    """Return a linear teacher that is fitted to standardised rows: logistic for classes, ridge for floating y."""
    y = np.asarray(on_host(y))
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    scale = torch.where(scale > 0, scale, 1.0)
    Z = ((X.double() - mean) / scale).cpu().numpy()
    if y.dtype.kind == "f":
        model = Ridge().fit(Z, y)
    else:
        check_classes(y)
        model = LogisticRegression(max_iter=1000).fit(Z, y)
    zero = np.zeros(X.shape[1])
    return _linear(model)._replace(entry=InputMap(array_of(mean), array_of(1 / scale), zero))


def _of_estimator(model: Any, X: torch.Tensor) -> StoredTeacher:
    check_fitted(model)
    n_features = getattr(model, "n_features_in_", None)
    if n_features not in (None, X.shape[1]):
        raise ValueError(f"X has {X.shape[1]} features, but the estimator was fitted to n_features_in_={n_features}.")
    if isinstance(model, Pipeline):
        return _of_pipeline(model, X)
    if hasattr(model, "coef_"):
        _check_linear(model, X)
        return _linear(model)
    inner = model if isinstance(model, NeuralNet) or hasattr(model, "network") else None
    if "shell" in getattr(model, "_fitted", {}):  # what a compressor made
        inner, module = held(model)
        if inner is None:
            return _of_network(find_network(module))
        return find_teacher(inner, X)
    if inner is None and isinstance(getattr(model, "module_", None), nn.Module):
        reading = Reading("codes" if is_classifier(model) else "outputs")
        found = find_network(model.module_)._replace(reading=reading)
        return _of_network(found)._replace(classes=getattr(model, "classes_", None))
    if inner is None:
        raise TypeError(f"A {type(model).__name__} cannot be differentiated. Pass {_TAKEN}.")
    return _of_network(find_network(inner))


def _check_linear(model: Any, X: torch.Tensor) -> None:
    """Refuse models of which predictions are not what `coef_` and `intercept_` give, such as those with a link."""
    answer = getattr(model, "decision_function", None) if is_classifier(model) else model.predict
    if answer is None or (isinstance(on_host(model.coef_), np.ndarray) and not isinstance(model.coef_, np.ndarray)):
        return  # a model of tensors, whose predict takes these alone
    stored, rows = _linear(model), X[:CHECKED_ROWS].double().cpu()
    if stored.kind != "values" and np.ndim(_with_names(model.predict, model, rows[:1].numpy())) > 1:
        raise TypeError(
            f"The {type(model).__name__} predicts several labels of each row. Pass a callable that computes its "
            "decision_function with torch, of which squared differences are kept."
        )
    outputs = live_teacher(stored, rows.device, rows.dtype).outputs(rows).numpy()
    if stored.kind == "binary":
        outputs = outputs[:, 1:] - outputs[:, :1]
    truth = np.asarray(_with_names(answer, model, rows.numpy()), dtype=np.float64).reshape(len(rows), -1)
    gap = np.inf
    if outputs.shape == truth.shape:
        gap = np.abs(outputs - truth).max()
        if stored.kind == "values":  # squared differences do not depend on constants
            gap = np.ptp(outputs - truth, 0).max()
    if not gap <= _LINEAR * max(np.abs(outputs).max(), np.abs(truth).max()):
        raise TypeError(
            f"What {type(model).__name__} predicts is not given by its coef_ and intercept_ alone. Pass a callable "
            "that computes it with torch."
        )


def _with_names(function, fitted, rows):
    """Return what a function of a fitted estimator makes of rows, with the names of columns that it was fitted to."""
    names = getattr(fitted, "feature_names_in_", None)
    if names is not None:
        with suppress(ImportError):
            import pandas as pd

            rows = pd.DataFrame(rows, columns=names)
    return function(rows)


def _linear(model: Any) -> StoredTeacher:
    """Return a linear model as a layer in float64."""
    weight = model.coef_.toarray() if issparse(model.coef_) else on_host(model.coef_)
    weight = np.atleast_2d(np.asarray(weight, dtype=np.float64))
    bias = np.broadcast_to(np.asarray(on_host(getattr(model, "intercept_", 0.0)), np.float64), len(weight))
    layer = nn.Linear(weight.shape[1], len(weight), device="meta", dtype=torch.float64)
    weights = {"weight": weight.copy(), "bias": bias.copy()}
    kind = ("binary" if len(weight) == 1 else "classes") if is_classifier(model) else "values"
    classes = np.asarray(on_host(model.classes_)) if kind != "values" else None
    return StoredTeacher(kind, layer, weights, None, None, classes, 0.0, 1.0)


def _of_network(found: Found) -> StoredTeacher:
    """Return a found network."""
    reading = found.reading
    kind = {"codes": "classes", "outputs": "values"}.get(reading.kind, reading.kind)
    module = found.module
    weights = {name: array_of(value) for name, value in module.state_dict().items() if torch.is_tensor(value)}
    entry = None
    if reading.mean is not None:
        entry = InputMap(reading.mean, 1 / np.asarray(reading.scale, np.float64), np.zeros(len(reading.mean)))
    stored = StoredTeacher(kind, without_weights(module), weights, None, entry, reading.classes, 0.0, 1.0)
    return stored._replace(y_mean=reading.y_mean, y_scale=reading.y_scale)


def _of_pipeline(pipeline, X):
    """Return the last step of a pipeline, behind the affine map of the others."""
    before, last = pipeline[:-1], pipeline[-1]
    if last in (None, "passthrough"):
        raise TypeError(f"A Pipeline without a last step cannot be differentiated. Pass {_TAKEN}.")
    if not len(before):
        return find_teacher(last, X)
    entry = _affine(before, X)
    rows = X[:CHECKED_ROWS].double().cpu().numpy()
    inner = find_teacher(last, torch.from_numpy((rows - entry.shift) @ entry.gain + entry.offset))
    if inner.entry is None:
        return inner._replace(entry=entry)
    shift, gain, offset = inner.entry
    through = (entry.gain * gain) if gain.ndim == 1 else entry.gain @ gain
    moved = (entry.offset - shift) * gain if gain.ndim == 1 else (entry.offset - shift) @ gain
    return inner._replace(entry=InputMap(entry.shift, through, moved + offset))


def _affine(steps, X):
    """Return the affine map that fitted steps are, found by what they make of the mean and of steps from it.

    Raises
    ------
    TypeError
        If they are not affine on rows of X.
    """
    rows = X[:CHECKED_ROWS].double().cpu().numpy()
    shift, spread = rows.mean(0), np.where(np.ptp(rows, 0) > 0, np.ptp(rows, 0), 1.0)

    def mapped(Z):
        return np.asarray(_with_names(steps.transform, steps, Z), dtype=np.float64)

    offset = mapped(shift[None])[0]
    gain = (mapped(shift + np.diag(spread)) - offset) / spread[:, None]
    truth = mapped(rows)
    gap = np.abs((rows - shift) @ gain + offset - truth).max()
    if not gap <= _ROUNDING * max(np.abs(truth).max(), np.finfo(np.float64).tiny):
        names = ", ".join(type(step).__name__ for _, step in steps.steps)
        raise TypeError(
            f"The steps {names} of the Pipeline are not affine and cannot be differentiated. Pass {_TAKEN}."
        )
    return InputMap(shift, gain, offset)
