"""The objective of supervised dictionary learning, its derivatives, and the table it is summed over.

Throughout: X (n, p) rows of mean square length one, W (p, r) dictionary, B (r, width) weights on the codes,
A (p, width) weights on the features, Z (n, q) intercept and covariates with weights gamma (q, width).
"""

from typing import NamedTuple

import torch

from .._core.linalg import randomized_svd
from ._losses import Loss

_STORED_GRAM = 4000  # columns: up to here X'X is stored, above it is multiplied through X
DENSE_EIGEN = 500  # columns: up to here eigenvectors come from a full decomposition
_CPU_BLOCK = 1 << 20  # bytes of rows that are read once for both products of an evaluation, from a cache


class Table:
    """Rows to multiply with: dense and centred, or sparse and centred in the products.

    Parameters
    ----------
    X : tensor of shape (n, p)
        Dense, or sparse CSR.
    weights : tensor of shape (n,)
        Weights of the rows, of sum one.
    turned : tensor of shape (p, n) or None
        The transpose of a sparse X, in CSR.
    shift : tensor of shape (p,) or None
        What is subtracted from each row of a sparse X.
    """

    def __init__(self, X, weights, turned=None, shift=None):
        self.X, self.weights, self.turned, self.shift = X, weights, turned, shift
        n, p = self.shape = tuple(X.shape)
        block = n
        if turned is None and X.device.type == "cpu":
            block = max(64, _CPU_BLOCK // (p * X.element_size()))
        self.parts = [slice(i, min(i + block, n)) for i in range(0, n, block)]
        self.gram = None
        if turned is None and p <= min(2 * n, _STORED_GRAM):
            self.gram = sum((self.X[i].T @ (weights[i, None] * self.X[i])).double() for i in self.parts)

    def times(self, A, rows=slice(None)):
        """Return X @ A for a slice of rows, in the precision of X."""
        A = A.to(self.X.dtype)
        scores = self.X @ A if self.turned is not None else (A.T @ self.X[rows].T).T  # much faster for few columns
        return scores if self.shift is None else scores - self.shift @ A

    def turned_times(self, G, rows=slice(None)):
        """Return X.T @ G for a slice of rows, in float64."""
        if self.turned is None:
            return (G.T @ self.X[rows]).T.double()
        sums = (self.turned @ G).double()
        return sums if self.shift is None else sums - torch.outer(self.shift.double(), G.double().sum(0))

    def gram_times(self, W):
        """Return X' diag(weights) X @ W in float64."""
        if self.gram is not None:
            return (W.T @ self.gram).T
        return sum(self.turned_times(self.weights[i, None] * self.times(W, i), i) for i in self.parts)


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


class Weights(NamedTuple):
    """The unknowns, in float64."""

    W: torch.Tensor
    B: torch.Tensor
    gamma: torch.Tensor


def fit_term(task, A, gamma):
    """Return loss and ridges of the weights A on the features, and the gradients by A and gamma."""
    value = (task.ridge * A.square().sum() + (task.ridges[:, None] * gamma.square()).sum()) / 2
    by_A, by_gamma = task.ridge * A, task.ridges[:, None] * gamma
    narrow = gamma.to(task.Z.dtype)
    for rows in task.table.parts:
        scores = task.table.times(A, rows) + task.Z[rows] @ narrow
        values, slopes = task.loss.value_and_slope(scores, task.targets[rows])
        weights = task.weights[rows]
        slopes = weights[:, None] * slopes
        value = value + (weights @ values).double()
        by_A = by_A + task.table.turned_times(slopes, rows)
        by_gamma = by_gamma + (task.Z[rows].T @ slopes).double()
    return value, by_A, by_gamma


def fit_term_through_codes(task, weights):
    """Return loss and ridges of the weights W B on the features, and the gradients by W, B and gamma.

    The same as :func:`fit_term`, at a cost that grows with the columns of W and not with those of B.
    """
    W, B, gamma = weights
    across, bent = W.T @ W, B @ B.T
    value = (task.ridge * (across * bent).sum() + (task.ridges[:, None] * gamma.square()).sum()) / 2
    by_W, by_B, by_gamma = task.ridge * W @ bent, task.ridge * across @ B, task.ridges[:, None] * gamma
    narrow, narrow_B = gamma.to(task.Z.dtype), B.to(task.Z.dtype)
    for rows in task.table.parts:
        F = task.table.times(W, rows)
        values, slopes = task.loss.value_and_slope(F @ narrow_B + task.Z[rows] @ narrow, task.targets[rows])
        row_weights = task.weights[rows]
        slopes = row_weights[:, None] * slopes
        value = value + (row_weights @ values).double()
        by_W = by_W + task.table.turned_times(slopes @ narrow_B.T, rows)
        by_B = by_B + (F.T @ slopes).double()
        by_gamma = by_gamma + (task.Z[rows].T @ slopes).double()
    return value, Weights(by_W, by_B, by_gamma)


def curve_term(task, A, gamma, dA, dgamma):
    """Return the Hessian of :func:`fit_term` times the direction (dA, dgamma)."""
    by_A, by_gamma = task.ridge * dA, task.ridges[:, None] * dgamma
    narrow, dnarrow = gamma.to(task.Z.dtype), dgamma.to(task.Z.dtype)
    for rows in task.table.parts:
        Z = task.Z[rows]
        both = task.table.times(torch.cat([A, dA], 1), rows) + Z @ torch.cat([narrow, dnarrow], 1)
        scores, directions = both.chunk(2, 1)
        curved = task.weights[rows, None] * task.loss.curve(task.loss.link(scores), directions)
        by_A = by_A + task.table.turned_times(curved, rows)
        by_gamma = by_gamma + (Z.T @ curved).double()
    return by_A, by_gamma


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


def fit_hessian(task, A, gamma):
    """Return the Hessian of :func:`fit_term` by (A, gamma) above one another, a matrix of ((p + q) * width) rows."""
    width, n_weights = A.shape[1], len(A) + len(gamma)
    ridges = torch.cat([A.new_full((len(A),), task.ridge), task.ridges])
    H = torch.diag(ridges.repeat_interleave(width)).view(n_weights, width, n_weights, width)
    narrow = gamma.to(task.Z.dtype)
    for rows in task.table.parts:
        F = torch.cat([task.table.X[rows], task.Z[rows]], 1)
        predictions = task.loss.link(task.table.times(A, rows) + task.Z[rows] @ narrow)
        for k, unit in enumerate(torch.eye(width, dtype=F.dtype, device=F.device)):
            curved = task.weights[rows, None] * task.loss.curve(predictions, unit)
            for m in range(k, width):
                H[:, m, :, k] += (F.T @ (curved[:, m : m + 1] * F)).double()
    for k in range(width):
        for m in range(k + 1, width):
            H[:, k, :, m] = H[:, m, :, k]
    return H.flatten(0, 1).flatten(1)


def curve(task, weights, by_A, curve_fit, direction):
    """Return the Hessian of :func:`objective` times a direction, where W is orthonormal.

    `by_A` is the gradient of the fit term by A, `curve_fit` maps a direction of (A, gamma) to its Hessian times that.
    """
    (W, B, _), (dW, dB, dgamma) = weights, direction
    dby_A, dby_gamma = curve_fit(dW @ B + W @ dB, dgamma)
    bent = curve_explained(W, dW, *task.table.gram_times(torch.cat([W, dW], 1)).chunk(2, 1))
    return Weights(dby_A @ B.T + by_A @ dB.T - task.xi * bent, dW.T @ by_A + W.T @ dby_A, dby_gamma)


def curve_explained(W, dW, SW, SdW):
    """Return the derivative of the gradient of :func:`explained` in the direction dW, where W is orthonormal."""
    T, dM = W.T @ SW, dW.T @ W + W.T @ dW
    dT = dW.T @ SW + W.T @ SdW - dM @ T
    return 2 * (SdW - dW @ T - W @ dT - (SW - W @ T) @ dM)


# The dictionary that belongs to some weights on the features


def leading(table, count, generator, without=None):
    """Return the `count` leading orthonormal directions (p, count) of X, of those at right angles to `without`."""
    p = table.shape[1]
    if count == 0:
        return torch.zeros(p, 0, dtype=torch.float64, device=table.X.device)

    def aside(V):
        return V if without is None else V - without @ (without.T @ V)

    def multiply(V):
        return aside(table.gram_times(aside(V)))

    if table.gram is not None and p <= DENSE_EIGEN:
        S = aside(aside(table.gram).T)
        if without is not None:  # behind all others, where X has fewer directions than asked for
            S = S - S.diagonal().sum() * without @ without.T
        return torch.linalg.eigh(S)[1][:, -count:].flip(1)
    start = torch.randn(p, min(p, count + 10), generator=generator, dtype=torch.float64, device="cpu")
    return randomized_svd(multiply, multiply, aside(start.to(table.X.device)), n_components=count, n_iter=8)[0]


def dictionary_for(table, A, n_components, generator):
    """Return the best orthonormal dictionary (p, n_components) for weights A of at most that rank.

    It spans the columns of A and, as far as there is room, the leading directions of what they leave of X.
    """
    Q, s, _ = torch.linalg.svd(A, full_matrices=False)
    Q = Q[:, :n_components][:, s[:n_components] > 1e-10 * s[0]]
    return torch.cat([Q, leading(table, n_components - Q.shape[1], generator, without=Q)], 1)
