"""The solver "lbfgs": L-BFGS, then Newton's method to the last digits, on dictionary and weights.

For a given dictionary the best codes are those of least squares: only the dictionary W, its weights B and those of the
covariates gamma are left as unknowns (variable projection). The equations of a Newton step are solved inexactly by
conjugate gradients, preconditioned by the Hessian of a loss with the same curvature at all rows.
"""

from functools import partial
from itertools import count, islice
from typing import NamedTuple

import torch

from ..._core.iterate import Step
from ..._core.rows import concat_blocks
from ..._math.linalg import randomized_svd
from .objective import DENSE_EIGEN, Weights, dictionary_for, fit_term, objective, relative_decrease

_FIRST = 50  # iterations of L-BFGS before Newton's method
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


# The Hessian


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
