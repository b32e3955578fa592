"""Solvers of the filter model without sign constraints, by unknowns W, B and gamma (variable projection).

For a given dictionary the best codes are those of least squares: only the dictionary, its weights and those of the
covariates are left as unknowns.

- "lbfgs": L-BFGS from the start, then Newton's method to the last digits. The equations of a Newton step are solved
  inexactly by conjugate gradients, preconditioned by the Hessian of a loss with the same curvature at all rows.
- "lpgd": the unknowns are lifted to the weights A on the features and the approximation of X. Stacked, they have rank
  r, since they share the dictionary, and the loss is convex in them: gradient steps, each followed by a projection on
  rank r. The step of the approximation is exact and lands on X, so the projection decomposes p x p moments.
"""

from functools import partial
from itertools import count, islice
from typing import NamedTuple

import torch

from ..._core.iterate import Step
from ..._math.linalg import randomized_svd
from ..._math.subspaces import top_eigenpairs
from .objective import (
    Weights,
    curve,
    dictionary_for,
    fit_term,
    loss_curvature,
    loss_share,
    objective,
)
from .table import DENSE_EIGEN

_FIRST = 50  # iterations of L-BFGS before Newton's method
_WINDOW = 4  # iterations over which the decrease is measured
_STEPS = 20  # of Newton's method in the refinement, at most
_REBUILT = 10  # steps between two updates of the dictionary to the best one for the weights
_HALVINGS = 15  # of a step, at most
_SLOPE = 1e-3  # share of the predicted decrease that a step has to reach
_LAST = 1e-9  # gap below which the gradient decides, since the objective is rounded
_PRODUCTS = 200  # with the Hessian for one step, at most
_FORCING = 0.1  # relative residual of the equations, at most
_AXES = 50  # principal axes in the preconditioner where there are many columns
_FLAT = 1e-5  # curvature below this share of that of the preconditioner counts as zero
_FLOOR = 1e-3  # of the curvatures along an axis, as a share of their largest


def lbfgs_and_newton(task, start, generator):
    """Yield weights and objective after each iteration, of L-BFGS at first, then of Newton's method."""
    values, near = [], start
    for near, value in _quasi_newton(task, start, _FIRST):
        values.append(value)
        yield Step(near, relative_decrease(values), value)
    for weights, value, gap in newton_steps(task, near, generator):
        yield Step(weights, gap, float(value))


def relative_decrease(values):
    """Return by how much the last of some objectives lies below that of four iterations before."""
    if len(values) <= _WINDOW:
        return float("inf")
    return (values[-_WINDOW - 1] - values[-1]) / max(abs(values[-1]), 1e-300)


def _quasi_newton(task, weights, n_iter):
    theta = flatten(weights).requires_grad_()
    evaluated = []  # the last points, values and gradients: torch asks again for where its line search ended

    def closure():
        for point, value, slope in evaluated:
            if torch.equal(point, theta):
                theta.grad = slope.clone()
                return value
        point = theta.detach().clone()
        value, gradient = objective(task, unflatten(point, weights))
        evaluated.append((point, float(value), flatten(gradient)))
        del evaluated[:-3]
        theta.grad = evaluated[-1][2].clone()
        return evaluated[-1][1]

    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=1,
        max_eval=25,
        history_size=20,
        tolerance_grad=0,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    for _ in range(n_iter):
        optimizer.step(closure)
        value = closure()
        yield unflatten(theta.detach().clone(), weights), value


# Newton's method


class PrincipalAxes(NamedTuple):
    """Principal axes of X: all of them, or the leading ones with one mean square for all other directions."""

    directions: torch.Tensor  # (p, k), orthonormal
    squares: torch.Tensor  # (k,), mean squares along them
    rest: float  # mean square along each other direction


def newton_steps(task, weights, generator):
    """Yield weights, objective and gap after each step of Newton's method; end when rounding prevents a decrease.

    The gap is the predicted decrease as a share of the objective.
    """
    noise = 10 * torch.finfo(task.table.weights.dtype).eps
    for i in count():
        if i % _REBUILT == 0:
            weights = with_best_dictionary(task, weights, generator)
            axes, forcing = principal_axes(task, weights.W, generator), _FORCING
            value, gradient = objective(task, weights)
        step, worth = newton_step(task, weights, gradient, axes, forcing)
        gap = worth / float(value.abs().clamp(min=torch.finfo(value.dtype).tiny))
        for halvings in range(_HALVINGS):
            length = 0.5**halvings
            trial = _orthonormal(unflatten(flatten(weights) - length * step, weights))
            trial_value, trial_gradient = objective(task, trial)
            nearer = float(flatten(trial_gradient).norm() / flatten(gradient).norm())
            needed = max(_SLOPE * length * worth, noise * float(value.abs()))
            if value - trial_value > needed or (gap < _LAST and nearer < 0.5):
                break
        else:
            return
        weights, value, gradient, forcing = trial, trial_value, trial_gradient, min(_FORCING, nearer)
        yield weights, value, gap


def polish(task, weights, generator, tol):
    """Return the minimum near to weights: the next step would lower the objective by a share of about tol² at most.

    Steps go on where the objective no longer changes but its gradient still decreases.
    """
    best = weights
    for best, _, gap in islice(newton_steps(task, weights, generator), _STEPS):
        if gap <= 0.01 * tol**2:
            break
    return best


def with_best_dictionary(task, weights, generator):
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
        return flatten(level(function(level(unflatten(vector, weights)))))

    gradient = flatten(level(gradient))
    step = conjugate_gradients(partial(within, bend), partial(within, precondition), gradient, tol=forcing)
    return step, float(gradient @ step) / 2


def principal_axes(task, W, generator):
    """Return the :class:`PrincipalAxes` of what an orthonormal W leaves of X."""
    table, p = task.table, task.table.shape[1]

    def projected_out(V):
        return V - W @ (W.T @ V)

    def multiply(V):
        return projected_out(table.gram_times(projected_out(V)))

    if table.gram is not None and p <= DENSE_EIGEN:
        e, V = torch.linalg.eigh(projected_out(projected_out(table.gram).T))
        return PrincipalAxes(V, e.clamp(min=0), 0.0)
    start = torch.randn(p, min(_AXES + 10, *table.shape), generator=generator, dtype=torch.float64, device="cpu")
    start, k = start.to(table.weights.device), min(_AXES, *table.shape)
    U, e, _ = randomized_svd(multiply, multiply, start, n_components=k, n_iter=2)
    left = task.squares - float((W * table.gram_times(W)).sum()) - float(e.sum())
    return PrincipalAxes(U, e, max(0.0, left) / max(1, p - k - W.shape[1]))


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
        d_weights = torch.einsum("krs,sk->rk", across, torch.cat([direction.B, direction.gamma]) @ U) @ U.T
        return Weights(dW, *d_weights.split([r, len(task.ridges)]))

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


def flatten(weights):
    """Return the unknowns as one vector."""
    return torch.cat([part.reshape(-1) for part in weights])


def unflatten(theta, like):
    """Return a vector as unknowns, shaped as others are."""
    parts = theta.split([part.numel() for part in like])
    return Weights(*(part.view(whole.shape) for part, whole in zip(parts, like)))


# Projected gradients in lifted variables


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
