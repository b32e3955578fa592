"""Scikit-learn's validation in the two forms that estimators need."""

from typing import Any

import numpy as np
import torch
from sklearn import get_config
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from .compat import check_same_namespace, check_y, get_namespace, move_to
from .rows import SlicedArray, is_sliced
from .workspace import is_remote

_FIRST_ROWS = 100  # of a data set on disk, which stand for all where its form is checked


def check_fit_data(estimator, X, y="no_validation", **kwargs) -> Any:
    """Validate what `fit` was given; float32 and float64 are kept, everything else becomes float64."""
    return _validate(estimator, _on_host(X), y, **{"dtype": _floats(X), **kwargs})


def _validate(estimator, X, y="no_validation", **kwargs):
    """Call scikit-learn's `validate_data`; where a table holds text, its error names the columns."""
    try:
        return validate_data(estimator, X, y, **kwargs)
    except (TypeError, ValueError) as error:
        names = [name for name in getattr(X, "columns", ()) if any(map(_is_text, np.asarray(X[name]).ravel()))]
        if not names:
            raise
        raise type(error)(
            f"{error} Text is in the columns {names}. Encode them, for example by OneHotEncoder in a "
            "ColumnTransformer, or leave them out."
        ) from error


def _is_text(value):
    """Return whether a cell is a string that is no number."""
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def check_fit_rows(estimator, X, y="no_validation", *, sliced=True, **kwargs) -> Any:
    """Validate what `fit` was given, for estimators that read blocks of rows: what lies elsewhere stays there.

    Data sets that are known by slices, and memmaps of integers, come back as a :class:`~.rows.SlicedArray` where
    `sliced`, the rows of a cluster as they are; of both only the first rows are looked at.
    """
    remote = is_remote(X)
    if not (remote or (sliced and is_sliced(X))):
        return check_fit_data(estimator, X, y, **kwargs)
    X = X if remote else SlicedArray(X)
    head = X.head if remote else X[:_FIRST_ROWS]
    if isinstance(y, str):
        check_fit_data(estimator, head, **kwargs)
        return X
    check_consistent_length(X, y)
    kept = {name: kwargs.pop(name) for name in ("multi_output", "y_numeric") if name in kwargs}
    check_fit_data(estimator, head, **kwargs)
    return X, check_y(y, estimator=estimator, **kept)


def check_new_data(estimator, X, *, method: str, like: str | None = None, **kwargs) -> Any:
    """Validate what a fitted method was given; call it first, before any fitted attribute is read.

    `like` names the fitted attribute whose array library and device X has to share; None for methods that take
    identifiers rather than numbers.
    """
    check_is_fitted(estimator)
    X = _on_host(X)
    if like is not None:
        check_same_namespace(X, estimator, attribute=like, method=method)
    return _validate(estimator, X, reset=False, **{"dtype": _floats(X), **kwargs})


def on_host(y):
    """Return targets as they are, but tensors and arrays of other libraries as numpy's."""
    if isinstance(y, torch.Tensor):
        return y.detach().cpu().numpy()
    return move_to(y, xp=np, device="cpu") if hasattr(y, "__array_namespace__") else y


def _on_host(X):
    """Refuse a CUDA tensor that scikit-learn, with its dispatch switched off, could only fail on."""
    if isinstance(X, torch.Tensor) and X.device.type != "cpu" and not get_config()["array_api_dispatch"]:
        raise TypeError(
            f"X is a tensor on {X.device}. Pass X.cpu(), or enable array_api_dispatch with "
            "sklearn.set_config(array_api_dispatch=True) to compute where it is."
        )
    return X


def _floats(X):
    xp, _ = get_namespace(X)
    return [xp.float64, xp.float32]
