"""Kernel ridge regression with a constant that is not penalised: exact, on a basis of rows, and by leave-one-out."""

from typing import NamedTuple

import torch

from .._core.blocks import in_blocks, rows_per_block

_RANK = 1e-12  # eigenvalues below this share of the largest are zero


class Ridge(NamedTuple):
    """A kernel ridge regression on m rows."""

    coef: torch.Tensor  # (m, r)
    mean: torch.Tensor  # (m,) of the kernels over the training rows
    moment: torch.Tensor  # (r, r): mean squares and products of the fitted values


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
