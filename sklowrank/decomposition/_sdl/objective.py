"""The objective of supervised dictionary learning, its losses and derivatives.

Throughout: X (n, p) rows of mean square length one, W (p, r) dictionary, B (r, width) weights on the codes,
A (p, width) weights on the features, Z (n, q) intercept and covariates with weights gamma (q, width).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from ..._core.rows import MappedRows, Rows, merge_sum
from ..._math.linalg import randomized_svd

DENSE_EIGEN = 500  # columns: up to here eigenvectors come from a full decomposition
_STORED_GRAM = 4000  # columns: up to here X'X is stored, above it is multiplied through X
_CPU_BLOCK = 1 << 20  # bytes of rows that are read once for both products of an evaluation, from a cache
_WINDOW = 4  # iterations over which the decrease is measured


# Losses


class Loss(NamedTuple):
    """A convex loss of each row; scores, targets and directions have shape (n, width), values shape (n,)."""

    value_and_slope: Callable  # (scores, targets) -> values, gradient by the scores
    link: Callable  # scores -> predictions: probabilities, or numbers
    curve: Callable  # (predictions, directions) -> Hessian by the scores, times directions
    steepness: Callable  # predictions -> (n,): no eigenvalue of the row's Hessian is larger
    bound: float  # nor than this, at any scores
    ridge: float  # share of the L2 penalty that the weights of one column of scores get


def _logistic(scores, targets):
    values = torch.logaddexp(scores, torch.zeros_like(scores)) - targets * scores
    return values[:, 0], scores.sigmoid() - targets


def _curve_logistic(p, directions):
    return p * (1 - p) * directions


def _steepness_logistic(p):
    return (p * (1 - p))[:, 0]


def _softmax(scores, targets):
    total = scores.logsumexp(1, keepdim=True)
    return total[:, 0] - (scores * targets).sum(1), (scores - total).exp() - targets


def _probabilities(scores):
    return scores.softmax(1)


def _curve_softmax(p, directions):
    return p * (directions - (p * directions).sum(1, keepdim=True))


def _steepness_softmax(p):
    return 2 * (p * (1 - p)).amax(1)  # the sum of a row's magnitudes


def _squared(scores, targets):
    residual = scores - targets
    return residual.square().sum(1) / 2, residual


def _curve_squared(predictions, directions):
    return directions


def _steepness_squared(predictions):
    return torch.ones_like(predictions[:, 0])


# Two classes are softmax over two opposite columns, of which one is kept: weights w stand for -w / 2 and w / 2, whose
# squares add up to half of w's.
logistic = Loss(_logistic, torch.sigmoid, _curve_logistic, _steepness_logistic, 0.25, 0.5)  # targets 0 or 1
softmax = Loss(_softmax, _probabilities, _curve_softmax, _steepness_softmax, 0.5, 1.0)  # targets one-hot
squared = Loss(_squared, torch.clone, _curve_squared, _steepness_squared, 1.0, 1.0)


# Blocks of features to multiply with


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


# The objective


class Task(NamedTuple):
    """What is to be minimised."""

    table: Table
    Z: torch.Tensor  # (n, q): ones and covariates
    targets: torch.Tensor  # (n, width)
    weights: torch.Tensor  # (n,): of the rows in the loss
    loss: Loss
    xi: float
    ridge: float  # penalty of A, times its squares / 2
    ridges: torch.Tensor  # (q,): the same for each row of gamma
    squares: float = 1.0  # weighted mean of the squared lengths of the rows of X

    def gather(self, compute, *aligned):
        """Return the sums over blocks of ``compute(block, Z, targets, weights, *parts of aligned)``."""
        without = partial(_without_table_weights, compute)
        return self.table.gather(without, self.Z, self.targets, self.weights, *aligned)


def _without_table_weights(compute, block, w, *aligned):
    return compute(block, *aligned)


def loss_share(task):
    """Return by how much more a row counts in the loss than in the reconstruction, at most."""
    counted = task.table.weights > 0
    return (task.weights.double()[counted] / task.table.weights.double()[counted]).amax()


class Weights(NamedTuple):
    """The unknowns, in float64."""

    W: torch.Tensor
    B: torch.Tensor
    gamma: torch.Tensor


def fit_term(task, A, gamma):
    """Return loss and ridges of the weights A on the features, and the gradients by A and gamma."""
    value, by_A, by_gamma = task.gather(partial(_fit_sums, task.loss, A, gamma))
    ridges = (task.ridge * A.square().sum() + (task.ridges[:, None] * gamma.square()).sum()) / 2
    return value + ridges, by_A + task.ridge * A, by_gamma + task.ridges[:, None] * gamma


def _fit_sums(loss, A, gamma, block, Z, targets, weights):
    scores = block.matmul(A) + Z @ gamma.to(Z.dtype)
    values, slopes = loss.value_and_slope(scores, targets)
    slopes = weights[:, None] * slopes
    return (weights @ values).double(), block.matmul_transposed(slopes), (Z.T @ slopes).double()


def fit_term_through_codes(task, weights):
    """Return loss and ridges of the weights W B on the features, and the gradients by W, B and gamma.

    The same as :func:`fit_term`, at a cost that grows with the columns of W and not with those of B.
    """
    W, B, gamma = weights
    value, by_W, by_B, by_gamma = task.gather(partial(_fit_sums_through_codes, task.loss, weights))
    across, bent = W.T @ W, B @ B.T
    ridges = (task.ridge * (across * bent).sum() + (task.ridges[:, None] * gamma.square()).sum()) / 2
    by_W, by_B = by_W + task.ridge * W @ bent, by_B + task.ridge * across @ B
    return value + ridges, Weights(by_W, by_B, by_gamma + task.ridges[:, None] * gamma)


def _fit_sums_through_codes(loss, unknowns, block, Z, targets, weights):
    W, B, gamma = unknowns.W, unknowns.B.to(Z.dtype), unknowns.gamma.to(Z.dtype)
    F = block.matmul(W)
    values, slopes = loss.value_and_slope(F @ B + Z @ gamma, targets)
    slopes = weights[:, None] * slopes
    by_B, by_gamma = (F.T @ slopes).double(), (Z.T @ slopes).double()
    return (weights @ values).double(), block.matmul_transposed(slopes @ B.T), by_B, by_gamma


def explained(W, SW):
    """Return the share of the squares of X that codes by least squares explain, and its gradient by W.

    W need not be orthonormal; SW is the second moment of X times W. The share is the trace of (W'W)^-1 W'SW.
    """
    M = W.T @ W
    M = M + 1e-12 * M.diagonal().sum() * torch.eye(len(M), dtype=W.dtype, device=W.device)
    T = torch.linalg.solve(M, W.T @ SW)
    return T.diagonal().sum(), 2 * torch.linalg.solve(M, SW - W @ T, left=False)


def objective(task, weights):
    """Return the objective of the filter model, codes eliminated, and its gradients by W, B and gamma."""
    W, B, gamma = weights
    if B.shape[1] > W.shape[1]:
        value, slopes = fit_term_through_codes(task, weights)
    else:
        value, by_A, by_gamma = fit_term(task, W @ B, gamma)
        slopes = Weights(by_A @ B.T, W.T @ by_A, by_gamma)
    share, by_W = explained(W, task.table.gram_times(W))
    return value + task.xi * (task.squares - share), slopes._replace(W=slopes.W - task.xi * by_W)


def relative_decrease(values):
    """Return by how much the last of some objectives lies below that of four iterations before."""
    if len(values) <= _WINDOW:
        return float("inf")
    return (values[-_WINDOW - 1] - values[-1]) / max(abs(values[-1]), 1e-300)


# The dictionary that belongs to some weights on the features


def leading(table, count, generator, without=None, near=None):
    """Return the `count` leading orthonormal directions (p, count) of X, of those at right angles to `without`.

    Where there are many columns they are found by iteration, from directions `near` to them and random ones.
    """
    p = table.shape[1]
    if count == 0:
        return torch.zeros(p, 0, dtype=torch.float64, device=table.weights.device)

    def projected_out(V):
        return V if without is None else V - without @ (without.T @ V)

    def multiply(V):
        return projected_out(table.gram_times(projected_out(V)))

    if table.gram is not None and p <= DENSE_EIGEN:
        S = projected_out(projected_out(table.gram).T)
        if without is not None:  # behind all others, where X has fewer directions than asked for
            S = S - S.diagonal().sum() * without @ without.T
        return torch.linalg.eigh(S)[1][:, -count:].flip(1)
    start = torch.randn(p, min(p, count + 10), generator=generator, dtype=torch.float64, device="cpu")
    start = start.to(table.weights.device)
    start = start if near is None else torch.cat([near, start], 1)[:, :p]
    return randomized_svd(multiply, multiply, projected_out(start), n_components=count, n_iter=8)[0]


def dictionary_for(table, A, n_components, generator, near=None):
    """Return the best orthonormal dictionary (p, n_components) for weights A of at most that rank.

    It spans the columns of A, and with its other columns the leading directions of X projected out of that span.
    `near` are columns (p, n) of a former dictionary, from which the iteration starts.
    """
    Q, s, _ = torch.linalg.svd(A, full_matrices=False)
    Q = Q[:, :n_components][:, s[:n_components] > 1e-10 * s[0]]
    return torch.cat([Q, leading(table, n_components - Q.shape[1], generator, without=Q, near=near)], 1)
