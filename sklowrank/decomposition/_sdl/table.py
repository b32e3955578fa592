"""The scaled features of a fit, in blocks that solvers multiply with: dense rows, or a sparse table as one block."""

from functools import partial
from typing import NamedTuple

import scipy.sparse as sp
import torch

from ..._core.rows import MappedRows, Rows, column_ends, map_rows, merge_sum
from ..._math.sparse import csr_tensor

DENSE_EIGEN = 500  # columns: up to here eigenvectors come from a full decomposition
_STORED_GRAM = 4000  # columns: up to here X'X is stored, above it is multiplied through X
_CPU_BLOCK = 1 << 20  # bytes of rows that are read once for both products of an evaluation, from a cache
_COPIED_BYTES = 1 << 29  # of rows that are scaled once, and kept; more of them are scaled each time they are read


class ScaledFeatures(NamedTuple):
    """Rows of mean square length one, and the way back to the units of X: ``X = unit * rows + mean``."""

    table: "Table"
    mean: torch.Tensor  # (p,), zeros without centring
    unit: float
    squares: float  # weighted mean of the squared lengths of the rows: one, or zero where X is constant


def scaled_features(rows, weights, *, center, in_memory, ws) -> ScaledFeatures:
    """Return the features in the precision of `ws`, whatever that of X; `weights` (n,) sum to one.

    With `in_memory` the scaled rows are kept in memory, however large they are.
    """
    if rows.kind == "csr":
        return _scaled_csr(rows.take(slice(None)), weights, center, ws)
    return _scaled_rows(rows, weights, center, in_memory, ws)


def _scaled_rows(rows, v, center, in_memory, ws):
    D = rows.shape[1]
    low, high = column_ends(rows)
    size = float(torch.maximum(low.abs(), high.abs()).amax()) or 1.0
    mean = torch.zeros(D, dtype=torch.float64, device=ws.device)
    if center:
        (mean,) = rows.gather(partial(_mean_sum, size), v, size=24 * D)
        mean = torch.where(low == high, low / size, mean)
    squares = float(rows.gather(partial(_sum_of_squares, size, mean), v, size=24 * D)[0])
    unit = squares**0.5 or 1.0
    scale, bytes_of_rows = partial(_scaled_block, size, mean.to(ws.dtype), unit), ws.dtype.itemsize * D * len(rows)
    if in_memory or (bytes_of_rows <= _COPIED_BYTES and rows.kind != "cluster"):
        blocks = dense_rows(map_rows(rows, scale, size=4 * ws.dtype.itemsize * D))
    else:
        blocks = MappedRows(rows, partial(_dense_block, scale), D)
    return ScaledFeatures(Table(blocks, v.to(ws.dtype)), mean * size, unit * size, float(squares > 0))


def _mean_sum(size, X, v):
    return (v @ (X.double() / size),)


def _sum_of_squares(size, mean, X, v):
    return (v @ (X.double() / size - mean).square().sum(1),)


def _scaled_block(size, mean, unit, X):
    return (X.to(mean.dtype) / size).sub_(mean).div_(unit)


def _dense_block(scale, X):
    return Dense(scale(X))


def _scaled_csr(X, v, center, ws):
    size = float(abs(X.data).max(initial=0.0)) or 1.0
    X = sp.csr_matrix((X.data.astype("float64") / size, X.indices, X.indptr), shape=X.shape)
    mean = ws.load(X.T @ v.cpu().numpy()) if center else torch.zeros(X.shape[1], dtype=ws.dtype, device=ws.device)
    squares = float(X.multiply(X).sum(axis=1).A1 @ v.cpu().numpy()) - float(mean @ mean)
    unit = max(squares, 0.0) ** 0.5 or 1.0
    X.data /= unit
    block = Sparse(_as_tensor(X, ws), _as_tensor(X.T.tocsr(), ws), mean / unit if center else None)
    return ScaledFeatures(Table(SparseRows(block), v.to(ws.dtype)), mean * size, unit * size, float(squares > 0))


def centred_products(X, mean, W, ws):
    """Return ``(X - mean) @ W`` for rows X, a tensor or a CSR matrix, which is not made dense."""
    return _as_tensor(X, ws) @ W - mean @ W if sp.issparse(X) else (X - mean) @ W


def _as_tensor(X, ws):
    """Return a scipy CSR matrix as a sparse tensor."""
    return csr_tensor(ws.load(X.indptr), ws.load(X.indices), ws.load(X.data), X.shape)


# Blocks to multiply with


class Dense(NamedTuple):
    """A block of dense rows."""

    X: torch.Tensor  # (b, p)

    def matmul(self, A):
        """Return X @ A, in the precision of X."""
        return (A.to(self.X.dtype).T @ self.X.T).T  # much faster for few columns

    def matmul_transposed(self, G):
        """Return X.T @ G, in float64."""
        return (G.T @ self.X).T.double()

    def magnitudes(self):
        """Return the block of the magnitudes of X; X itself where nothing is negative."""
        return Dense(abs(self.X)) if self.X.amin() < 0 else self


class Sparse(NamedTuple):
    """All rows of a sparse table, less a shift."""

    X: torch.Tensor  # (n, p), CSR
    transposed: torch.Tensor  # (p, n), CSR
    shift: torch.Tensor | None  # (p,), what is subtracted from each row

    def matmul(self, A):
        """Return (X - shift) @ A, in the precision of X."""
        A = A.to(self.X.dtype)
        scores = self.X @ A
        return scores if self.shift is None else scores - self.shift @ A

    def matmul_transposed(self, G):
        """Return (X - shift).T @ G, in float64."""
        sums = (self.transposed @ G).double()
        return sums if self.shift is None else sums - torch.outer(self.shift.double(), G.double().sum(0))

    def magnitudes(self):
        """Return the block of the magnitudes of X, without the shift."""
        if bool((self.X.values() < 0).any()):
            return Sparse(abs(self.X), abs(self.transposed), None)
        return self._replace(shift=None)


class SparseRows:
    """A sparse table as a row source: products need it as a whole, so that its rows are one block."""

    kind = "csr"

    def __init__(self, block: Sparse):
        self._block, self.shape = block, tuple(block.X.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, at) -> Sparse:
        """Return the block of all rows; `at` has to be ``slice(None)``."""
        if at != slice(None):
            raise ValueError(f"A sparse table is one block, of which the rows {at} cannot be taken.")
        return self._block

    def gather(self, compute, *aligned, size, batch_size="auto", merge=merge_sum):
        """Return ``compute(block, *aligned)``."""
        return compute(self._block, *aligned)

    def fit_in_one_block(self, size: int) -> bool:
        """Return True: there is one block."""
        return True


def dense_rows(X: torch.Tensor) -> MappedRows:
    """Return the rows of a tensor as a row source with blocks to multiply with."""
    return MappedRows(Rows(X), Dense, X.shape[1])


class Table:
    """Features to multiply with, and weights of their rows.

    Parameters
    ----------
    rows : RowSource
        Its blocks have the methods of :class:`Dense`.
    weights : tensor of shape (n,)
        Weights of the rows, of sum one, in the precision of the rows.
    """

    def __init__(self, rows, weights):
        self.rows, self.weights, self.shape = rows, weights, rows.shape
        self._gram = None

    def gather(self, compute, *aligned):
        """Return the sums over blocks of ``compute(block, weights, *parts of aligned)``."""
        size = self.shape[1] * self.weights.element_size()
        block = max(64, _CPU_BLOCK // size) if self.weights.device.type == "cpu" else "auto"
        return self.rows.gather(compute, self.weights, *aligned, size=2 * size, batch_size=block)

    @property
    def gram(self):
        """The second moments X' diag(weights) X, in float64; None where they are too large, or X is sparse."""
        if self._gram is None and self.rows.kind != "csr" and self.shape[1] <= min(2 * self.shape[0], _STORED_GRAM):
            (self._gram,) = self.gather(_gram)
        return self._gram

    def whole(self):
        """Return all rows as one block."""
        return self.rows.take(slice(None))

    def gram_times(self, W):
        """Return X' diag(weights) X @ W in float64."""
        if self.gram is not None:
            return (W.T @ self.gram).T
        return self.gather(partial(_gram_times, W))[0]


def _gram(block, w):
    return ((block.X.T @ (w[:, None] * block.X)).double(),)


def _gram_times(W, block, w):
    return (block.matmul_transposed(w[:, None] * block.matmul(W)),)
