"""Multiparameter persistence vectors: components and loops of shapes as two functions vary together."""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import forget_columns, keep, options, recall
from .._core.validation import check_fit_data, check_new_data
from .._core.workspace import open_workspace
from .._core.modes import in_plain_modes
from ._filtrations import ScaleOptions, fit_scales, in_box, over_blocks
from ._multiparameter_persistence_solver import LineOptions, bytes_of_lines, line_vectors
from ._objects import ObjectOptions, kind_of, read_objects


class MultiparameterPersistence(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """doc"""

    _parameter_constraints = {
        "degrees": [tuple, list],
        "kind": [StrOptions({"auto", "cloud", "graph", "series"})],
        "second": [StrOptions({"codensity", "eccentricity", "column"}), callable],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "max_edge": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "max_points": [Interval(Integral, 1, None, closed="left")],
        "resolution": [tuple, list],
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "weight_power": [Interval(Real, 0, None, closed="left")],
        "delay": [Interval(Integral, 1, None, closed="left")],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "backend": [StrOptions({"auto", "native", "gudhi"})],
        "device": [str],
    }

    # Set by fit
    box_: np.ndarray
    bandwidth_: float | None
    max_edge_: float
    kind_: str
    n_features_out_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        degrees: tuple[int, ...] = (0, 1),
        *,
        kind: Literal["auto", "cloud", "graph", "series"] = "auto",
        second: Literal["codensity", "eccentricity", "column"] | Callable[..., Any] = "codensity",
        bandwidth: float | Literal["auto"] = "auto",
        max_edge: float | Literal["auto"] = "auto",
        max_points: int = 100,
        resolution: tuple[int, int] = (15, 16),
        sigma: float = 0.08,
        weight_power: float = 1.0,
        delay: int = 1,
        embedding_dim: int = 3,
        backend: Literal["auto", "native", "gudhi"] = "auto",
        device: str = "auto",
    ):
        self.degrees = degrees
        self.kind = kind
        self.second = second
        self.bandwidth = bandwidth
        self.max_edge = max_edge
        self.max_points = max_points
        self.resolution = resolution
        self.sigma = sigma
        self.weight_power = weight_power
        self.delay = delay
        self.embedding_dim = embedding_dim
        self.backend = backend
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Find the box, and the bandwidth."""
        kind = kind_of(X, self.kind)
        _check_parameters(self.degrees, self.resolution, self.second, kind)
        if kind == "series":
            X = check_fit_data(self, X)
        else:
            forget_columns(self)
        ws = _workspace(X, self.device)
        objects = read_objects(X, options(self, ObjectOptions, kind=kind))
        n_dims = None if kind == "graph" else objects[0].n_dims
        model = PersistenceModel(kind, n_dims, *fit_scales(objects, options(self, ScaleOptions), ws))
        size = len(self.degrees) * self.resolution[0] * self.resolution[1]
        public = {"kind_": kind, "box_": model.box, "bandwidth_": model.bandwidth, "max_edge_": model.max_edge}
        return keep(self, ws, model, **public, n_features_out_=size)

    @in_plain_modes
    def transform(self, X):
        """Return the vectors."""
        check_is_fitted(self)
        if self.kind_ == "series":
            X = check_new_data(self, X, method="transform", like="box_")
        else:
            kind_of(X, self.kind_)
        ws = _workspace(X, self.device)
        model = recall(self, PersistenceModel, ws.exact())
        objects = read_objects(X, options(self, ObjectOptions, kind=model.kind), model.n_dims)
        chosen = options(self, LineOptions)

        def vectors(place):
            found = in_box([objects[k] for k in place], self.second, model, ws)
            return place, line_vectors(found, chosen).flatten(1)

        answer = torch.empty((len(objects), self.n_features_out_), dtype=torch.float64, device=ws.device)
        for place, part in over_blocks(objects, vectors, partial(bytes_of_lines, self.resolution[0])):
            answer[torch.from_numpy(place).to(ws.device)] = part
        return ws.answer(answer)

    @property
    def _n_features_out(self):
        return self.n_features_out_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.array_api_support = True
        return tags


class PersistenceModel(NamedTuple):
    """What `transform` needs of a fit."""

    kind: str
    n_dims: int | None  # None for graphs
    box: torch.Tensor
    bandwidth: float | None
    max_edge: float


def _workspace(X, device):
    """Return the workspace of one array, or of a list of objects, which is answered by an array of numpy."""
    array = X if hasattr(X, "shape") and str(X.dtype) != "object" else np.empty(0)
    return open_workspace(array, device=device)


def _check_parameters(degrees, resolution, second, kind):
    """Refuse tuples that are none of those that the docstring names, and second values that a kind does not have."""
    if not degrees or not {*degrees} <= {0, 1} or len({*degrees}) < len(degrees):
        raise ValueError(f"degrees={degrees!r} should be a tuple of 0 and 1 without repeats, such as (0, 1).")
    if len(resolution) != 2 or not all(isinstance(k, Integral) and k >= 1 for k in resolution):
        raise ValueError(f"resolution={resolution!r} should be a pair of integers of at least 1: lines and times.")
    if second == "column" and kind == "series" or second in ("column", "eccentricity") and kind == "graph":
        raise ValueError(f"second={second!r} is not for kind={kind!r}. Pass 'codensity' or a function.")
