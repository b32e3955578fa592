"""Kernel ridge regression with a constant that is not penalised: exact, on a basis of rows, and by leave-one-out."""

from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch

from .._core.blocks import in_blocks, rows_per_block
from .._core.standardize import standardized
from .._math.linalg import signs_of_largest
from ._ball_features import Features, checked_components, number_of
from ._distance_order import law_of

_GAMMAS = (0.25, 0.5, 1.0, 2.0, 4.0)  # over the median distance
_ALPHAS = tuple(float(alpha) for alpha in np.logspace(-4, 0, 9))
_CHOICE_ROWS = 1000  # at most, on which gamma and alpha are chosen
_MEDIAN_ROWS = 1000  # at most, for the median distance
_BASIS_ROWS = 1000  # of X, where there are too many rows for the exact solution
_RANK = 1e-12  # eigenvalues below this share of the largest are zero


class KernelOptions(NamedTuple):
    """The parameters of an estimator that the solver reads."""

    n_components: int | float
    kernel: str
    gamma: float | str
    alpha: float | str
    max_exact: int
    whiten: bool


class Solution(NamedTuple):
    """Components of standardised rows: combinations of the kernels of some of them."""

    basis: torch.Tensor  # (m,) positions of these rows
    gamma: float
    alpha: float
    coef: torch.Tensor  # (m, k)
    intercept: torch.Tensor  # (k,)
    eigenvalues: torch.Tensor  # all of them, descending
    loadings: torch.Tensor  # (k, m t): features of responses, predicted from components


class KernelModel(NamedTuple):
    """The fitted model."""

    kernel: str
    gamma: float
    X_fit: torch.Tensor  # (m, p)
    mean: torch.Tensor  # (p,)
    scale: torch.Tensor  # (p,)
    dual_coef: torch.Tensor  # (m, k)
    intercept: torch.Tensor  # (k,)
    loadings: torch.Tensor


class Ridge(NamedTuple):
    """A kernel ridge regression on m rows."""

    coef: torch.Tensor  # (m, r)
    mean: torch.Tensor  # (m,) of the kernels over the training rows
    moment: torch.Tensor  # (r, r): mean squares and products of the fitted values


def kernel_regression(rows, features: Features, options: KernelOptions, ws) -> Solution:
    """Return the principal components of the regression of responses on standardised rows."""
    order, T = _order_of_rows(rows, features.law), features.targets
    gamma, alpha = _choice(rows, T, options, order, ws)
    if len(rows) <= options.max_exact:
        basis = torch.arange(len(rows), device=ws.device, dtype=torch.int64)
        ridge = exact_ridge(rows, T, options.kernel, gamma, alpha)
    else:
        basis = _some(order, _BASIS_ROWS, ws)
        ridge = nystrom_ridge(rows, rows[basis], T, options.kernel, gamma, alpha)
    e, Q = torch.linalg.eigh(ridge.moment)
    e, Q = e.flip(0).clamp(min=0), Q.flip(1)
    count = _count_components(e, options.n_components)
    coef = ridge.coef @ Q[:, :count]
    strength = torch.where(e > 0, e, 1.0).sqrt()
    size = (strength[:count] if options.whiten else strength[0]) * signs_of_largest(coef.T)
    coef, loadings = coef / size, (size * Q[:, :count]).T @ features.basis.T
    return Solution(basis, gamma, alpha, coef, -ridge.mean @ coef, e, loadings)


def _order_of_rows(rows, law):
    """Return the rows in an order that their distances make, not the order in which they come."""
    if len(rows) <= min(_CHOICE_ROWS, _BASIS_ROWS):
        return np.arange(len(rows))
    return np.lexsort([law.rank(), law_of(rows, np.ones(len(rows)), "euclidean").rank()])


def _some(order, most, ws):
    """Return random rows of an order, ascending; all where there are few enough."""
    if len(order) <= most:
        return torch.arange(len(order), device=ws.device, dtype=torch.int64)
    drawn = torch.randperm(len(order), generator=ws.generator, device="cpu", dtype=torch.int64)
    return torch.from_numpy(np.sort(order[drawn[:most].numpy()])).to(ws.device)


def _choice(rows, T, options, order, ws):
    """Return gamma and alpha: the user's own, or the best by leave-one-out."""
    gamma, alpha = options.gamma, options.alpha
    if "cv" not in (gamma, alpha):
        return float(gamma), float(alpha)
    some = _some(order, _CHOICE_ROWS, ws)
    rows, T = rows[some], T[some]
    unit = median_distance(rows[:_MEDIAN_ROWS], options.kernel)
    gammas = [value / unit for value in _GAMMAS] if gamma == "cv" else [float(gamma)]
    alphas = _ALPHAS if alpha == "cv" else (float(alpha),)
    errors = np.array([leave_one_out(rows, T, options.kernel, value, alphas) for value in gammas])
    best = np.unravel_index(errors.argmin(), errors.shape)
    return gammas[best[0]], alphas[best[1]]


def _count_components(eigenvalues, n_components):
    if isinstance(n_components, Integral):
        return checked_components(n_components, {"distinct features of the responses": len(eigenvalues)})
    return number_of(eigenvalues, n_components)


def kernel_components(model: KernelModel, X) -> torch.Tensor:
    """Return the components (n, k) of new rows, in float64."""
    rows, centres = (standardized(part, model.mean, model.scale, torch.float64) for part in (X, model.X_fit))
    blocks = kernel_in_blocks(rows, centres, model.kernel, model.gamma)
    return torch.cat([K @ model.dual_coef for K in blocks]) + model.intercept


# Kernel ridge regression


def kernel_matrix(A: torch.Tensor, B: torch.Tensor, kernel: str, gamma: float) -> torch.Tensor:
    """Return the kernels (a, b) of rows A with rows B."""
    return (-gamma * _distances(A, B, kernel)).exp()


def _distances(A, B, kernel):
    if kernel == "laplacian":
        return torch.cdist(A, B, p=1.0)
    return (A.square().sum(1)[:, None] + B.square().sum(1) - 2 * A @ B.T).clamp(min=0)


def median_distance(rows: torch.Tensor, kernel: str) -> float:
    """Return the median of the distances, or of their squares, between different rows; 1 where all are equal."""
    D = _distances(rows, rows, kernel)
    rounding = 8 * torch.finfo(D.dtype).eps * D.amax()
    others = D[rounding < D]
    return float(others.median()) if others.numel() else 1.0


def leave_one_out(rows, T, kernel: str, gamma: float, alphas) -> list[float]:
    """Return the mean squared errors with which each row is predicted by the others, for each penalty."""
    n = len(rows)
    T = T - T.mean(0)
    e, V = torch.linalg.eigh(_centred(kernel_matrix(rows, rows, kernel, gamma)))
    e, P, squares, errors = e.clamp(min=0), V.T @ T, V.square(), []
    for alpha in alphas:
        share = e / (e + n * alpha)
        leverage = squares @ share + 1 / n
        wrong = (T - V @ (share[:, None] * P)) / (1 - leverage).clamp(min=torch.finfo(e.dtype).eps)[:, None]
        errors.append(float(wrong.square().sum() / n))
    return errors


def exact_ridge(rows, T, kernel: str, gamma: float, alpha: float) -> Ridge:
    """Return the regression of targets T on the kernels of all rows."""
    K = kernel_matrix(rows, rows, kernel, gamma)
    mean = K.mean(0)
    K = _centred(K)
    n, T = len(K), T - T.mean(0)
    penalised = K.clone()
    penalised.diagonal().add_(n * alpha)
    coef = torch.cholesky_solve(T, torch.linalg.cholesky(penalised))
    fitted = K @ coef
    return Ridge(coef, mean, fitted.T @ fitted / n)


def nystrom_ridge(rows, basis, T, kernel: str, gamma: float, alpha: float) -> Ridge:
    """Return the regression of targets T on the kernels of `basis` rows alone, walking over all rows."""
    e, V = torch.linalg.eigh(kernel_matrix(basis, basis, kernel, gamma))
    kept = e > _RANK * e[-1]
    W = V[:, kept] / e[kept].sqrt()
    n, T = len(rows), T - T.mean(0)
    place = {"dtype": W.dtype, "device": W.device}
    G, A = torch.zeros(W.shape[1], W.shape[1], **place), torch.zeros(W.shape[1], T.shape[1], **place)
    mean, start = torch.zeros(len(basis), **place), 0
    for K in kernel_in_blocks(rows, basis, kernel, gamma):
        F = K @ W
        G += F.T @ F
        A += F.T @ T[start : start + len(F)]
        mean += K.sum(0)
        start += len(F)
    mean /= n
    centre = mean @ W
    C, size = G / n - torch.outer(centre, centre), torch.eye(len(G), dtype=G.dtype, device=G.device)
    solved = torch.linalg.solve(C + alpha * size, A / n)
    return Ridge(W @ solved, mean, solved.T @ C @ solved)


def _centred(K):
    mean = K.mean(0)
    return K - mean - mean[:, None] + mean.mean()


def kernel_in_blocks(rows, centres, kernel, gamma):
    """Yield the kernels of consecutive blocks of rows with the centres."""
    size = 8 * 3 * len(centres)
    step = rows_per_block("auto", len(rows), size)
    yield from in_blocks(
        lambda part: kernel_matrix(rows[part], centres, kernel, gamma), len(rows), step, bytes_per_row=size
    )
