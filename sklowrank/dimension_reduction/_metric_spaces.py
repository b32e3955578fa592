"""Distances between responses: numbers, classes, distributions, matrices, directions, or anything with a function.

Each space is two steps: :func:`points_of` checks responses and turns them into points, once; :func:`distances` compares
points with points. Points are float64 tensors, or numpy arrays where there is nothing to compute with (labels, objects
of the user's own function).
"""

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.utils import check_array

_N_QUANTILES = 100  # of samples of unequal sizes
_N_DIRECTIONS = 50  # along which distributions of vectors are compared
_UNIT = 1e-6  # how far a row may be from the sphere
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


def points_of(y, metric):
    """Check responses y, whose first axis is rows, and return them as points of the space.

    Raises
    ------
    ValueError
        If a response is not in the space; the message names its row.
    """
    if callable(metric):
        return np.asarray(y)
    if metric == "discrete":
        return _labels(y)
    if metric == "wasserstein":
        return _tensor(_quantiles(y))
    if metric == "precomputed":
        return _tensor(_given_distances(y))
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
    return rows


def distances(points, centres, metric):
    """Return the distances (n, m) of points from centres, a float64 tensor.

    With precomputed distances `centres` are the columns.
    """
    if callable(metric):
        return torch.tensor([[float(metric(a, b)) for b in centres] for a in points], dtype=torch.float64, device="cpu")
    if metric == "discrete":
        return torch.from_numpy((points[:, None] != centres[None, :]).astype(np.float64))
    if metric == "precomputed":
        return points[:, centres]
    if metric == "spd_affine":
        return _affine(points, centres)
    if metric == "sphere":
        return torch.arccos((points @ centres.T).clamp(-1, 1))
    if metric in ("euclidean", "wasserstein", "spd_log", "spd_cholesky", "frobenius"):
        # Products would lose the ties between equal distances.
        return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist")
    name = "cityblock" if metric == "manhattan" else metric
    return torch.from_numpy(cdist(points.cpu().numpy(), centres.cpu().numpy(), name)).to(points.device)


# Into the space


def _tensor(array):
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # torch takes no reversed, no locked arrays


def _numeric(y, metric):
    """Return y as rows of finite numbers; matrices are laid out in a row."""
    y = check_array(y, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name="y")
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


def _quantiles(y):
    """Return distributions as vectors (n, q) whose Euclidean distance is the Wasserstein distance of order two.

    Samples of unequal sizes are brought to one by interpolation; samples of vectors are projected on fixed directions
    (sliced Wasserstein).
    """
    try:
        y = np.asarray(y, dtype=np.float64)
    except ValueError:  # ragged
        levels = (np.arange(_N_QUANTILES) + 0.5) / _N_QUANTILES
        samples = [np.asarray(sample, dtype=np.float64).ravel() for sample in y]
        for row, sample in enumerate(samples):
            if not len(sample) or not np.isfinite(sample).all():
                raise ValueError(f"Row {row} of y is empty, or has NaN or infinite samples.") from None
        y = np.array([np.quantile(sample, levels) for sample in samples])
    y = check_array(y, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name="y")
    if y.ndim not in (2, 3):
        raise ValueError(
            f"metric='wasserstein' needs y of shape (n_samples, sample size) or (n_samples, sample size, q), "
            f"got {y.shape}."
        )
    if y.ndim == 3:
        directions = np.random.default_rng(0).normal(size=(y.shape[2], _N_DIRECTIONS))
        y = y @ (directions / np.linalg.norm(directions, axis=0)) / _N_DIRECTIONS**0.5
    return (np.sort(y, axis=1) / y.shape[1] ** 0.5).reshape(len(y), -1)


def _positive_definite(y, metric):
    """Return symmetric positive definite matrices (n, k, k), which may be given laid out in rows."""
    y = check_array(y, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name="y")
    k = y.shape[-1] if y.ndim == 3 else round(y.shape[-1] ** 0.5)
    if y.ndim not in (2, 3) or y[0].size != k * k:
        raise ValueError(f"metric={metric!r} needs y of shape (n_samples, k, k) or (n_samples, k * k), got {y.shape}.")
    S = _tensor(y.reshape(-1, k, k))
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
