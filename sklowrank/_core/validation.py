"""Scikit-learn's validation in the two forms that estimators need."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from .compat import InvalidParameterError, check_same_namespace, check_y, get_namespace, move_to
from .rows import SlicedArray, is_sliced
from .workspace import check_place, on_cluster

_FIRST_ROWS = 100  # of a data set on disk, which stand for all where its form is checked
_NOT_A_NUMBER = (
    "could not convert string",
    "argument must be a string",
    "Unable to convert array of bytes/strings",
    "could not be promoted",
)
_SPARSE = (
    "Sparse data was passed for X, but dense data is required. Reduce X to dense columns by "
    "sklearn.decomposition.TruncatedSVD, or pass X.toarray() if it fits into memory."
)
_MOST_NAMED = 10  # columns that an error names


def check_fit_data(estimator, X, y="no_validation", **kwargs) -> Any:
    """Validate what `fit` was given; float32 and float64 are kept, everything else becomes float64."""
    return _validate(estimator, _here(X), y, **{"dtype": _floats(X), **kwargs})


def check_classes(y) -> None:
    """Raise a ValueError where labels are no classes, for estimators whose classifier itself warns of many classes."""
    if type_of_target(y, input_name="y") not in ("binary", "multiclass"):
        check_classification_targets(y)


def _validate(estimator, X, y="no_validation", **kwargs):
    """Call scikit-learn's `validate_data`, with errors that name columns and show no cell."""
    y = y if isinstance(y, str) else _here(y, "y")
    if kwargs.get("multi_output") and issparse(y):
        raise TypeError("Sparse data was passed for y, but dense data is required. Pass y.toarray().")
    with explained(X, y, dtype=kwargs["dtype"]):
        checked = validate_data(estimator, X, y, **kwargs)
        if kwargs.get("y_numeric") and not isinstance(y, str):
            return checked[0], _as_numbers(checked[1])
        return checked


def _as_numbers(y):
    """Return targets that came as text as numbers; scikit-learn converts objects alone."""
    return y.astype(np.float64) if getattr(y.dtype, "kind", "f") in "SU" else y


@contextmanager
def explained(X, y=None, *, dtype: Any = "numeric") -> Iterator[None]:
    """Say what validation found in other words where scikit-learn's would show cells, or name no column or no remedy.

    `dtype` None means that X is not converted to numbers.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        text = _explanation(str(error), X, y, dtype)
        if text is None:
            raise
        raise (ValueError if text is not _SPARSE else TypeError)(text) from None


def _explanation(text, X, y, dtype):
    """Return the error in other words, None where it is fine as it is."""
    if text.startswith("Sparse data was passed for X"):
        return _SPARSE
    if text.startswith("Complex data not supported"):
        name = "y" if y is not None and not np.iscomplexobj(X) else "X"
        return f"Complex data not supported: {name} has complex numbers. Pass real and imaginary parts as columns."
    if "\narray=" in text:
        return re.sub(r":\narray=.*\.\n(?=Reshape)", ". ", text, flags=re.DOTALL)
    if not any(said in text for said in _NOT_A_NUMBER):
        return None
    columns = [] if dtype is None else text_columns(X)
    if columns:
        return (
            f"X could not be converted to numeric values. Text is in the columns {_named(columns)}. Encode them, for "
            "example by OneHotEncoder in a ColumnTransformer, or leave them out."
        )
    columns = [] if dtype is None else _date_columns(X)
    if columns:
        return (
            f"X could not be converted to numeric values. Dates are in the columns {_named(columns)}. Replace them by "
            "numbers, such as hours since a start, or leave them out."
        )
    if y is not None and not isinstance(y, str) and any(map(_is_text, np.asarray(y, dtype=object).flat)):
        return "y could not be converted to numeric values: it has text in it. Pass numbers."
    return None


def _named(columns):
    """Return the list of columns as text, the first of many."""
    return f"{columns[:_MOST_NAMED]}" + f" and {len(columns) - _MOST_NAMED} more" * (len(columns) > _MOST_NAMED)


def _date_columns(X):
    """Return the names of the columns of a pandas data frame that hold dates or durations."""
    if not (hasattr(X, "iloc") and hasattr(X, "columns")):
        return []
    return [name for name, dtype in zip(X.columns, X.dtypes) if getattr(dtype, "kind", "f") in "mM"]


def text_columns(X) -> list:
    """Return the names, or else the positions, of the columns of X with a cell that is a string and no number."""
    names = getattr(X, "columns", None)
    try:
        cells = np.asarray(X, dtype=object)
    except ValueError:
        return []
    if cells.ndim != 2:
        return []
    names = range(cells.shape[1]) if names is None else names
    return [name for name, column in zip(names, cells.T) if any(map(_is_text, column))]


def _is_text(value):
    """Return whether a cell is a string that is no number."""
    if not isinstance(value, str | bytes):
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
    X = _here(X)
    remote = on_cluster(X)
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
    with explained(head, y):
        y = check_y(_here(y, "y"), estimator=estimator, **kept)
        return X, _as_numbers(y) if kept.get("y_numeric") else y


def check_fit_pairs(estimator, X, y, **kwargs) -> Any:
    """Validate features X, and that there are as many responses y, which may be of any form.

    At least two rows are needed. X comes back as from :func:`check_fit_rows`.
    """
    if y is None:
        check_fit_data(estimator, X, None, ensure_min_samples=2, **kwargs)  # which raises
    X = check_fit_rows(estimator, X, ensure_min_samples=2, **kwargs)
    check_consistent_length(X, y)
    return X


def check_new_data(estimator, X, *, method: str, like: str | None = None, **kwargs) -> Any:
    """Validate what a fitted method was given; call it first, before any fitted attribute is read.

    `like` names the fitted attribute whose array library and device X has to share; None for methods that take
    identifiers rather than numbers.
    """
    check_is_fitted(estimator)
    X = _here(X)
    if like is not None:
        check_same_namespace(X, estimator, attribute=like, method=method)
    return _validate(estimator, X, reset=False, **{"dtype": _floats(X), **kwargs})


def is_integer(value: Any, least: int = 1) -> bool:
    """Return whether a value is an integer of at least `least`; a bool is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def check_count(value: Any, name: str, method: str) -> int:
    """Return a number of rows or draws that a method was given, as scikit-learn checks parameters.

    Raises
    ------
    InvalidParameterError
        If it is no integer of at least 1.
    """
    if not is_integer(value):
        raise InvalidParameterError(
            f"The {name!r} parameter of {method} must be an int in the range [1, inf). Got {value!r} instead."
        )
    return int(value)


def on_host(y):
    """Return targets as they are, but tensors and arrays of other libraries as numpy's."""
    check_place(y, "y")
    if isinstance(y, torch.Tensor):
        return y.detach().cpu().numpy()
    return move_to(y, xp=np, device="cpu") if hasattr(y, "__array_namespace__") else y


def _here(array, name="X"):
    """Refuse a tensor that scikit-learn could only fail on, with the cure; gradients are not followed."""
    check_place(array, name)
    if not isinstance(array, torch.Tensor):
        return array
    if array.device.type != "cpu" and not get_config()["array_api_dispatch"]:
        raise TypeError(
            f"{name} is a tensor on {array.device}. Pass {name}.cpu(), or enable array_api_dispatch with "
            "sklearn.set_config(array_api_dispatch=True) to compute where it is."
        )
    return array.detach()


def _floats(X):
    xp, _ = get_namespace(X)
    return [xp.float64, xp.float32]
