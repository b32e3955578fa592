"""Lists of clouds, graphs and series, read as points or edges with a value at each vertex."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array, issparse

from .._core.validation import on_host
from .._math.neighbors import farthest_points


class ObjectOptions(NamedTuple):
    """How objects are read."""

    kind: str  # "cloud", "graph" or "series"
    second: str | Callable[..., Any]
    max_points: int
    delay: int
    embedding_dim: int


class Cloud(NamedTuple):
    """Points of which the first are the vertices, and measured values of these."""

    points: np.ndarray  # (n_points, n_dims)
    n_vertices: int
    values: np.ndarray | None  # (n_vertices,), None where they follow from the distances

    @property
    def n_points(self) -> int:
        """Return the number of points."""
        return len(self.points)

    @property
    def n_dims(self) -> int:
        """Return the number of dimensions of the points."""
        return self.points.shape[1]


class Graph(NamedTuple):
    """Edges and values of the vertices."""

    ends: np.ndarray  # (2, n_edges)
    lengths: np.ndarray  # (n_edges,)
    n_vertices: int
    values: np.ndarray

    @property
    def n_points(self) -> int:
        """Return the number of vertices."""
        return self.n_vertices


Objects = list[Cloud] | list[Graph]


def kind_of(X, kind: str) -> str:
    """Return of which kind the objects in X are, where `kind` is "auto"."""
    if issparse(X):
        raise TypeError(
            "X is one sparse matrix. Pass a list of adjacency matrices, such as [X], or rows of series as X.toarray()."
        )
    if not isinstance(X, list | tuple) and not hasattr(X, "shape") and not hasattr(X, "__array__"):
        raise TypeError(f"X is a {type(X).__name__}. Pass a list of clouds or graphs, or a table of series.")
    if kind != "auto":
        return kind
    if _is_list(X):
        if len(X) == 0:
            raise ValueError("X is an empty list. Pass at least one cloud or graph.")
        first = next(iter(X))
        if issparse(first):
            return "graph"
        if _n_dims(first) != 2:
            _check_lengths(X)
            return "series"
        return "cloud"
    return "cloud" if _n_dims(X) == 3 else "series"


def _check_lengths(series):
    """Refuse lists of series of which not all have the same number of steps, which make no table."""
    lengths = {len(steps) for steps in series if hasattr(steps, "__len__") and not isinstance(steps, str)}
    if len(lengths) > 1:
        raise ValueError(
            f"X is a list of series of {min(lengths)} to {max(lengths)} steps. Pass series of one length, or clouds: "
            "arrays of shape (n_points, n_dims), such as delay embeddings."
        )


def read_objects(X, chosen: ObjectOptions, n_dims: int | None = None) -> Objects:
    """Return the objects in X, checked; series come as an array that is.

    Clouds need to have points in `n_dims` dimensions; None takes the number of the first.

    Raises
    ------
    ValueError
        If an object is not of the kind, which the error names by its number.
    """
    if chosen.kind == "series":
        return [_cloud(windows, number, chosen) for number, windows in enumerate(_windows(on_host(X), chosen))]
    if not (_is_list(X) or _n_dims(X) == 3) or len(X) == 0:
        shape = f"of shape {tuple(X.shape)}" if hasattr(X, "shape") else f"of length {len(X)}"
        raise ValueError(
            f"X {shape} is no list of {chosen.kind}s. Pass a list with at least one object, or kind='series' for rows."
        )
    if chosen.kind == "graph":
        return [_graph(matrix, number, chosen) for number, matrix in enumerate(X)]
    clouds = [_table(points, number) for number, points in enumerate(X)]
    measured = int(chosen.second == "column")
    n_columns = clouds[0].shape[1] if n_dims is None else n_dims + measured
    if n_columns <= measured:
        raise ValueError(
            f"Clouds have {n_columns} columns, but second={chosen.second!r} needs at least {measured + 1}: coordinates"
            + (", and the measured value. Pass second='codensity' if nothing is measured." if measured else ".")
        )
    for number, points in enumerate(clouds):
        if points.shape[1] != n_columns:
            raise ValueError(f"Cloud {number} has {points.shape[1]} columns where {n_columns} are expected.")
    return [_cloud(points, number, chosen) for number, points in enumerate(clouds)]


def _is_list(X):
    """Return whether X is a list of objects, or an array of objects in one dimension."""
    return isinstance(X, list | tuple) or (_n_dims(X) == 1 and str(getattr(X, "dtype", "")) == "object")


def _n_dims(X):
    """Return the number of dimensions of an array, tensor, data frame or nested list."""
    return len(X.shape) if hasattr(X, "shape") else np.asarray(X).ndim


# One object


def _windows(rows, chosen):
    """Return delay embeddings of series, (n_series, n_windows, n_dims); in one dimension where they are short."""
    span = (chosen.embedding_dim - 1) * chosen.delay
    rows = rows.astype(np.float64)
    if rows.shape[1] < span + 2:
        return rows[:, :, None]
    return np.lib.stride_tricks.sliding_window_view(rows, span + 1, axis=1)[:, :, :: chosen.delay]


def _table(points, number):
    """Return the points of a cloud as a table of float64."""
    points = np.asarray(on_host(points.double() if isinstance(points, torch.Tensor) else points))
    if np.iscomplexobj(points):
        raise ValueError(f"Complex data not supported: object {number} of X. Pass real and imaginary parts as columns.")
    try:
        points = points.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Cloud {number} has entries that are no numbers. Encode text, and impute missing values."
        ) from error
    if points.ndim != 2 or points.shape[0] == 0:
        raise ValueError(f"Cloud {number} has shape {points.shape}. Pass (n_points, n_dims), with at least one point.")
    if not np.isfinite(points).all():
        raise ValueError(f"Cloud {number} contains NaN or infinity. Remove these points, or impute them.")
    return points


def _cloud(points, number, chosen):
    """Return a cloud with vertices far from one another in front, where it has too many points."""
    values = None
    if chosen.second == "column":
        points, values = points[:, :-1], points[:, -1]
    elif callable(chosen.second):
        values = _called(chosen.second, points, len(points), f"cloud {number}")
    k = min(len(points), chosen.max_points)
    if k < len(points):
        keys = points if values is None else np.column_stack([values, points])
        order = np.lexsort(keys.T)  # ties between distances do not depend on the order of the points
        points, values = points[order], None if values is None else values[order]
        front = _spread(points, k)
        points = np.concatenate([points[front], np.delete(points, front, axis=0)])
        values = None if values is None else values[front]
    return Cloud(points, k, values)


def _spread(points, n_points):
    """Return the indices of points that are far from one another, from the one farthest from the centroid."""
    unit = np.abs(points).max()
    at = torch.from_numpy(points / (unit if unit > 0 else 1.0))
    first = (at - at.mean(0)).square().sum(1).argmax()
    return farthest_points(at, n_points, int(first)).numpy()


def _called(second, thing, n_vertices, name):
    """Return the values that a function gives the vertices of an object."""
    values = np.asarray(on_host(second(thing)))
    if values.dtype.kind not in "biuf":
        raise ValueError(f"second returned values of type {values.dtype} for {name}. It should return numbers.")
    values = values.astype(np.float64)
    if values.shape != (n_vertices,) or not np.isfinite(values).all():
        raise ValueError(
            f"second returned values of shape {values.shape} for {name}. It should return {n_vertices} finite values, "
            "one for each vertex."
        )
    return values


def _graph(matrix, number, chosen):
    """Return the edges of an adjacency matrix."""
    edges = coo_array(matrix if issparse(matrix) else _table(matrix, number))
    if edges.shape[0] != edges.shape[1] or edges.shape[0] == 0:
        raise ValueError(f"Graph {number} has an adjacency matrix of shape {edges.shape}, which should be square.")
    if np.iscomplexobj(edges.data):
        raise ValueError(f"Complex data not supported: object {number} of X. Pass an adjacency matrix of lengths.")
    edges.sum_duplicates()
    (i, j), lengths = edges.coords, edges.data.astype(np.float64)
    if not np.isfinite(lengths).all() or (lengths < 0).any():
        raise ValueError(f"Graph {number} has lengths of edges that are negative, NaN or infinite.")
    n = edges.shape[0]
    there, back = i * np.int64(n) + j, j * np.int64(n) + i
    forth, turned = np.argsort(there), np.argsort(back)
    if not np.array_equal(there[forth], back[turned]) or not np.allclose(lengths[forth], lengths[turned], atol=0):
        raise ValueError(f"Graph {number} has an asymmetric adjacency matrix. Pass (A + A.T) / 2.")
    if callable(chosen.second):
        values = _called(chosen.second, matrix, n, f"graph {number}")
    else:
        values = -np.bincount(i, weights=lengths, minlength=n)
    above = i < j
    return Graph(np.stack([i[above], j[above]]), lengths[above], n, values)
