"""The fitted model as a value: solvers return it, here it becomes attributes of the estimator, and back.

A fit is ``options -> problem -> model -> keep``, and a method begins with ``recall``. A model is a NamedTuple of
tensors, CSR matrices, numbers, strings, None, lists of these, and other models. What it has in common with the public
attributes is stored once: a field is read from the attribute of its name with an underscore behind it, such as `means`
from `means_`. The rest is stored in the dict `_fitted`, as numpy arrays, so that a fit on a GPU loads where there is
none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from scipy.sparse import csr_array, issparse

Model = TypeVar("Model", bound=tuple)

_OF_VALIDATION = ("n_features_in_", "feature_names_in_")  # set by scikit-learn's validation, before the fit ends
_STORE = "_fitted"
_CSR_PARTS = ("data", "indices", "indptr", "shape")  # by which a CSR matrix is stored


def options(estimator, cls: type[Model], **resolved) -> Model:
    """Return the parameters that a solver reads, as a NamedTuple; `resolved` replaces values such as "auto".

    A field that is no parameter of the estimator has its default.
    """
    defaults = cls._field_defaults  # type: ignore[attr-defined]
    names = cls._fields  # type: ignore[attr-defined]
    return cls(**{name: resolved.get(name, getattr(estimator, name, defaults.get(name))) for name in names})


def fitted_attributes(ws, *models: tuple | None, **attributes) -> dict[str, Any]:
    """Return what a fit sets: public `attributes`, tensors of them in the user's library, and the rest of the models.

    Fields of models that are None and attributes that are None are set all the same.
    """
    found = {name: _public(value, ws) for name, value in attributes.items()}
    for model in models:
        if model is not None:
            fields = model._asdict().items()  # type: ignore[attr-defined]
            stored = {name: _stored(value) for name, value in fields if f"{name}_" not in attributes}
            found[_STORE] = {**found.get(_STORE, {}), **stored}
    return found


def keep(estimator, ws, *models: tuple | None, **attributes):
    """Replace all fitted attributes of an estimator at once, and return it; those of a former fit vanish.

    Parameters
    ----------
    estimator : estimator
        What is fitted.
    ws : Workspace
        Says in which library arrays are given back.
    *models : NamedTuple or None
        What :func:`recall` shall return: one model, or several of which no field has the same name. Fields that an
        attribute holds are not stored twice.
    **attributes : object
        Public fitted attributes, tensors or anything else.
    """
    former = fitted_names(estimator)
    found = fitted_attributes(ws, *models, **attributes)  # before anything is dropped: it can fail
    for name in former:
        del vars(estimator)[name]
    vars(estimator).update(found)
    return estimator


def replace_attributes(estimator, attributes: dict[str, Any]):
    """Set fitted attributes, drop all others that a former fit has set, and return the estimator."""
    for name in fitted_names(estimator):
        del vars(estimator)[name]
    vars(estimator).update(attributes)
    return estimator


def update_attributes(estimator, attributes: dict[str, Any]):
    """Set fitted attributes, let the others stay, and return the estimator."""
    vars(estimator).update(attributes)
    return estimator


def forget_columns(estimator) -> None:
    """Drop what validation has noted of the columns of a table, before a fit to objects that have none."""
    for name in _OF_VALIDATION:
        vars(estimator).pop(name, None)


def fitted_names(estimator) -> list[str]:
    """Return the names of what a fit has set, but for those that validation sets before a fit ends."""
    return [name for name in vars(estimator) if is_fitted_name(name) and name not in _OF_VALIDATION]


def public_attributes(estimator) -> dict[str, Any]:
    """Return the public fitted attributes; an update of a fit gives those that stay to :func:`keep` again."""
    names = [name for name in vars(estimator) if is_fitted_name(name) and name not in (_STORE, *_OF_VALIDATION)]
    return {name: getattr(estimator, name) for name in names}


def is_fitted_name(name: str) -> bool:
    """Return whether an attribute belongs to a fit."""
    return name == _STORE or (name.endswith("_") and not name.startswith("_"))


def recall(estimator, cls: type[Model], ws) -> Model:
    """Return the model that :func:`keep` has stored, with tensors on the device of the workspace.

    Floating values come in its precision: pass ``ws.exact()`` for float64.
    """
    stored, types = vars(estimator).get(_STORE, {}), get_type_hints(cls)
    names = cls._fields  # type: ignore[attr-defined]
    values = (stored[name] if name in stored else getattr(estimator, f"{name}_") for name in names)
    return cls(*(_loaded(value, types[name], ws) for name, value in zip(names, values)))


def fitted_matrix(name: str) -> property:
    """Return a property that reads a CSR matrix of the stored model, its field `name`."""

    def read(self) -> csr_array:
        stored = vars(self).get(_STORE, {}).get(name)
        if stored is None:
            raise AttributeError(
                f"This {type(self).__name__} has no {name}_: it is not fitted, or its parameters make none."
            )
        return _matrix(stored)

    return property(read)


@contextmanager
def unchanged_on_error(estimator) -> Iterator[None]:
    """Put all attributes back as they were where the block fails or is interrupted."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _public(value, ws):
    """Return a value for the user: tensors in the user's library, also those in lists and dicts."""
    if isinstance(value, torch.Tensor):
        return ws.store(value)
    if isinstance(value, dict):
        return {name: _public(part, ws) for name, part in value.items()}
    if isinstance(value, list):
        return type(value)(_public(part, ws) for part in value)  # which may be a kind of list
    return value


def _stored(value):
    """Return a value of plain types: arrays for tensors, dicts for models, lists for sequences."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy().copy()
    if issparse(value):
        return {"data": value.data, "indices": value.indices, "indptr": value.indptr, "shape": list(value.shape)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: _stored(part) for name, part in zip(value._fields, value)}
    if isinstance(value, dict):
        return {name: _stored(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_stored(part) for part in value]
    return value


def _matrix(parts) -> csr_array:
    """Return the CSR matrix of its stored parts."""
    data, indices, indptr, shape = (parts[name] for name in _CSR_PARTS)
    return csr_array((data, indices, indptr), shape=tuple(shape))


def _loaded(value, kind, ws):
    """Return a stored value as the type that the model's field is annotated with."""
    if isinstance(value, dict) and tuple(value) == _CSR_PARTS:
        return _matrix(value)
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        kind = next((k for k in get_args(kind) if k is not NoneType), Any)
    if hasattr(kind, "_fields"):
        types = get_type_hints(kind)
        return kind(*(_loaded(value[name], types[name], ws) for name in kind._fields))
    if isinstance(value, list | tuple):
        inner = next(iter(get_args(kind)), Any)
        return (tuple if get_origin(kind) is tuple else list)(_loaded(part, inner, ws) for part in value)
    if isinstance(value, dict):
        inner = next(iter(get_args(kind)[1:]), Any)
        return {name: _loaded(part, inner, ws) for name, part in value.items()}
    is_array = isinstance(value, np.ndarray | torch.Tensor) or hasattr(value, "__array_namespace__")
    return ws.load(value) if is_array and kind is not np.ndarray else value
