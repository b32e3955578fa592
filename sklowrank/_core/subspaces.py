"""Affine subspaces ("flats"): how far rows lie from them, and which of them fits a set of rows best.

K flats of R^D are held as ``means`` (K, D) and ``bases`` (K, D, d), orthonormal columns; a flat of lower dimension than
the widest has its last columns zero, which adds nothing to any product below.
"""

from collections.abc import Sequence

import torch

_CLOSE = 1e-2  # below this share of the squared length, a squared distance is computed from the difference itself


def coordinates(
    X: torch.Tensor, means: torch.Tensor, bases: torch.Tensor, *, exact: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coordinates (n, K, d) of rows X (n, D) in each flat and their squared distances (n, K) from it.

    The distance is what Pythagoras leaves, ||x - mu||² - ||p||², in one product with all bases; where nearly nothing is
    left, which would be rounding alone, it is taken from the difference, unless `exact` is False.
    """
    K, D, d = bases.shape
    flat = bases.permute(1, 0, 2).reshape(D, K * d)
    P = (X @ flat).view(-1, K, d) - torch.einsum("kd,kdj->kj", means, bases)
    span = X.square().sum(1)[:, None] + means.square().sum(1)
    R = span - 2 * (X @ means.T) - P.square().sum(2)
    if not exact:
        return P, R.clamp(min=0)
    close = _CLOSE * span > R
    for k in range(K):
        rows = close[:, k].nonzero()[:, 0]
        Z = X[rows] - means[k]
        R[rows, k] = torch.addmm(Z, Z @ bases[k], bases[k].T, alpha=-1).square().sum(1)
    return P, R.clamp_(min=0)


def squared_distances(X: torch.Tensor, means: torch.Tensor, bases: torch.Tensor) -> torch.Tensor:
    """Return the squared distances (n, K) of rows X (n, D) from each flat."""
    return coordinates(X, means, bases)[1]


def leading_directions(Z: torch.Tensor, weights: torch.Tensor, n_dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the top eigenvectors (D, n_dims) and eigenvalues (n_dims,) of ``Z.T @ diag(weights) @ Z`` for rows Z.

    Through the smaller of the two Gram matrices. Directions beyond the rank of Z complete an orthonormal set, with
    eigenvalue 0.
    """
    n, D = Z.shape
    if n >= D:
        return top_eigenpairs(Z.T @ (weights[:, None] * Z), n_dims)
    A = weights.sqrt()[:, None] * Z
    V, e = top_eigenpairs(A @ A.T, min(n, n_dims))
    U = A.T @ V / e.clamp(min=torch.finfo(e.dtype).tiny).sqrt()
    spare = U.new_zeros(D, n_dims - U.shape[1])
    return orthonormal(torch.cat([U, spare], 1)), torch.cat([e, spare[0]])


def top_eigenpairs(S: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` leading eigenvectors (columns) and eigenvalues of a positive semidefinite matrix."""
    e, V = torch.linalg.eigh(S)
    return V[:, -count:].flip(1), e[-count:].flip(0).clamp(min=0)


def orthonormal(U: torch.Tensor) -> torch.Tensor:
    """Return the orthonormal factor of U (..., D, d), by QR, with the signs of U's columns kept."""
    Q, R = torch.linalg.qr(U)
    return torch.where(R.diagonal(dim1=-2, dim2=-1)[..., None, :] < 0, -Q, Q)


def dims_by_threshold(X: torch.Tensor, labels: torch.Tensor, n_clusters: int, *, centred: bool) -> int:
    """Return one dimension for all clusters: the median over clusters of :func:`rank_by_threshold`."""
    ranks = ranks_by_threshold(X, labels, n_clusters, centred=centred)
    return median_dimension([rank for rank in ranks if rank is not None], X.shape[1])


def ranks_by_threshold(X: torch.Tensor, labels: torch.Tensor, n_clusters: int, *, centred: bool) -> list[int | None]:
    """Return :func:`rank_by_threshold` of each cluster; None where there are not two rows."""
    parts = [X[labels == k] for k in range(n_clusters)]
    return [
        rank_by_threshold(torch.linalg.svdvals(Z - Z.mean(0) if centred else Z), *Z.shape) if len(Z) > 1 else None
        for Z in parts
    ]


def rank_by_threshold(s: torch.Tensor, n_rows: int, n_columns: int) -> int:
    """Return the number of singular values `s` of a matrix above the noise, at most a third of its rows.

    The optimal hard threshold for singular values under noise of unknown size (Gavish and Donoho 2014).
    """
    short, long = sorted((n_rows, n_columns))
    beta = short / long
    omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    rounding = torch.finfo(s.dtype).eps * long * s[0]
    return min(int((s > torch.maximum(omega * s.median(), rounding)).sum()), max(1, n_rows // 3))


def median_dimension(ranks: Sequence[int], n_columns: int) -> int:
    """Return the median rank, between 1 and 32 and below the number of columns."""
    return possible_dimension(sorted(ranks)[len(ranks) // 2] if ranks else 1, n_columns)


def possible_dimension(rank: int, n_columns: int) -> int:
    """Return a rank between 1 and 32 and below the number of columns."""
    return max(1, min(rank, n_columns - 1, 32))
