"""Affine subspaces: distances of rows from them, leading directions of rows, and the dimension of clusters.

K subspaces of R^D are held as ``means`` (K, D) and ``bases`` (K, D, d) with orthonormal columns; those past the
dimension of a subspace are zero, and add nothing to products.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

_CLOSE = 1e-2  # below this share of the squared length, a squared distance is computed from the difference itself
_ROUNDING = 16  # times eps: squared distances below this share of the squared length are rounding
_AGREE = 1e-8  # relative difference below which two distances or log densities are equal
_RESOLUTION = 1e-6  # singular values below this share of the table's largest are rounding, of float32 too
_FAR = 1.5  # times the threshold by the median, from which the one by moments is trusted
_RARE = 0.05  # a column in which a smaller share of a cluster's rows differs is no dimension of it


def padded_bases(bases: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return bases (D, d_k) as one tensor (K, D, d), zero-padded to the largest dimension."""
    width = max(U.shape[1] for U in bases)
    return torch.stack([torch.nn.functional.pad(U, (0, width - U.shape[1])) for U in bases])


def coordinates(
    X: torch.Tensor, means: torch.Tensor, bases: torch.Tensor, *, exact: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coordinates (n, K, d) of rows X (n, D) in each subspace and their squared distances (n, K) from it.

    The squared distance is ||x - mu||² - ||p||², by one product with all bases; where nearly all of it cancels, it is
    computed from the residual itself, unless `exact` is False.
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
    """Return the squared distances (n, K) of rows X (n, D) from each subspace."""
    return coordinates(X, means, bases)[1]


def nearest_flats(X: torch.Tensor, means: torch.Tensor, bases: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest subspace of each row X (n, D), of equally near ones the first, and the squared distance.

    Rounding depends on the place of a row in its block. So distances that are rounding count as 0, and those that
    agree to eight digits as equal: equal rows have equal labels.
    """
    R = squared_distances(X, means, bases)
    span = X.square().sum(1)[:, None] + means.square().sum(1)
    R = R.masked_fill(_ROUNDING * torch.finfo(R.dtype).eps * span >= R, 0)
    least = R.amin(1, keepdim=True)
    return ((1 + _AGREE) * least >= R).to(torch.uint8).argmax(1), least[:, 0]


def first_largest(values: torch.Tensor) -> torch.Tensor:
    """Return the column of the largest value of each row; of values that agree to eight digits the first."""
    largest = values.amax(1, keepdim=True)
    return (values >= largest - _AGREE * largest.abs()).to(torch.uint8).argmax(1)


def improved_directions(A: torch.Tensor, U: torch.Tensor, passes: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bases (..., D, d) nearer to the top right singular vectors of A (..., m, D) than the orthonormal U.

    Block power iteration, then the directions of Rayleigh and Ritz; with the squares (..., d) of A along them,
    descending.
    """
    for _ in range(passes):
        U = torch.linalg.qr(turned_product(A, A @ U)).Q
    P = A @ U
    e, V = torch.linalg.eigh(P.mT @ P)
    return U @ V.flip(-1), e.flip(-1).clamp(min=0)


def turned_product(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Return ``A.mT @ B``, ten times faster than so written: torch's batched products are slow for such strides."""
    return (B.mT.contiguous() @ A).mT


def top_eigenpairs(S: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` leading eigenvectors (columns) and eigenvalues of a positive semidefinite matrix."""
    e, V = torch.linalg.eigh(S)
    return V[:, -count:].flip(1), e[-count:].flip(0).clamp(min=0)


def orthonormal(U: torch.Tensor) -> torch.Tensor:
    """Return the orthonormal factor of U (..., D, d), by QR, with the signs of U's columns kept."""
    Q, R = torch.linalg.qr(U)
    return torch.where(R.diagonal(dim1=-2, dim2=-1)[..., None, :] < 0, -Q, Q)


class Table(NamedTuple):
    """Rows of which clusters are taken, and the space that they span."""

    rows: torch.Tensor | sp.csr_array  # (n, D), float64, about their mean if `centred`
    centred: bool
    least: float  # a singular value of some rows at or below it counts as zero
    rank: int  # number of dimensions that the rows span; D where they are too few to tell


def table_of(X, *, centred: bool) -> Table:
    """Return rows X, a tensor or CSR (n, D) in float64, as the table whose clusters are asked for their dimension."""
    rows = X - X.mean(0) if centred else X
    s = singular_values(rows)
    least = _RESOLUTION * float(s[0])
    return Table(rows, centred, least, _span(s, least, rows, centred))


def _span(s, least, rows, centred):
    n, D = rows.shape
    rank = int((s > least).sum())
    return rank if rank < n - centred else D


def singular_values(rows) -> torch.Tensor:
    """Return the singular values of rows, a tensor or CSR, descending, by the smaller Gram matrix.

    Values below 1e-7 of the largest are rounding.
    """
    n, D = rows.shape
    unit = float(abs(rows).max()) or 1.0
    rows = rows / unit
    product = rows.T @ rows if n >= D else rows @ rows.T
    product = torch.from_numpy(product.toarray()) if sp.issparse(product) else product
    return torch.linalg.eigvalsh(product).flip(0).clamp(min=0).sqrt() * unit


def dims_by_threshold(table: Table, labels: torch.Tensor, n_clusters: int) -> int:
    """Return one dimension for all clusters: the median over clusters of :func:`ranks_by_threshold`."""
    ranks = ranks_by_threshold(table, labels, n_clusters)
    return median_dimension([rank for rank in ranks if rank is not None], table.rows.shape[1])


def ranks_by_threshold(table: Table, labels: torch.Tensor, n_clusters: int) -> list[int | None]:
    """Return for each cluster :func:`rank_by_threshold` of its rows; None where there are not two rows."""
    sparse = sp.issparse(table.rows)
    members = [labels == k for k in range(n_clusters)]
    parts = [table.rows[member.cpu().numpy() if sparse else member] for member in members]
    return [_rank(table, part, alone=n_clusters == 1) if part.shape[0] > 1 else None for part in parts]


def _rank(table, Z, *, alone):
    """Return the rank of the rows Z of a cluster, at most a third of their number.

    Noise fills the dimensions that the table spans, not the columns: dead and repeated columns add none, and columns
    that nearly all rows of the cluster agree on are left out. Where singular values vanish although the table spans
    more dimensions, there is no noise along them: the cluster lies in a subspace, unless the others are noise and
    signal.
    """
    n = Z.shape[0]
    varied = _varied(Z, centred=table.centred)
    rows, live = (table.rows, Z) if varied.all() else (table.rows[:, varied], Z[:, varied])
    if not live.shape[1]:
        return 0
    s = singular_values(live - live.mean(0) if table.centred else live)
    s = s[s > table.least]
    reach, columns = n - table.centred, min(table.rank, live.shape[1])
    if len(s) < min(reach, columns) and not varied.all():
        columns = min(columns, _span(singular_values(rows), table.least, rows, table.centred))
    full = min(reach, columns)
    if 2 * len(s) < full:
        found = len(s)
    else:
        found = rank_by_threshold(s, reach, columns)
        if not found and len(s) < (min(reach, live.shape[1]) if alone else full):
            found = len(s)
    return min(found, max(1, n // 3))


def _varied(Z, *, centred):
    """Return which columns are not nearly constant, or unless `centred` not nearly zero.

    They differ from their most frequent value, or from zero, in more than one row and in more than 5 % of the rows.
    """
    if sp.issparse(Z):
        count = np.bincount(Z.indices, weights=Z.data != 0, minlength=Z.shape[1])
    else:
        count = Z.ne(Z.median(0).values if centred else 0).sum(0)
    return count > max(1, _RARE * Z.shape[0])


def rank_by_threshold(s: torch.Tensor, n_rows: int, n_columns: int) -> int:
    """Return the number of singular values `s` > 0 of a matrix of full rank that are above the noise.

    The optimal hard threshold for singular values under noise of unknown size (Gavish and Donoho 2014): a multiple of
    their median. Where the noise is far weaker in some columns, the median is that of their noise. So the threshold for
    noise of known size is computed too, with size and number of noisy dimensions from the first two moments of the
    squares below it; where it is half as large again, it decides.
    """
    short, long = sorted((n_rows, n_columns))
    beta = short / long
    omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    threshold = float(omega * s.median())
    count = first = int((s > threshold).sum())
    known, before = threshold, len(s)
    while 0 < count < min(before, len(s) - 1):
        rest, before = (s[count:] / s[count]).square(), count
        spread = float(rest.sum().square() / rest.square().sum())  # n d / (n + d) for white noise in d columns
        d = min(n_columns, n_rows * spread / max(n_rows - spread, 1e-9))
        beta = min(d, n_rows) / max(d, n_rows)
        level = 2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1))
        known = float(s[count]) * math.sqrt(level * max(d, n_rows) * float(rest.sum()) / (n_rows * d))
        count = min(count, int((s > known).sum()))
    return count if known > _FAR * threshold else first


def median_dimension(ranks: Sequence[int], n_columns: int) -> int:
    """Return the median rank, between 1 and 32 and below the number of columns."""
    return possible_dimension(sorted(ranks)[len(ranks) // 2] if ranks else 1, n_columns)


def possible_dimension(rank: int, n_columns: int) -> int:
    """Return a rank between 1 and 32 and below the number of columns."""
    return max(1, min(rank, n_columns - 1, 32))
