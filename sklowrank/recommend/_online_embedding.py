"""Embeddings of identifiers learned from a stream: one row for each identifier, a classifier and a regressor."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from .._core.annotations import RandomState
from .._core.compat import _fit_context, check_y
from .._core.validation import explained, on_host
from ._online_columns import checked_table
from ._online_learning import targets
from ._online_methods import OnlineEmbeddingMethods, checked_weights
from ._reading import numeric_values


class OnlineEmbeddingClassifier(OnlineEmbeddingMethods, ClassifierMixin, BaseEstimator):
    """Doc."""

    classes_: np.ndarray

    def __init__(
        self,
        n_components: int = 8,
        *,
        interaction: Literal["fm", "linear", "deepfm"] = "fm",
        hidden_layer_sizes: Sequence[int] = (64,),
        categorical_features: Sequence[Any] | Literal["auto"] | None = "auto",
        learning_rate: float | tuple[float, float] = 0.2,
        init_scale: float = 0.01,
        batch_size: int = 32,
        max_iter: int = 5,
        min_count: int | dict[Any, int] = 1,
        admission: Literal["count", "probabilistic"] = "count",
        filter_capacity: int | None = None,
        expire_after: float | dict[Any, float] | None = None,
        evict_every: int | None = None,
        max_rows: int | None = None,
        sync_interval: int = 0,
        table: Literal["cuckoo", "modulo"] = "cuckoo",
        n_rows: int | None = None,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.interaction = interaction
        self.hidden_layer_sizes = hidden_layer_sizes
        self.categorical_features = categorical_features
        self.learning_rate = learning_rate
        self.init_scale = init_scale
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.min_count = min_count
        self.admission = admission
        self.filter_capacity = filter_capacity
        self.expire_after = expire_after
        self.evict_every = evict_every
        self.max_rows = max_rows
        self.sync_interval = sync_interval
        self.table = table
        self.n_rows = n_rows
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Forget all, and learn rows in epochs, each in an order that is drawn."""
        table = checked_table(self, X, reset=True)
        classes, index = np.unique(_labels(self, y, table.shape[0]), return_inverse=True)
        n_outputs = _n_outputs(classes)
        stored, rows, ws = self._begin(table, n_outputs, _loss(n_outputs))
        return self._fit(stored, rows, targets(index, n_outputs), ws, X=X, y=y, classes_=classes)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None, timestamps=None) -> Self:
        """Learn rows in the order in which they come, each once."""
        first = not hasattr(self, "classes_")
        table = checked_table(self, X, reset=first)
        if first or not _plain_labels(y, table.shape[0]):
            y = _labels(self, y, table.shape[0])
        weights = checked_weights(sample_weight, y)
        known = _declared(y, classes, None if first else self.classes_)
        index = _positions(y, known)
        if first:
            n_outputs = _n_outputs(known)
            stored, rows, ws = self._begin(table, n_outputs, _loss(n_outputs))
        else:
            (rows, ws), stored = self._read(table), self._stored()
        target = targets(index, stored.state.shape.n_outputs)
        return self._absorb(stored, rows, target, weights, timestamps, ws, classes_=known)

    def decision_function(self, X):
        """Return the outputs of the model."""
        outputs, ws = self._outputs(X)
        return ws.answer(outputs[:, 0] if outputs.shape[1] == 1 else outputs)

    def predict_proba(self, X):
        """Return the probabilities of the classes."""
        outputs, ws = self._outputs(X)
        if outputs.shape[1] == 1:
            return ws.answer(torch.cat([-outputs, outputs], 1).sigmoid())
        return ws.answer(outputs.softmax(1))

    def predict(self, X):
        """Return the most probable class of each row."""
        outputs, _ = self._outputs(X)
        index = outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(1)
        return self.classes_[index.cpu().numpy().astype(np.int64)]


class OnlineEmbeddingRegressor(OnlineEmbeddingMethods, RegressorMixin, BaseEstimator):
    """Doc."""

    y_mean_: float
    y_scale_: float

    __init__ = OnlineEmbeddingClassifier.__init__

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Forget all, and learn rows in epochs, each in an order that is drawn."""
        table = checked_table(self, X, reset=True)
        y = _numbers(self, y, table.shape[0])
        unit = _unit(y, None)
        stored, rows, ws = self._begin(table, 1, "squared")
        return self._fit(stored, rows, _in_units(y, unit), ws, X=X, y=y, **unit)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None, timestamps=None) -> Self:
        """Learn rows in the order in which they come, each once."""
        first = not hasattr(self, "y_mean_")
        table = checked_table(self, X, reset=first)
        y = _numbers(self, y, table.shape[0])
        weights = checked_weights(sample_weight, y)
        unit = _unit(y, weights) if first else {"y_mean_": self.y_mean_, "y_scale_": self.y_scale_}
        if first:
            stored, rows, ws = self._begin(table, 1, "squared")
        else:
            (rows, ws), stored = self._read(table), self._stored()
        return self._absorb(stored, rows, _in_units(y, unit), weights, timestamps, ws, **unit)

    def predict(self, X):
        """Return the predicted numbers."""
        outputs, ws = self._outputs(X)
        return ws.answer(outputs[:, 0] * self.y_scale_ + self.y_mean_)


def _labels(estimator, y, n_rows):
    """Return labels of classes that were checked."""
    name = type(estimator).__name__
    if y is None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    y = on_host(y)
    with explained(None, y):
        y = check_y(y, estimator=name)
    check_classification_targets(y)
    check_consistent_length(y, range(n_rows))
    return y


def _plain_labels(y, n_rows) -> bool:
    """Return whether nothing of y could be refused but labels that are not known."""
    return type(y) is np.ndarray and y.dtype.kind in "biu" and y.shape == (n_rows,)


def _declared(y, classes, known):
    """Return the classes: those of the first call, those that it declares, or those of its y."""
    if known is not None:
        if classes is not None and not (np.array_equal(known, classes) or np.array_equal(known, np.unique(classes))):
            raise ValueError(f"classes={classes!r} is not the same as in the first call to partial_fit: {known!r}.")
        return known
    return unique_labels(y if classes is None else on_host(classes))


def _positions(y, classes) -> np.ndarray:
    """Return the positions of labels among the classes."""
    places = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    unknown = classes[places] != y
    if np.any(unknown):
        new = np.unique(y[unknown])[:5].tolist()
        raise ValueError(
            f"y has the labels {new}, which are not among the classes {classes[:10].tolist()}. Name all classes in the "
            "first call to partial_fit."
        )
    return places


def _n_outputs(classes) -> int:
    """Return one output for two classes, else one for each."""
    if len(classes) < 2:
        raise ValueError(
            f"y has one class only, {classes.tolist()}. Two are needed; partial_fit is told all of them by classes."
        )
    return 1 if len(classes) == 2 else len(classes)


def _loss(n_outputs) -> str:
    return "logistic" if n_outputs == 1 else "softmax"


def _numbers(estimator, y, n_rows) -> np.ndarray:
    """Return numeric targets that were checked, as float64."""
    y = numeric_values(on_host(y), type(estimator).__name__).astype(np.float64)
    check_consistent_length(y, range(n_rows))
    return y


def _unit(y, weights) -> dict[str, float]:
    """Return mean and scale of targets; a constant has the scale 1."""
    if weights is not None and not weights.any():
        weights = None
    mean = float(np.average(y, weights=weights))
    scale = float(np.average((y - mean) ** 2, weights=weights) ** 0.5)
    return {"y_mean_": mean, "y_scale_": scale if scale > 1e-13 * abs(mean) else 1.0}


def _in_units(y, unit) -> np.ndarray:
    return ((y - unit["y_mean_"]) / unit["y_scale_"])[:, None]
