"""What an alignment is given: two shapes and what is known of them, checked."""

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_array

from .._core.compat import get_namespace
from .._core.validation import on_host
from .._core.warn import warn
from .._core.workspace import check_place

_UNLIKE = 1e6  # ratio of sizes above which places in one frame mean nothing


class Shape(NamedTuple):
    """The distinct rows of a cloud or mesh."""

    points: torch.Tensor  # (n, D), centred and scaled
    centre: torch.Tensor
    scale: torch.Tensor
    first: torch.Tensor  # (n,), where they are among the rows that were given
    place: torch.Tensor  # for each row that was given which distinct one it equals
    triangles: torch.Tensor | None


class Inputs(NamedTuple):
    """Triangles, landmarks and partners that the user has given, as indices of rows."""

    triangles: np.ndarray | None = None
    target_triangles: np.ndarray | None = None
    landmarks: tuple[Any, Any] | None = None
    partners: Any = None


def check_target(X_target) -> Any:
    """Return the target as an array; its columns are free, and it may be of another library than X."""
    check_place(X_target, "X_target")
    xp, _ = get_namespace(X_target)
    if isinstance(X_target, torch.Tensor):
        X_target = X_target.detach()
    try:
        return check_array(X_target, dtype=[xp.float64, xp.float32], input_name="X_target")
    except ValueError as error:
        raise ValueError(_without_cells(str(error))) from None


def _without_cells(text):
    """Return what validation found of the target, in words that name it and show none of its values."""
    if text.startswith("Complex data not supported"):
        return "Complex data not supported: X_target. Pass real and imaginary parts as columns."
    if text.startswith("could not convert string") or "array of bytes/strings" in text:
        return "X_target has text in it. Pass numbers: encode these columns, or leave them out."
    if "array=" in text:
        return "X_target is no table of rows and columns. Pass an array of shape (n_target, n_target_features)."
    return text


def check_columns(names, X_target) -> None:
    """Refuse a data frame that has the columns of X in another order: places are compared column by column."""
    others = [*getattr(X_target, "columns", [])]
    if names is not None and others != [*names] and sorted(map(str, others)) == sorted(names):
        raise ValueError(
            "X_target has the columns of X in another order. Pass X_target[X.columns], so that columns of one name "
            "are compared."
        )


def check_inputs(X, X_target, *, init, landmarks, faces, target_faces) -> Inputs:
    """Check what ties parameters to the rows, and return it."""
    n, m = X.shape[0], X_target.shape[0]
    if target_faces is not None and X_target is X:
        raise ValueError("target_faces are triangles of X_target, which is not given. Pass X_target, or only faces.")
    if landmarks is not None and not (isinstance(init, str) and init == "landmarks"):
        warn("landmarks are used by init='landmarks' alone. Pass it, or landmarks=None.", UserWarning)
    by_place = isinstance(init, str) and init != "landmarks"
    if by_place and X.shape[1] != X_target.shape[1]:
        raise ValueError(
            f"X_target has {X_target.shape[1]} columns and X {X.shape[1]}: init={init!r} compares places in one space. "
            "Pass init='landmarks' with pairs of rows that are known, or the index of a row of X for each row of "
            "X_target as init."
        )
    if isinstance(init, str) and init == "landmarks" and landmarks is None:
        raise ValueError("init='landmarks' needs landmarks=(rows of X, rows of X_target), partners of one another.")
    return Inputs(
        None if faces is None else _triangles("faces", faces, n),
        None if target_faces is None else _triangles("target_faces", target_faces, m),
        _landmarks(landmarks, n, m) if isinstance(init, str) and init == "landmarks" else None,
        None if isinstance(init, str) else _start(init, n, m),
    )


def _triangles(name, faces, n):
    faces = _indices(name, faces, n)
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
        raise ValueError(f"{name} has the shape {faces.shape}. Pass triangles, three indices of rows each.")
    return faces


def _landmarks(landmarks, n, m):
    if len(landmarks) != 2:
        raise ValueError(f"landmarks has {len(landmarks)} parts. Pass two: rows of X, and of X_target.")
    source, target = (_indices("landmarks", rows, size) for rows, size in zip(landmarks, (n, m)))
    if source.ndim != 1 or source.shape != target.shape or not len(source):
        raise ValueError(
            f"landmarks has rows of X of shape {source.shape} and rows of X_target of shape {target.shape}. Pass as "
            "many of both."
        )
    return source, target


def _start(init, n, m):
    partners = _indices("init", init, n)
    if partners.shape != (m,):
        raise ValueError(
            f"init has the shape {partners.shape}. Pass one row of X for each of the {m} rows of X_target."
        )
    return partners


def _indices(name, values, n):
    """Return indices of rows as an array of integers."""
    values = np.asarray(on_host(values))
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} has values of type {values.dtype}. Pass indices of rows, which are integers.")
    if values.size and (values.min() < 0 or values.max() >= n):
        wrong = values.min() if values.min() < 0 else values.max()
        raise ValueError(f"{name} has the index {wrong}, but there are {n} rows. Pass indices from 0 to {n - 1}.")
    return values.astype(np.int64)


def check_truth(y, n_rows, n_target) -> np.ndarray:
    """Return the true partners that a score is computed with."""
    truth = _indices("y", y, n_target)
    if truth.shape != (n_rows,):
        raise ValueError(f"y has the shape {truth.shape}. Pass one row of X_target for each of the {n_rows} rows of X.")
    return truth


def two_shapes(X: torch.Tensor, X_target: torch.Tensor | None, inputs: Inputs) -> tuple[Shape, Shape, Inputs]:
    """Return the distinct rows of source and target, in one frame where they are of one space, and inputs for them.

    Shapes of which one is more than `_UNLIKE` times as large as the other have frames of their own: in one frame the
    smaller would be rounded to a point. Without a target it is the source itself.
    """
    source = target = _shape(X, inputs.triangles, *_frame(X))
    if X_target is not None:
        frame = _frame(X_target)
        if X.shape[1] == X_target.shape[1] and 1 / _UNLIKE <= frame[1] / source.scale <= _UNLIKE:
            frame = source.centre, source.scale
        target = _shape(X_target, inputs.target_triangles, *frame)
    landmarks, partners = inputs.landmarks, inputs.partners

    def rows(shape, indices):
        return shape.place[torch.from_numpy(indices).to(shape.place.device)]

    if landmarks is not None:
        landmarks = rows(source, landmarks[0]), rows(target, landmarks[1])
    if partners is not None:
        partners = rows(source, partners)[target.first]
    return source, target, inputs._replace(landmarks=landmarks, partners=partners)


def _frame(X):
    """Return the middle of the rows, and the largest distance of an entry from it."""
    low, high = X.amin(0), X.amax(0)
    centre = low / 2 + high / 2
    scale = (high / 2 - low / 2).amax()
    return centre, torch.where(scale > 0, scale, 1.0)


def _shape(X, triangles, centre, scale):
    rows, place = torch.unique(X, dim=0, return_inverse=True)
    order = torch.arange(len(X), device=X.device)
    first = torch.full_like(place[: len(rows)], len(X)).scatter_reduce(0, place, order, "amin")
    if triangles is not None:
        triangles = place[torch.from_numpy(triangles).to(place.device)]
    return Shape((rows - centre) / scale, centre, scale, first, place, triangles)
