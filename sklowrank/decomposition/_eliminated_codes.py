"""Supervised dictionary learning, codes eliminated: L-BFGS on dictionary and weights, Newton for the last digits.

For a given dictionary the best codes are those of least squares, so only the dictionary, its weights and those of the
covariates are left as unknowns (variable projection).
"""

import torch

from .._core.iterate import Step
from ._supervised_dictionary_objective import (
    Weights,
    curve,
    curve_term,
    dictionary_for,
    fit_hessian,
    fit_term,
    objective,
)

_REBUILT = 50  # iterations between two exact dictionaries for the weights as they are
_DENSE_NEWTON = 1000  # unknowns: up to here Newton's equations are decomposed
_WINDOW = 4  # iterations over which the decrease is looked at


def descend(task, start, generator):
    """Yield weights and objective after each iteration of L-BFGS."""
    values = []
    while True:
        for weights, value in _quasi_newton(task, start, _REBUILT):
            values.append(value)
            yield Step(weights, relative_decrease(values), value)
        start = rebuilt(task, weights, generator)


def relative_decrease(values):
    """Return by how much the last of some objectives lies below that of four iterations before."""
    if len(values) <= _WINDOW:
        return float("inf")
    return (values[-_WINDOW - 1] - values[-1]) / max(abs(values[-1]), 1e-300)


def _quasi_newton(task, weights, n_iter):
    theta = _flat(weights).requires_grad_()
    known = []  # the last points, their values and gradients: torch asks again for where its line search ended

    def closure():
        for point, value, slope in known:
            if torch.equal(point, theta):
                theta.grad = slope.clone()
                return value
        point = theta.detach().clone()
        value, gradient = objective(task, _shaped(point, weights))
        known.append((point, float(value), _flat(gradient)))
        del known[:-3]
        return closure()

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
        yield _shaped(theta.detach().clone(), weights), value


def rebuilt(task, weights, generator):
    """Return the weights with the best dictionary for the same weights on the features."""
    A = weights.W @ weights.B
    W = dictionary_for(task.table, A, weights.W.shape[1], generator)
    return Weights(W, W.T @ A, weights.gamma)


def polish(task, weights, generator, most=20):
    """Return the minimum near to weights, by Newton's method.

    Where the objective no longer changes, its gradient still does: this buys the last digits.
    """
    weights = rebuilt(task, weights, generator)
    value, gradient = objective(task, weights)
    for _ in range(most):
        step = newton_step(task, weights, gradient)
        for length in (1.0, 0.5, 0.25, 0.125, 0.0625):
            there = rebuilt(task, _shaped(_flat(weights) - length * step, weights), generator)
            value_there, gradient_there = objective(task, there)
            nearer = _flat(gradient_there).norm() < 0.5 * _flat(gradient).norm()
            if nearer or value_there < value - 1e-13 * value.abs():
                weights, value, gradient = there, value_there, gradient_there
                break
        else:
            break
    return weights


def newton_step(task, weights, gradient):
    """Return the step that Newton's method takes back, as a vector; eigenvalues count by their magnitude."""
    W, B, gamma = weights
    by_A = fit_term(task, W @ B, gamma)[1]
    n_unknowns, n_weights = sum(part.numel() for part in weights), len(W) + len(gamma)
    dense = task.table.gram is not None and max(n_unknowns, n_weights * B.shape[1]) <= _DENSE_NEWTON
    if dense:
        H = fit_hessian(task, W @ B, gamma)

    def curve_fit(dA, dgamma):
        if not dense:
            return curve_term(task, W @ B, gamma, dA, dgamma)
        return (H @ torch.cat([dA, dgamma]).flatten()).view(n_weights, -1).split([len(W), len(gamma)])

    def level(direction):  # leave out what only turns the dictionary within its span: B does that, too
        return direction._replace(W=direction.W - W @ (W.T @ direction.W))

    def bend(direction):
        return _flat(level(curve(task, weights, by_A, curve_fit, level(_shaped(direction, weights)))))

    gradient = _flat(level(gradient))
    if not dense:
        return conjugate_gradients(bend, gradient, tol=1e-3, most=200)
    eye = torch.eye(n_unknowns, dtype=gradient.dtype, device=gradient.device)
    e, V = torch.linalg.eigh(torch.func.vmap(bend)(eye))
    e = torch.where(e.abs() > 1e-12 * e.abs().max(), e.abs(), torch.inf)
    return V @ (V.T @ gradient / e)


def conjugate_gradients(multiply, b, *, tol, most):
    """Return x with ``multiply(x) = b`` to the relative residual tol; where curvature is negative, x as it was."""
    x, r = torch.zeros_like(b), b.clone()
    d, size = r.clone(), r @ r
    target = size * tol**2
    for _ in range(most):
        Hd = multiply(d)
        bend = d @ Hd
        if bend <= 0:
            break
        alpha = size / bend
        x, r = x + alpha * d, r - alpha * Hd
        new = r @ r
        if new <= target:
            break
        d, size = r + (new / size) * d, new
    return x


def _flat(weights):
    return torch.cat([part.reshape(-1) for part in weights])


def _shaped(theta, like):
    parts = theta.split([part.numel() for part in like])
    return Weights(*(part.view(whole.shape) for part, whole in zip(parts, like)))
