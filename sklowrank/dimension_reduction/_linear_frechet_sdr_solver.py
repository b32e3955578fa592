"""Directions of X along which responses change: eigenvectors of moments of whitened rows, or least squares."""

from functools import partial
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, lsqr

from .._core.blocks import in_blocks, rows_per_block
from .._core.rows import map_rows, refuse_kind
from .._core.standardize import standardization
from .._math.linalg import power_of_two, signs_of_largest
from ._ball_features import Features, checked_components, loading_sums, loadings_from, number_of
from ._metric_spaces import distances

_RANK = 1e-10  # eigenvalues below this share of the largest are zero
_MOMENT_BYTES = 1 << 28  # of matrices of moments that are summed at once
_ACCURACY, _STEPS = 1e-10, 500  # of least squares with sparse rows


class LinearOptions(NamedTuple):
    """The parameters of an estimator that the solver reads."""

    n_components: int | float
    method: str
    shrinkage: float


class LinearModel(NamedTuple):
    """The fitted model, in float64 whatever the precision of X: components are ``directions @ x - offset``."""

    directions: torch.Tensor  # (k, p)
    offset: torch.Tensor  # (k,)
    quadratic: bool  # whether responses are regressed on squares and products of components as well
    loadings: torch.Tensor  # (predictors, m t): features of responses, predicted from components


class Directions(NamedTuple):
    """Directions, the strongest first."""

    directions: torch.Tensor  # (k, p), zero where there is none
    eigenvalues: torch.Tensor  # (k,)
    mean: torch.Tensor  # (p,)


def fit_directions(rows, share: torch.Tensor, features: Features, options: LinearOptions) -> Directions:
    """Return all directions of rows, of which each has a share of the weight.

    Raises
    ------
    ValueError
        If "wire" is to look at pairs of rows of a cluster, or at distances that are not those between all rows.
    """
    if rows.kind == "csr":
        return sparse_directions(rows.take(slice(None)), share, _all_targets(features), options.shrinkage)
    if options.method == "wire":
        refuse_kind(
            rows,
            "cluster",
            "method='wire' looks at all pairs of rows, which partitions do not hold. Use 'fccov'.",
        )
        metric, points = features.balls.metric, features.points
        if metric == "precomputed" and points.shape[0] != points.shape[1]:
            raise ValueError(
                f"method='wire' needs the distances between all rows, but y has shape {tuple(points.shape)}. Use "
                "method='fccov'."
            )
        moments = partial(distance_moments, rows, share, points, metric)
    else:
        moments = partial(ball_moments if options.method == "fccov" else second_moments, rows, share, features)
    return directions(rows, share, moments, options.shrinkage)


def leading_directions(found: Directions, features: Features, options: LinearOptions) -> Directions:
    """Return the directions that are asked for, or as many as there are, with fixed signs."""
    if isinstance(options.n_components, Integral):
        limits = {"directions in which X varies": int((found.directions != 0).any(1).sum())}
        if options.method == "fccov":
            limits["distinct features of the responses"] = features.basis.shape[1]
        n_components = checked_components(options.n_components, limits)
    else:
        n_components = number_of(found.eigenvalues.abs(), options.n_components)
    leading = found.directions[:n_components]
    leading = leading * signs_of_largest(leading)[:, None]
    return Directions(leading, found.eigenvalues[:n_components], found.mean)


def linear_model(found: Directions, rows, share, features: Features, options: LinearOptions) -> LinearModel:
    """Return the model of directions, with the regression of responses on them."""
    offset, quadratic = found.directions @ found.mean, options.method == "second"
    collect = partial(_loading_sums, found.directions, offset, quadratic, features.target_function())
    size = 8 * (4 * rows.shape[1] + len(features.basis))
    sums = rows.gather(collect, share, features.per_row(), size=size)
    return LinearModel(found.directions, offset, quadratic, loadings_from(*sums, features.basis))


def _loading_sums(directions, offset, quadratic, read_targets, X, share, per_row):
    predictors = with_products(linear_components(directions, offset, X), quadratic)
    return loading_sums(predictors, share, read_targets(per_row))


def linear_components(directions, offset, X) -> torch.Tensor:
    """Return the components (n, k) of a block of rows, a tensor or a CSR matrix, in float64."""
    if issparse(X):
        return torch.from_numpy(X @ directions.cpu().numpy().T).to(directions.device) - offset
    return X.double() @ directions.T - offset


def with_products(Z, quadratic: bool) -> torch.Tensor:
    """Return the predictors: a constant, and each component, where `quadratic` followed by its products so far."""
    columns = [torch.ones_like(Z[:, :1])]
    for j in range(Z.shape[1]):
        columns.append(Z[:, j : j + 1])
        if quadratic:
            columns.append(Z[:, : j + 1] * Z[:, j : j + 1])
    return torch.cat(columns, 1)


def count_predictors(d: int, quadratic: bool) -> int:
    """Return how many predictors belong to the first d components."""
    return 1 + d + d * (d + 1) // 2 * quadratic


def _all_targets(features):
    return features.target_function()(features.per_row())


# Directions of dense rows. Moments are sums over whitened rows z = W'(x - mean) / scale, collected from blocks.


def directions(rows, share: torch.Tensor, moments, shrinkage: float) -> Directions:
    """Return the eigenvectors of a matrix as directions of X.

    ``moments(whiten)`` returns that matrix of the whitened rows; `whiten` maps blocks of X to blocks of these.
    """
    mean, scale = standardization(rows, "columns", share)
    (C,) = rows.gather(partial(_second_moments, mean, scale), share, size=32 * len(mean))
    varies = C.diagonal() > 0.5  # such columns have variance one, the others are constant
    C = torch.where(varies & varies[:, None], C, 0.0)
    size = C.diagonal().mean()
    C = (1 - shrinkage) * C + shrinkage * size * torch.eye(len(C), dtype=C.dtype, device=C.device)
    e, Q = torch.linalg.eigh(C)
    kept = e > _RANK * e[-1].clamp(min=torch.finfo(e.dtype).tiny)
    if not bool(kept.any()):
        return Directions(torch.zeros_like(mean)[None], torch.zeros_like(mean[:1]), mean)
    W = Q[:, kept] / e[kept].sqrt()
    values, V = torch.linalg.eigh(moments(partial(_whitened, mean, scale, W * varies[:, None])))
    order = values.abs().argsort(descending=True)
    values, B = values[order], W @ V[:, order]
    return Directions(_by_length(B, values).T / scale, values, mean)


def _by_length(B: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return directions (p, k) of which those with an eigenvalue of zero are the shortest ones, the shortest first.

    Any rotation of these is as good, and rounding would choose one. Components have variance one, so that a short
    direction is one in which X varies much.
    """
    zero = values.abs() <= _RANK * values.abs().max()
    free = B[:, zero]
    return torch.cat([B[:, ~zero], free @ torch.linalg.eigh(free.T @ free)[1]], 1)


def _second_moments(mean, scale, X, share):
    Z = (X.double() - mean) / scale
    return (Z.T @ (share[:, None] * Z),)


def _whitened(mean, scale, W, X):
    return ((X.double() - mean) / scale) @ W


def distance_moments(rows, share, points, metric, whiten) -> torch.Tensor:
    """Return minus the mean of z z'^T d(y, y') over all pairs of rows."""
    Z = map_rows(rows, whiten, size=32 * rows.shape[1])
    n, size = len(Z), 8 * len(Z)
    weighted = share[:, None] * Z

    def part(rows):
        D = distances(points[rows], _centres(points, metric), metric).to(Z.device)
        return weighted[rows].T @ (D @ weighted)

    M = -sum(in_blocks(part, n, rows_per_block("auto", n, size), bytes_per_row=size))
    return (M + M.T) / 2


def _centres(points, metric):
    return torch.arange(points.shape[1], device="cpu") if metric == "precomputed" else points


def ball_moments(rows, share, features: Features, whiten) -> torch.Tensor:
    """Return the sum of h h^T over the features of responses, h being the mean of z times the feature."""
    collect, size = (
        partial(_ball_means, whiten, features.target_function()),
        8 * (4 * rows.shape[1] + len(features.basis)),
    )
    (H,) = rows.gather(collect, share, features.per_row(), size=size)
    return H @ H.T


def _ball_means(whiten, read_targets, X, share, per_row):
    return (whiten(X).T @ (share[:, None] * read_targets(per_row)),)


def second_moments(rows, share, features: Features, whiten) -> torch.Tensor:
    """Return the same plus the sum of H², H being the mean of z z^T times the feature."""
    M = ball_moments(rows, share, features, whiten)
    n_features, at_once = features.basis.shape[1], max(1, _MOMENT_BYTES // (8 * M.numel()))
    size = 8 * (5 * rows.shape[1] + len(features.basis))
    for first in range(0, n_features, at_once):
        some = slice(first, min(first + at_once, n_features))
        collect = partial(_matrix_means, whiten, features.target_function(), some)
        (H,) = rows.gather(collect, share, features.per_row(), size=size)
        M += (H @ H).sum(0)
    return M


def _matrix_means(whiten, read_targets, some, X, share, per_row):
    Z = whiten(X)
    return (
        torch.stack([Z.T @ (target[:, None] * Z) for target in (share[:, None] * read_targets(per_row)[:, some]).T]),
    )


# Directions of sparse rows: least squares with products alone


def sparse_directions(X, share, targets, shrinkage: float) -> Directions:
    """Return what `directions` finds with `ball_moments`, by the regression of the features of responses on X."""
    w, T = share.cpu().numpy(), targets.cpu().numpy()
    n, p = X.shape
    unit = power_of_two(abs(X).max())  # squares of entries neither overflow nor vanish
    X = X.astype(np.float64) / unit
    mean = X.T @ w
    variance = X.multiply(X).T @ w - mean**2
    varies = variance > 8 * n**0.5 * np.finfo(np.float64).eps * mean**2
    scale, root = np.sqrt(np.where(varies, variance, 1.0)), np.sqrt(w)
    size = shrinkage * max(varies.mean(), np.finfo(np.float64).tiny)  # times the mean variance of columns
    A = LinearOperator(
        (n, p),
        matvec=lambda b: root * (X @ (b.ravel() / scale) - mean @ (b.ravel() / scale)),
        rmatvec=lambda u: (X.T @ (root * u.ravel()) - mean * (root @ u.ravel())) / scale,
        dtype=np.float64,
    )
    cross = (X.T @ (w[:, None] * T) - np.outer(mean, w @ T)) / scale[:, None]
    if shrinkage < 1:
        damp = (size / (1 - shrinkage)) ** 0.5
        solved = [lsqr(A, root * t, damp=damp, atol=_ACCURACY, btol=_ACCURACY, iter_lim=_STEPS)[0] for t in T.T]
        B = np.column_stack(solved) / (1 - shrinkage)
    else:
        B = cross / size
    e, Q = np.linalg.eigh(cross.T @ B)
    e, Q = e[::-1].clip(min=0), Q[:, ::-1]
    length = np.sqrt(np.where(e > _RANK * e[0], e, np.inf))
    parts = ((B @ Q / length / scale[:, None]).T / unit, e, mean * unit)
    return Directions(*(torch.from_numpy(np.ascontiguousarray(part)).to(share.device) for part in parts))
