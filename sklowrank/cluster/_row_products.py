"""Products, norms and subsets of rows, for dense tensors and CSR matrices alike; the one place that tells them apart.

"Rows" are a tensor (n, D) or a scipy CSR array of that shape, in float64. Products and norms are tensors, on the device
of a dense tensor and on the CPU for CSR.
"""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch

from .._core.blocks import in_blocks, rows_per_block
from .._core.workspace import Workspace, open_workspace

_TINY = np.finfo(np.float64).tiny
_BATCH, _BLOCK = 512, 1 << 28  # rows solved as one batch if their block fits so many bytes
_WHOLE_GRAM = 1 << 25  # bytes up to which the Gram matrix of all rows counts as one block


def workspace_of_rows(X, *, device: str, random_state) -> Workspace:
    """Return where to compute on validated X; on CSR scipy computes, on the CPU."""
    ws = open_workspace(X, device=device, random_state=random_state)
    return replace(ws, device=torch.device("cpu")) if sp.issparse(X) else ws


def load_rows(X, ws):
    """Return validated X, an array or a sparse matrix, as rows."""
    return sp.csr_array(X, dtype=np.float64) if sp.issparse(X) else ws.load(X).double()


def in_same_format(X, Y):
    """Return two sets of rows, both as CSR where they differ."""
    if sp.issparse(X) == sp.issparse(Y):
        return X, Y
    return tuple(rows if sp.issparse(rows) else sp.csr_array(rows.cpu().numpy()) for rows in (X, Y))


def device_of(X) -> torch.device:
    """Return the device on which products of rows are."""
    return torch.device("cpu") if sp.issparse(X) else X.device


def take(X, positions: torch.Tensor):
    """Return the rows at some positions."""
    return X[positions.cpu().numpy()] if sp.issparse(X) else X[positions]


def products(X, Y) -> torch.Tensor:
    """Return X Y', of shape (rows of X, rows of Y)."""
    product = X @ Y.T
    return torch.from_numpy(product.toarray()) if sp.issparse(product) else product


def times(X, matrix: torch.Tensor) -> torch.Tensor:
    """Return X M for a dense matrix or vector M."""
    return torch.from_numpy(X @ matrix.cpu().numpy()) if sp.issparse(X) else X @ matrix


def transposed_times(X, matrix: torch.Tensor) -> torch.Tensor:
    """Return X' M for a dense matrix or vector M."""
    return times(X.T, matrix)


def scaled(X, factors: torch.Tensor):
    """Return rows multiplied by a factor each."""
    return sp.csr_array(sp.diags_array(factors.numpy()) @ X) if sp.issparse(X) else factors[:, None] * X


def norms(X) -> torch.Tensor:
    """Return the Euclidean norms (n,) of rows."""
    if sp.issparse(X):
        return torch.from_numpy(np.sqrt(np.asarray(X.power(2).sum(axis=1)).ravel()))
    return torch.linalg.vector_norm(X, dim=1)


def prepared(rows, centre, axes, normalize: bool):
    """Return rows about a centre (D,), projected on axes (D, p) and scaled to unit norm; None leaves a step out."""
    rows = rows if centre is None else rows - centre
    rows = rows if axes is None else times(rows, axes)
    return normalized(rows) if normalize else rows


def normalized(X):
    """Return rows of unit norm; rows of zeros stay as they are."""
    if sp.issparse(X):
        return scaled(X, 1 / norms(X).clamp(min=_TINY))
    largest = X.abs().amax(1, keepdim=True).clamp(min=_TINY)  # squares of the quotient neither overflow nor vanish
    return torch.nn.functional.normalize(X / largest, dim=1, eps=_TINY)


def residuals(Y, X, supports: torch.Tensor, codes: torch.Tensor):
    """Return Y minus the combinations of the rows `supports` (b, s) of X with the coefficients `codes` (b, s)."""
    if not sp.issparse(X):
        return Y - (codes[:, None] @ X[supports])[:, 0]
    start = np.arange(len(supports) + 1) * supports.shape[1]
    C = sp.csr_array((codes.reshape(-1).numpy(), supports.reshape(-1).numpy(), start), shape=(len(codes), X.shape[0]))
    return Y - C @ X


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


def row_blocks(compute, X, n_atoms: int, batch_size) -> list:
    """Return `compute(rows)` for slices of the rows of X; a block holds about four rows of n_atoms numbers per row."""
    n, per_row = X.shape[0], 32 * n_atoms
    block = rows_per_block(batch_size, n, per_row)
    if batch_size == "auto":
        block = min(n, max(block, min(_BATCH, _BLOCK // per_row), 1))
    return list(in_blocks(compute, n, block, bytes_per_row=per_row))


def magnitude_blocks(compute, Y, X, batch_size, *, own: bool) -> list:
    """Return ``compute(rows, |Y[rows] X'|)`` for slices of the rows of Y; with `own` a row's own product counts -1."""

    def of_block(rows):
        magnitudes = products(Y[rows], X).abs_()
        return compute(rows, fill_own(magnitudes, rows, -1.0) if own else magnitudes)

    return row_blocks(of_block, Y, X.shape[0], batch_size)


def fill_own(matrix: torch.Tensor, own: slice, value: float) -> torch.Tensor:
    """Write `value` where row i of the block meets column ``own.start + i``, in place."""
    matrix.diagonal(own.start).fill_(value)
    return matrix
