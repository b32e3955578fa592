"""The objective of supervised dictionary learning, its losses and derivatives.

Throughout: X (n, p) rows of mean square length one, W (p, r) dictionary, B (r, width) weights on the codes,
A (p, width) weights on the features, Z (n, q) intercept and covariates with weights gamma (q, width).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from ..._core.rows import concat_blocks
from ..._math.linalg import randomized_svd
from .table import DENSE_EIGEN, Table

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


def loss_curvature(task, weights):
    """Return X @ W (n, r), predictions (n, width), the mean curvature of the loss and the moments of X @ W and Z.

    The curvature (width, width) and the moments (r + q, r + q) are means over rows under the weights of the loss.
    """
    F, predictions, curvature, moments, total = task.gather(partial(_curvature_sums, task.loss, weights))
    return concat_blocks(F), concat_blocks(predictions), curvature, moments / total


def _curvature_sums(loss, unknowns, block, Z, targets, weights):
    F = block.matmul(unknowns.W)
    predictions = loss.link(F @ unknowns.B.to(Z.dtype) + Z @ unknowns.gamma.to(Z.dtype))
    units = torch.eye(predictions.shape[1], dtype=Z.dtype, device=Z.device)
    curvature = torch.stack([weights @ loss.curve(predictions, unit.expand_as(predictions)) for unit in units])
    columns = torch.cat([F, Z], 1)
    moments = columns.T @ (weights[:, None] * columns)
    return [F], [predictions], curvature.double(), moments.double(), weights.sum().double()


def curve_term(task, weights, F, predictions, direction):
    """Return the Gauss-Newton product of the fit term with a direction of W, B and gamma; F is X @ W.

    It is the Hessian by A and gamma, between the Jacobian of A = W B and its transpose.
    """
    (W, B, _), (dW, dB, dgamma) = weights, direction
    dA = dW @ B + W @ dB
    if B.shape[1] > len(B):
        through = partial(_curve_sums_through_codes, task.loss, B, direction)
        by_W, by_B, by_gamma = task.gather(through, F, predictions)
    else:
        by_A, by_gamma = task.gather(partial(_curve_sums, task.loss, dA, dgamma), predictions)
        by_W, by_B = by_A @ B.T, W.T @ by_A
    by_W, by_B = by_W + task.ridge * dA @ B.T, by_B + task.ridge * W.T @ dA
    return Weights(by_W, by_B, by_gamma + task.ridges[:, None] * dgamma)


def _curve_sums(loss, dA, dgamma, block, Z, targets, weights, predictions):
    curved = weights[:, None] * loss.curve(predictions, block.matmul(dA) + Z @ dgamma.to(Z.dtype))
    return block.matmul_transposed(curved), (Z.T @ curved).double()


def _curve_sums_through_codes(loss, B, direction, block, Z, targets, weights, F, predictions):
    dW, dB, dgamma = direction
    B, dB = B.to(Z.dtype), dB.to(Z.dtype)
    curved = weights[:, None] * loss.curve(predictions, block.matmul(dW) @ B + F @ dB + Z @ dgamma.to(Z.dtype))
    return block.matmul_transposed(curved @ B.T), (F.T @ curved).double(), (Z.T @ curved).double()


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
    width = A.shape[1]
    ridges = torch.cat([A.new_full((len(A),), task.ridge), task.ridges])
    (H,) = task.gather(partial(_hessian_sums, task.loss, A, gamma))
    H = H.permute(2, 0, 3, 1)
    return H.flatten(0, 1).flatten(1) + torch.diag(ridges.repeat_interleave(width))


def _hessian_sums(loss, A, gamma, block, Z, targets, weights):
    """Return the Hessian of a block without ridges, (width, width, p + q, p + q)."""
    F = torch.cat([block.X, Z], 1)
    predictions = loss.link(block.matmul(A) + Z @ gamma.to(Z.dtype))
    width = A.shape[1]
    H = A.new_zeros(width, width, F.shape[1], F.shape[1])
    for k, unit in enumerate(torch.eye(width, dtype=F.dtype, device=F.device)):
        curved = weights[:, None] * loss.curve(predictions, unit)
        for m in range(k, width):
            H[m, k] = (F.T @ (curved[:, m : m + 1] * F)).double()
            H[k, m] = H[m, k]
    return (H,)


def curve(task, weights, F, predictions, by_A, SW, direction):
    """Return the Hessian of :func:`objective` times a direction, where W is orthonormal.

    F is X @ W, `by_A` the gradient of the fit term by A, SW the second moment of X times W.
    """
    (W, _, _), (dW, dB, _) = weights, direction
    bent = curve_term(task, weights, F, predictions, direction)
    by_W = bent.W + by_A @ dB.T - task.xi * curve_explained(W, dW, SW, task.table.gram_times(dW))
    return bent._replace(W=by_W, B=bent.B + dW.T @ by_A)


def curve_explained(W, dW, SW, SdW):
    """Return the derivative of the gradient of :func:`explained` in the direction dW, where W is orthonormal."""
    T, dM = W.T @ SW, dW.T @ W + W.T @ dW
    dT = dW.T @ SW + W.T @ SdW - dM @ T
    return 2 * (SdW - dW @ T - W @ dT - (SW - W @ T) @ dM)


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
