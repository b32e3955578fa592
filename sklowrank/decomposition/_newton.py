"""Newton's method for a dictionary whose codes are eliminated, from near a minimum to its last digits.

The equations of a step are solved by conjugate gradients, as far as the gradient is worth it (inexact Newton), and
preconditioned by the Hessian that all rows would give if the loss had one curvature for all of them.
"""

from functools import partial
from itertools import count, islice
from typing import NamedTuple

import torch

from .._math.linalg import randomized_svd
from ._supervised_dictionary_objective import (
    DENSE_EIGEN,
    Weights,
    curve,
    dictionary_for,
    fit_term,
    loss_curvature,
    objective,
)

_STEPS = 20  # of Newton's method for the last digits, at most
_REBUILT = 10  # steps between two exact dictionaries for the weights as they are
_HALVINGS = 15  # of a step, at most
_SLOPE = 1e-3  # share of the promised decrease that a step has to keep
_LAST = 1e-9  # gap from which on the gradient says what the objective is too coarse for
_PRODUCTS = 200  # with the Hessian for one of them, at most
_FORCING = 0.1  # residual of the equations, as a share of the gradient, at most
_AXES = 50  # principal axes that the preconditioner tells apart where there are many columns
_FLAT = 1e-5  # curvature below this share of what the preconditioner expects is none
_FLOOR = 1e-3  # of the curvatures along an axis, as a share of their largest


class Axes(NamedTuple):
    """Principal axes of X: all of them, or the leading ones with one mean square for what they leave."""

    directions: torch.Tensor  # (p, k), orthonormal
    squares: torch.Tensor  # (k,), mean squares along them
    rest: float  # mean square along each other direction


def approach(task, weights, generator):
    """Yield weights, objective and gap after each step of Newton's method; end where rounding lets no step do better.

    The gap is the share of the objective that the step was to take away.
    """
    noise = 10 * torch.finfo(task.table.weights.dtype).eps
    for i in count():
        if i % _REBUILT == 0:
            weights = rebuilt(task, weights, generator)
            axes, forcing = principal_axes(task, weights.W, generator), _FORCING
            value, gradient = objective(task, weights)
        step, worth = newton_step(task, weights, gradient, axes, forcing)
        gap = worth / float(value.abs().clamp(min=torch.finfo(value.dtype).tiny))
        for halvings in range(_HALVINGS):
            length = 0.5**halvings
            there = _orthonormal(shaped(flat(weights) - length * step, weights))
            value_there, gradient_there = objective(task, there)
            nearer = float(flat(gradient_there).norm() / flat(gradient).norm())
            needed = max(_SLOPE * length * worth, noise * float(value.abs()))
            if value - value_there > needed or (gap < _LAST and nearer < 0.5):
                break
        else:
            return
        weights, value, gradient, forcing = there, value_there, gradient_there, min(_FORCING, nearer)
        yield weights, value, gap


def polish(task, weights, generator, tol):
    """Return the minimum near to weights: the next step would lower the objective by a share of about tol² at most.

    Where the objective no longer changes, its gradient still does: this buys the last digits.
    """
    best = weights
    for best, _, gap in islice(approach(task, weights, generator), _STEPS):
        if gap <= 0.01 * tol**2:
            break
    return best


def rebuilt(task, weights, generator):
    """Return the weights with the best dictionary for the same weights on the features."""
    A = weights.W @ weights.B
    W = dictionary_for(task.table, A, weights.W.shape[1], generator, near=weights.W)
    return Weights(W, W.T @ A, weights.gamma)


def _orthonormal(weights):
    Q, R = torch.linalg.qr(weights.W)
    return Weights(Q, R @ weights.B, weights.gamma)


def newton_step(task, weights, gradient, axes, forcing):
    """Return the step that Newton's method takes back, as a vector, and by how much it should lower the objective."""
    W, B, gamma = weights
    by_A, SW = fit_term(task, W @ B, gamma)[1], task.table.gram_times(W)
    F, predictions, *curvature = loss_curvature(task, weights)
    bend = partial(curve, task, weights, F, predictions, by_A, SW)
    precondition = preconditioner(task, weights, axes, SW, *curvature)

    def level(direction):  # leave out what only turns the dictionary within its span: B does that, too
        return direction._replace(W=direction.W - W @ (W.T @ direction.W))

    def within(function, vector):
        return flat(level(function(level(shaped(vector, weights)))))

    gradient = flat(level(gradient))
    step = conjugate_gradients(partial(within, bend), partial(within, precondition), gradient, tol=forcing)
    return step, float(gradient @ step) / 2


def principal_axes(task, W, generator):
    """Return the :class:`Axes` of what an orthonormal W leaves of X."""
    table, p = task.table, task.table.shape[1]

    def aside(V):
        return V - W @ (W.T @ V)

    def multiply(V):
        return aside(table.gram_times(aside(V)))

    if table.gram is not None and p <= DENSE_EIGEN:
        e, V = torch.linalg.eigh(aside(aside(table.gram).T))
        return Axes(V, e.clamp(min=0), 0.0)
    start = torch.randn(p, min(_AXES + 10, *table.shape), generator=generator, dtype=torch.float64, device="cpu")
    start, k = start.to(table.weights.device), min(_AXES, *table.shape)
    U, e, _ = randomized_svd(multiply, multiply, start, n_components=k, n_iter=2)
    left = task.squares - float((W * table.gram_times(W)).sum()) - float(e.sum())
    return Axes(U, e, max(0.0, left) / max(1, p - k - W.shape[1]))


def preconditioner(task, weights, axes, SW, curvature, moments):
    """Return the inverse of an approximate Hessian of the objective, as a function of directions.

    Each row has the same `curvature` (width, width) of the loss. Dictionary and weights are then not coupled, the
    dictionary falls apart along the principal axes of X, the weights along those of `curvature`; `moments`
    (r + q, r + q) are those of filtered features and covariates.
    """
    W, B, _ = weights
    r, eye = len(B), torch.eye(len(B), dtype=B.dtype, device=B.device)
    bent = B @ curvature @ B.T - 2 * task.xi * eye
    level = task.ridge * B @ B.T + 2 * task.xi * W.T @ SW
    squares = torch.cat([axes.squares, axes.squares.new_tensor([axes.rest])])
    e, V = torch.linalg.eigh(squares[:, None, None] * bent + level)
    e = e.abs()
    e = e.clamp(min=torch.finfo(e.dtype).tiny).maximum(_FLOOR * e.amax(1, keepdim=True))
    inverse = (V / e[:, None, :]) @ V.mT  # (k + 1, r, r)

    c, U = torch.linalg.eigh(curvature)
    ridges = torch.cat([task.ridge * torch.ones_like(B[:, 0]), task.ridges])
    unit = (c[-1] * moments.diagonal() + ridges).clamp(min=torch.finfo(e.dtype).tiny).sqrt()
    f, V = torch.linalg.eigh((c[:, None, None] * moments + torch.diag(ridges)) / torch.outer(unit, unit))
    f = torch.where(f > 1e-12, f, torch.inf)  # one number added to the intercepts of all classes changes nothing
    across = (V / f[:, None, :]) @ V.mT / torch.outer(unit, unit)  # (width, r + q, r + q)

    def apply(direction):
        along = axes.directions.T @ direction.W
        dW = (direction.W - axes.directions @ along) @ inverse[-1]
        dW += axes.directions @ torch.einsum("jr,jrs->js", along, inverse[:-1])
        beside = torch.einsum("krs,sk->rk", across, torch.cat([direction.B, direction.gamma]) @ U) @ U.T
        return Weights(dW, *beside.split([r, len(task.ridges)]))

    return apply


def conjugate_gradients(multiply, precondition, b, *, tol):
    """Return x with ``multiply(x) = b`` to the relative residual tol, in the norm of the preconditioner.

    Where the curvature is negative, or next to none for the preconditioner, x is what it was before; at the first step
    it is the preconditioned b.
    """
    x, r = torch.zeros_like(b), b.clone()
    s = precondition(r)
    d, size = s.clone(), r @ s
    target, expected = size * tol**2, size  # the curvature along d, if the preconditioner were right
    for i in range(_PRODUCTS):
        Hd = multiply(d)
        bend = d @ Hd
        if bend <= _FLAT * expected:
            return x if i else d
        alpha = size / bend
        x, r = x + alpha * d, r - alpha * Hd
        s = precondition(r)
        new = r @ s
        if new <= target:
            break
        share = new / size
        d, size, expected = s + share * d, new, new + share**2 * expected
    return x


def flat(weights):
    """Return the unknowns as one vector."""
    return torch.cat([part.reshape(-1) for part in weights])


def shaped(theta, like):
    """Return a vector as unknowns, shaped as others are."""
    parts = theta.split([part.numel() for part in like])
    return Weights(*(part.view(whole.shape) for part, whole in zip(parts, like)))
