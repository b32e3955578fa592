"""Distances between responses: numbers, classes, distributions, matrices, directions, or anything with a function.

Each space is three steps: :func:`form_of` decides once, in `fit`, what samples of any size are brought to;
:func:`points_of` checks responses and turns them into points; :func:`distances` compares points with points. Points are
float64 tensors, or numpy arrays where there is nothing to compute with (labels, objects of the user's own function).
"""

from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.utils import check_array

from .._core.validation import on_host

TIE = 1e-11  # relative difference up to which two distances are equal but for rounding
_N_QUANTILES = 100  # of samples of unequal sizes
_N_DIRECTIONS = 50  # along which distributions of vectors are compared
_SQUARED = 1e-100, 1e100  # between these, squares neither vanish nor overflow
_UNIT = 1e-6  # how far a row may be from the sphere, a matrix from its transpose
NAMES = (
    *("euclidean", "discrete", "wasserstein", "spd", "spd_log", "spd_cholesky", "spd_affine", "sphere", "frobenius"),
    *("manhattan", "cityblock", "chebyshev", "canberra", "braycurtis", "cosine", "correlation", "sqeuclidean"),
    "precomputed",
)


def resolve_metric(metric, y):
    """Return the name of a metric, or the user's function: "auto" is for labels and for numbers."""
    if not isinstance(metric, str) or metric not in ("auto", "spd"):
        return metric
    if metric == "spd":
        return "spd_log"
    try:
        values = np.asarray(y)
    except ValueError as error:
        raise ValueError(
            "Rows of y have unequal lengths. For samples of distributions pass metric='wasserstein'."
        ) from error
    labels = values.dtype.kind in "SUb" or str(getattr(y, "dtype", "")) == "category"
    labels = labels or (values.dtype.kind == "O" and any(isinstance(value, str) for value in values.flat))
    return "discrete" if labels else "euclidean"


def form_of(y, metric, weight=None) -> dict[str, Any]:
    """Return the form of responses y that :func:`points_of` needs to bring others to, as arrays and numbers.

    For distributions it is that of the rows of positive weight, for given distances their number; else it is empty.
    """
    if metric == "precomputed":
        return {"n_objects": _given_distances(y).shape[1]}
    if metric != "wasserstein":
        return {}
    samples = _samples(y)
    weight = np.ones(len(samples)) if weight is None else np.asarray(weight)
    kept = np.flatnonzero(weight > 0)
    sizes = {len(samples[row]) for row in kept}
    q = samples[kept[0]].shape[1]
    return {
        "size": sizes.pop() if len(sizes) == 1 else _N_QUANTILES,
        "directions": _directions([samples[row] for row in kept], weight[kept]) if q > 1 else np.ones((1, 1)),
    }


def points_of(y, metric, form: dict[str, Any] | None = None):
    """Check responses y, whose first axis is rows, and return them as points of the space.

    `form` is that of the responses they are compared with; by default their own.

    Raises
    ------
    ValueError
        If a response is not in the space; the message names its row.
    """
    if callable(metric):
        return as_objects(y)
    if metric == "discrete":
        return _labels(y)
    if metric == "wasserstein":
        return _tensor(_quantiles(_samples(y), form or form_of(y, metric)))
    if metric == "precomputed":
        D = _given_distances(y)
        if form and D.shape[1] != form["n_objects"]:
            raise ValueError(
                f"y has distances to {D.shape[1]} objects, but fit has seen those to {form['n_objects']}. Pass the "
                "distances of each row to the same objects, in the same order."
            )
        return _tensor(D)
    if metric in ("spd_log", "spd_cholesky", "spd_affine"):
        S = _positive_definite(y, metric)
        return S if metric == "spd_affine" else _LOGARITHMS[metric](S)
    rows = _tensor(_numeric(y, metric))
    if metric == "sphere":
        off = (torch.linalg.vector_norm(rows, dim=1) - 1).abs()
        if float(off.amax()) > _UNIT:
            row = int(off.argmax())
            raise ValueError(
                f"metric='sphere' needs rows of length 1, but row {row} of y has length "
                f"{float(torch.linalg.vector_norm(rows[row])):.6g}. Divide each row by its length."
            )
    if metric in ("cosine", "correlation"):
        return _unit_rows(rows, metric)
    return rows


def distances(points, centres, metric):
    """Return the distances (n, m) of points from centres, a float64 tensor.

    With precomputed distances `centres` are the columns. A distance does not depend on the other rows.
    """
    if callable(metric):
        return torch.tensor([[float(metric(a, b)) for b in centres] for a in points], dtype=torch.float64, device="cpu")
    if metric == "discrete":
        return torch.from_numpy((points[:, None] != centres[None, :]).astype(np.float64))
    if metric == "precomputed":
        return points[:, centres]
    if metric == "spd_affine":
        return _affine(points, centres)
    if metric == "sphere":  # by chords, which are accurate where points are near
        return 2 * torch.arcsin((_euclidean(points, centres) / 2).clamp(max=1))
    if metric in ("euclidean", "wasserstein", "spd_log", "spd_cholesky", "frobenius"):
        return _euclidean(points, centres)
    name = "cityblock" if metric == "manhattan" else metric
    return torch.from_numpy(cdist(points.cpu().numpy(), centres.cpu().numpy(), name)).to(points.device)


def distances_from_mean(points: torch.Tensor, weight: np.ndarray, metric: str) -> torch.Tensor:
    """Return the distances (n,) of points from a weighted mean that moves with the isometries of the space.

    On the sphere they are straight through space. Matrices have the geometric mean of the arithmetic and the harmonic
    mean, which inversion keeps.
    """
    share = torch.from_numpy(weight / weight.sum()).to(points.device)
    mean = torch.tensordot(share, points, dims=1)
    if metric == "spd_affine":
        L = torch.linalg.cholesky(mean)
        precision = L.T @ torch.tensordot(share, torch.linalg.inv(points), dims=1) @ L
        e, V = torch.linalg.eigh((precision + precision.T) / 2)
        mean = L @ (V * e.rsqrt()) @ V.T @ L.T
        mean = (mean + mean.T) / 2
    return distances(points, mean[None], "euclidean" if metric == "sphere" else metric)[:, 0]


def as_objects(y) -> np.ndarray:
    """Return responses as an array whose first axis is rows; arrays of unequal shapes as an array of objects."""
    try:
        return np.asarray(y)
    except ValueError:
        objects = np.empty(len(y), dtype=object)
        for row, value in enumerate(y):
            objects[row] = np.asarray(on_host(value)) if np.ndim(value) else value
        return objects


def _euclidean(points, centres):
    """Return Euclidean distances; products would lose the ties between equal ones, squares what is large or small."""
    size = max((float(part.abs().amax()) for part in (points, centres) if part.numel()), default=0.0)
    unit = 1.0 if not size or _SQUARED[0] < size < _SQUARED[1] else 2.0 ** (np.frexp(size)[1] - 1)
    if unit != 1:
        return unit * torch.cdist(points / unit, centres / unit, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist")


# Into the space


def _tensor(array):
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # torch takes no reversed, no locked arrays


def _regular(y, metric):
    """Return y as an array of finite numbers whose first axis is rows."""
    if as_objects(y).dtype == object and len({np.shape(row) for row in y}) > 1:
        raise ValueError(
            f"metric={metric!r} needs responses of one shape, but rows of y have several. For samples of distributions "
            "pass metric='wasserstein'."
        )
    return check_array(y, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name="y")


def _numeric(y, metric):
    """Return y as rows of finite numbers; matrices are laid out in a row."""
    y = _regular(y, metric)
    if metric == "sphere" and y.ndim != 2:
        raise ValueError(f"metric='sphere' needs y of shape (n_samples, q), got {y.shape}.")
    return y.reshape(len(y), -1)


def _labels(y):
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"metric='discrete' needs y of shape (n_samples,), got {y.shape}.")
    missing = np.array([label is None or label != label for label in y.tolist()])  # NaN differs from itself
    if missing.any():
        raise ValueError(f"Row {int(missing.argmax())} of y has no label. Leave out rows whose label is missing.")
    return y.astype(str) if all(isinstance(label, str) for label in y.tolist()) else y


def _given_distances(y):
    D = check_array(y, dtype=np.float64, input_name="y")
    if D.shape[1] < 2:
        raise ValueError(f"metric='precomputed' needs distances to two objects at least, got y of shape {D.shape}.")
    if D.min() < 0:
        row = int(np.argmin(D.min(axis=1)))
        raise ValueError(f"metric='precomputed' needs distances of at least 0, but row {row} of y has {D.min():.3g}.")
    return D


def _unit_rows(rows, metric):
    """Return rows of length one, for "correlation" centred before: the distance does not see the rest."""
    if metric == "correlation":
        rows = rows - rows.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(rows, dim=1)
    if not bool((length > 0).all()):
        what = "zero" if metric == "cosine" else "constant"
        raise ValueError(f"metric={metric!r} is not defined for row {int(length.argmin())} of y, which is {what}.")
    return rows / length[:, None]


# Distributions


def _samples(y):
    """Return samples of distributions: an array (n, size, q), or a list of arrays (size, q) where sizes differ."""
    try:
        regular = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        samples = [_sample(sample, row) for row, sample in enumerate(y)]
    else:
        regular = check_array(regular, ensure_2d=False, allow_nd=True, input_name="y")
        if regular.ndim not in (2, 3):
            raise ValueError(
                "metric='wasserstein' needs y of shape (n_samples, sample size) or (n_samples, sample size, q), or a "
                f"list of samples, got {regular.shape}."
            )
        return regular.reshape(*regular.shape[:2], -1)
    other = [row for row, sample in enumerate(samples) if sample.shape[1] != samples[0].shape[1]]
    if other:
        raise ValueError(
            f"Row {other[0]} of y has samples of {samples[other[0]].shape[1]} numbers each, row 0 of "
            f"{samples[0].shape[1]}. metric='wasserstein' compares distributions in one space."
        )
    return np.stack(samples) if len({len(sample) for sample in samples}) == 1 else samples


def _sample(sample, row):
    try:
        sample = np.asarray(on_host(sample), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Row {row} of y is no sample of numbers or of vectors of one size: {error}") from error
    if sample.ndim not in (1, 2) or not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"Row {row} of y is empty, or has NaN or infinite samples, or is no array of vectors.")
    return sample.reshape(len(sample), -1)


def _directions(samples, weight):
    """Return directions (q, 50) along which samples of vectors are projected.

    They are fixed in the frame of the principal axes of all samples together, each pointing to the longer tail: where
    all samples are turned, so are the directions.
    """
    share, q = weight / weight.sum(), samples[0].shape[1]
    mean = sum(w * sample.mean(0) for w, sample in zip(share, samples))
    moments = sum(w * (sample - mean).T @ (sample - mean) / len(sample) for w, sample in zip(share, samples))
    axes = np.linalg.eigh(moments)[1][:, ::-1]
    tails = sum(w * (((sample - mean) @ axes) ** 3).mean(0) for w, sample in zip(share, samples))
    directions = np.random.default_rng(0).normal(size=(q, _N_DIRECTIONS))
    return (axes * np.where(tails < 0, -1.0, 1.0)) @ (directions / np.linalg.norm(directions, axis=0))


def _quantiles(samples, form):
    """Return distributions as vectors (n, r) whose Euclidean distance is the Wasserstein distance of order two.

    Samples of other sizes than that of the form are brought to it by interpolation between order statistics; samples of
    vectors are projected on the form's directions (sliced Wasserstein).
    """
    directions, size = form["directions"], form["size"]
    q = samples[0].shape[1]
    if q != len(directions):
        raise ValueError(
            f"Samples of {q} numbers each cannot be compared with those of {len(directions)} that fit has seen."
        )
    if isinstance(samples, np.ndarray):
        points = _resized(np.sort(_projected(samples, directions), axis=1), size)
    else:
        points = np.stack([_resized(np.sort(_projected(s[None], directions), axis=1), size)[0] for s in samples])
    return (points / (size * directions.shape[1]) ** 0.5).reshape(len(points), -1)


def _projected(samples, directions):
    return samples if len(directions) == 1 else samples @ directions


def _resized(ordered, size):
    """Return quantiles at the levels (k + 1/2) / size of ordered samples (n, m, r), which lie at (j + 1/2) / m."""
    m = ordered.shape[1]
    if m == size:
        return ordered
    at = ((np.arange(size) + 0.5) / size * m - 0.5).clip(0, m - 1)
    low = np.minimum(at.astype(np.int64), max(m - 2, 0))
    share = (at - low)[:, None]
    return (1 - share) * ordered[:, low] + share * ordered[:, np.minimum(low + 1, m - 1)]


# Matrices


def _positive_definite(y, metric):
    """Return symmetric positive definite matrices (n, k, k), which may be given laid out in rows."""
    y = _regular(y, metric)
    k = y.shape[-1] if y.ndim == 3 else round(y.shape[-1] ** 0.5)
    if y.ndim not in (2, 3) or y[0].size != k * k:
        raise ValueError(f"metric={metric!r} needs y of shape (n_samples, k, k) or (n_samples, k * k), got {y.shape}.")
    S = _tensor(y.reshape(-1, k, k))
    off, largest = (S - S.mT).abs().amax((1, 2)), S.abs().amax((1, 2))
    if bool((off > _UNIT * largest).any()):
        row = int((off > _UNIT * largest).nonzero()[0])
        raise ValueError(
            f"metric={metric!r} needs symmetric matrices, but row {row} of y differs from its transpose by "
            f"{float(off[row]):.3g}. Pass (S + S.T) / 2 if that is meant, or use metric='frobenius'."
        )
    S = (S + S.mT) / 2
    lowest = torch.linalg.eigvalsh(S)[:, 0]
    if float(lowest.amin()) <= 0:
        row = int(lowest.argmin())
        raise ValueError(
            f"metric={metric!r} needs positive definite matrices, but row {row} of y has the eigenvalue "
            f"{float(lowest[row]):.3g}. Add a small multiple of the identity, or use metric='frobenius'."
        )
    return S


def _logarithms(S):
    """Matrix logarithms, laid out in rows: their distance is that of Arsigny and others (log-Euclidean)."""
    e, V = torch.linalg.eigh(S)
    return ((V * e.log()[:, None, :]) @ V.mT).flatten(1)


def _cholesky_logarithms(S):
    """Cholesky factors with logarithms on the diagonal, laid out in rows (log-Cholesky)."""
    L = torch.linalg.cholesky(S)
    return (L.tril(-1) + torch.diag_embed(L.diagonal(dim1=1, dim2=2).log())).flatten(1)


_LOGARITHMS = {"spd_log": _logarithms, "spd_cholesky": _cholesky_logarithms}


def _affine(S, centres):
    """Affine-invariant distances: norms of the logarithms of the eigenvalues of C^-1 S, one centre at a time."""
    columns = []
    for C in centres:
        L = torch.linalg.cholesky(C)
        half = torch.linalg.solve_triangular(L, S, upper=False)
        M = torch.linalg.solve_triangular(L, half.mT, upper=False)
        e = torch.linalg.eigvalsh((M + M.mT) / 2)
        columns.append(torch.linalg.vector_norm(e.clamp(min=torch.finfo(e.dtype).tiny).log(), dim=1))
    return torch.stack(columns, 1)
