"""Scikit-learn's validation in the two forms that estimators need."""

from typing import Any

import numpy as np
import torch
from sklearn import get_config
from sklearn.utils.validation import check_is_fitted, validate_data

from .compat import check_same_namespace, get_namespace, move_to


def check_fit_data(estimator, X, y="no_validation", **kwargs) -> Any:
    """Validate what `fit` was given; float32 and float64 are kept, everything else becomes float64."""
    return validate_data(estimator, _on_host(X), y, **{"dtype": _floats(X), **kwargs})


def check_new_data(estimator, X, *, method: str, like: str | None = None, **kwargs) -> Any:
    """Validate what a fitted method was given; call it first, before any fitted attribute is read.

    `like` names the fitted attribute whose array library and device X has to share; None for methods that take
    identifiers rather than numbers.
    """
    check_is_fitted(estimator)
    X = _on_host(X)
    if like is not None:
        check_same_namespace(X, estimator, attribute=like, method=method)
    return validate_data(estimator, X, reset=False, **{"dtype": _floats(X), **kwargs})


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
