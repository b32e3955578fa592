"""Inner products between rows, in blocks, for dense tensors and for CSR alike: codings see rows through these alone.

"Rows" are a tensor (n, D) or a scipy CSR array of that shape; what comes back is always a tensor, on the device of a
tensor and on the CPU for CSR.
"""

import numpy as np
import scipy.sparse as sp
import torch

from .._core.blocks import in_blocks, rows_per_block

_BATCH, _BLOCK = 512, 1 << 28  # rows solved as one batch if their block fits so many bytes
_WHOLE_GRAM = 1 << 25  # bytes up to which the inner products of all rows count as one block


def products(X, Y) -> torch.Tensor:
    """Return X Y', of shape (rows of X, rows of Y)."""
    product = X @ Y.T
    return torch.from_numpy(product.toarray()) if sp.issparse(product) else product


def walk(compute, X, n_atoms: int, batch_size) -> list:
    """Return `compute(rows)` for slices of the rows of X; a block holds about four rows of n_atoms numbers per row."""
    n, per_row = X.shape[0], 32 * n_atoms
    block = rows_per_block(batch_size, n, per_row)
    if batch_size == "auto":
        block = min(n, max(block, min(_BATCH, _BLOCK // per_row), 1))
    return list(in_blocks(compute, n, block, bytes_per_row=per_row))


def mask_own(matrix: torch.Tensor, own: slice, value: float) -> torch.Tensor:
    """Write `value` where row i of the block meets column ``own.start + i``, in place."""
    matrix.diagonal(own.start).fill_(value)
    return matrix


def residuals(Y, X, supports: torch.Tensor, codes: torch.Tensor):
    """Return Y minus what `codes` (b, s), at the rows `supports` (b, s) of X, make of it; CSR for CSR."""
    if not sp.issparse(X):
        return Y - (codes[:, None] @ X[supports])[:, 0]
    start = np.arange(len(supports) + 1) * supports.shape[1]
    C = sp.csr_array((codes.reshape(-1).numpy(), supports.reshape(-1).numpy(), start), shape=(len(codes), X.shape[0]))
    return Y - C @ X


def take(X, rows: torch.Tensor):
    """Return the rows of X at the positions `rows`."""
    return X[rows.numpy()] if sp.issparse(X) else X[rows]


def norms_of(X) -> torch.Tensor:
    """Return the Euclidean norms (n,) of rows."""
    if sp.issparse(X):
        return torch.from_numpy(np.sqrt(np.asarray(X.power(2).sum(axis=1)).ravel()))
    return X.norm(dim=1)


def whole_gram(X) -> torch.Tensor | None:
    """Return X X' where it is no larger than one block, else None."""
    return products(X, X) if 8 * X.shape[0] ** 2 <= _WHOLE_GRAM else None


def small_grams(X, supports: torch.Tensor, whole: torch.Tensor | None) -> torch.Tensor:
    """Return the inner products (b, s, s) among the rows of X at each row of `supports` (b, s)."""
    if whole is not None:
        n = len(whole)
        return whole.view(-1)[supports[:, :, None] * n + supports[:, None, :]]
    if not sp.issparse(X):
        A = X[supports]
        return A @ A.mT
    used, place = supports.unique(return_inverse=True)
    among = X[used.numpy()]
    return small_grams(among, place, products(among, among))
