"""Supervised dictionary learning, codes eliminated: L-BFGS and Newton's method on dictionary and weights.

For a given dictionary the best codes are those of least squares, so only the dictionary, its weights and those of the
covariates are left as unknowns (variable projection).
"""

import torch

from .._core.iterate import Step
from ._newton import approach, flat, shaped
from ._supervised_dictionary_objective import objective

_FIRST = 50  # iterations of L-BFGS, which come near to a minimum from anywhere
_WINDOW = 4  # iterations over which the decrease is looked at


def descend(task, start, generator):
    """Yield weights and objective after each iteration, of L-BFGS at first, then of Newton's method."""
    values, near = [], start
    for near, value in _quasi_newton(task, start, _FIRST):
        values.append(value)
        yield Step(near, relative_decrease(values), value)
    for weights, value, gap in approach(task, near, generator):
        yield Step(weights, gap, float(value))


def relative_decrease(values):
    """Return by how much the last of some objectives lies below that of four iterations before."""
    if len(values) <= _WINDOW:
        return float("inf")
    return (values[-_WINDOW - 1] - values[-1]) / max(abs(values[-1]), 1e-300)


def _quasi_newton(task, weights, n_iter):
    theta = flat(weights).requires_grad_()
    known = []  # the last points, their values and gradients: torch asks again for where its line search ended

    def closure():
        for point, value, slope in known:
            if torch.equal(point, theta):
                theta.grad = slope.clone()
                return value
        point = theta.detach().clone()
        value, gradient = objective(task, shaped(point, weights))
        known.append((point, float(value), flat(gradient)))
        del known[:-3]
        theta.grad = known[-1][2].clone()
        return known[-1][1]

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
        yield shaped(theta.detach().clone(), weights), value
