"""The classifier that is wrapped: its labels, its probabilities, what it has to have, arrays in the user's library."""

import numpy as np
import torch
from sklearn import get_config
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.validation import check_is_fitted, column_or_1d

from .._core.validation import check_classes, on_host
from .._core.workspace import check_place
from ._frechet_means import normalized


def classifier_of(estimator):
    """Return the classifier, the default one for None."""
    return LogisticRegression() if estimator is None else estimator


def learns_in_batches(classifier):
    """Return whether the base model has `partial_fit`, and is not frozen."""
    return not isinstance(classifier.estimator, FrozenEstimator) and hasattr(classifier.estimator, "partial_fit")


def labels_of(estimator, y):
    """Return the labels that a classifier will know: its own if it is frozen, else those of y."""
    if isinstance(estimator, FrozenEstimator):
        check_is_fitted(estimator)
        return on_host(estimator.classes_)
    check_place(y, "y")
    y = on_host(y)
    check_classes(y)
    return np.unique(column_or_1d(y))


def check_classifier(model, scores):
    """Raise an error where a fitted model has no classes, or not the scores that are asked for."""
    name, method = type(model).__name__, {"proba": "predict_proba", "decision": "decision_function"}[scores]
    if not hasattr(model, "classes_"):
        raise ValueError(f"estimator={name} has no classes_ after its fit. Pass a classifier.")
    if not (hasattr(model, method) or isinstance(model, DummyClassifier)):
        other = "decision" if scores == "proba" else "proba"
        raise AttributeError(
            f"estimator={name} has no {method}, which scores={scores!r} needs. Use scores={other!r}, or wrap it in a "
            "CalibratedClassifierCV."
        )


def class_scores(model, X, scores, n_observed):
    """Return what a fitted model gives for each row and observed class, and which of "proba" and "decision" it is."""
    kind = "proba" if isinstance(model, DummyClassifier) else scores
    P = model.predict_proba(X) if kind == "proba" else model.decision_function(X)
    P = P if is_array(P) else np.asarray(P)
    n_columns = 2 if P.ndim == 1 else P.shape[1]
    if P.ndim > 2 or n_columns != n_observed:
        raise ValueError(
            f"With scores={scores!r} {type(model).__name__} gave {n_columns} columns for {n_observed} classes. Use a "
            "classifier with a score for each class, such as SVC(decision_function_shape='ovr')."
        )
    return P, kind


def probabilities(P: torch.Tensor, kind: str, temperature: float, name: str) -> torch.Tensor:
    """Return probabilities (n, k) with a temperature from what :func:`class_scores` gives of the model `name`."""
    if kind == "proba":
        if not (P.isfinite() & (P >= 0)).all():
            raise ValueError(f"predict_proba of {name} gave values that are no probabilities.")
        return normalized(P, temperature)
    P = torch.stack([torch.zeros_like(P), P], dim=1) if P.ndim == 1 else P
    largest = P.amax(1, keepdim=True)
    if not largest.isfinite().all():
        raise ValueError(f"decision_function of {name} gave NaN or infinity.")
    return ((P - largest) / temperature).softmax(1)


def routed(router, method, params):
    """Return the parameters that go to the classifier."""
    if not get_config()["enable_metadata_routing"]:
        return params
    return getattr(process_routing(router, method, **params).estimator, method)


def is_array(X):
    """Return whether X is an array that says in which library, and how precisely, to answer."""
    return isinstance(X, np.ndarray | torch.Tensor) or hasattr(X, "__array_namespace__")


def in_library(array, ws):
    """Return numbers in the user's library, other labels as they are."""
    return array if ws.home is None or array.dtype.kind not in "biuf" else ws.store(torch.from_numpy(array))
