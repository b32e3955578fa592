"""The solver "lpgd": projected gradients in lifted variables, the weights A on the features and the approximation of X.

Both share a dictionary of r directions: stacked, they have rank r, and the loss is convex in them. Gradient steps are
each followed by a projection on rank r. The step of the approximation is exact and lands on X, so the projection
decomposes p x p moments.
"""

import torch

from ..._core.iterate import Step
from ..._math.linalg import randomized_svd
from ..._math.subspaces import top_eigenpairs
from .objective import DENSE_EIGEN, Weights, fit_term, loss_share, objective, relative_decrease


def projected_gradients(task, start, generator):
    """Yield weights and objective after each step, extrapolated as long as the objective falls."""
    for_A, for_gamma = _curvatures(task, start)
    rank, values, best = start.W.shape[1], [], start
    A, gamma = start.W @ start.B, start.gamma
    ahead, momentum = (A, gamma), 1.0
    while True:
        _, by_A, by_gamma = fit_term(task, *ahead)
        weights = _projected(
            task, ahead[0] - by_A / for_A, ahead[1] - by_gamma / for_gamma, for_A, rank, best, generator
        )
        value = float(objective(task, weights)[0])
        if values and value > values[-1] and momentum > 1:  # the extrapolation went too far: take the plain step
            ahead, momentum = (A, gamma), 1.0
            continue
        values.append(value)
        best, following = weights, (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        share = (momentum - 1) / following
        new = weights.W @ weights.B, weights.gamma
        ahead = tuple(now + share * (now - before) for now, before in zip(new, (A, gamma)))
        (A, gamma), momentum = new, following
        yield Step(weights, relative_decrease(values), value)


def _projected(task, A, gamma, curvature, rank, former, generator):
    """Return the weights nearest to A, and to X as its own approximation, with a dictionary of `rank` directions."""

    def moments(V):
        return curvature * A @ (A.T @ V) + 2 * task.xi * task.table.gram_times(V)

    p = len(A)
    if task.table.gram is not None and p <= DENSE_EIGEN:
        U = top_eigenpairs(curvature * A @ A.T + 2 * task.xi * task.table.gram, rank)[0]
    else:
        more = torch.randn(p, min(10, p - rank), generator=generator, dtype=A.dtype, device="cpu").to(A.device)
        U = randomized_svd(moments, moments, torch.cat([former.W, more], 1), n_components=rank)[0]
    return Weights(U, U.T @ A, gamma)


def _across(block, Z, targets, weights):
    return (block.matmul_transposed(weights[:, None] * Z),)


def _curvatures(task, start):
    """Return a bound on the curvature of the fit term by A, and one by gamma, that hold together."""
    largest = float((start.W[:, :1] * task.table.gram_times(start.W[:, :1])).sum())
    weights = task.weights.double()
    largest *= float(loss_share(task))
    Z = task.Z.double()
    (across,) = task.gather(_across)
    tiny = torch.finfo(torch.float64).tiny
    wide = float(torch.linalg.matrix_norm(Z.T @ (weights[:, None] * Z), 2)) if Z.shape[1] else 0.0
    both = 1 + (float(torch.linalg.matrix_norm(across, 2)) / max(largest * wide, tiny) ** 0.5 if Z.shape[1] else 0.0)
    bound = both * task.loss.bound
    steepest = float(task.ridges.amax()) if len(task.ridges) else 0.0
    return max(bound * largest + task.ridge, tiny), max(bound * wide + steepest, tiny)
