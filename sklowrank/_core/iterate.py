"""The one loop behind every iterative solver: stopping, callbacks, progress lines, the convergence warning."""

import math
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from sklearn.exceptions import ConvergenceWarning

from .warn import warn
from .workspace import on_cluster


class Step(NamedTuple):
    """What a solver yields after each iteration."""

    state: Any
    gap: float  # relative distance from the optimum or from the previous iterate; compared with tol
    loss: float | None = None


class Run(NamedTuple):
    """The result of a solver, and how it ended."""

    state: Any
    n_iter: int
    loss_curve: list[float]
    converged: bool = True  # False where max_iter or a callback ended it


def drive(
    estimator,
    steps: Iterable[Step],
    *,
    attributes: Callable[[Any], dict[str, Any]],
    X=None,
    y=None,
    max_iter: int | None = None,
    tol: float | None = None,
    advice: str = "Raise max_iter or tol, or scale the features.",
) -> Run:
    """Pull `steps` until the gap is at or below `tol`, `max_iter` is reached, or a callback asks to stop.

    Both are the estimator's own, unless a method that counts in steps or epochs passes others. A solver that ends by
    itself has converged. The gap is infinite where no change can be measured yet. However the loop ends, by an error or
    an interrupt too, the solver is closed: its `finally` has run before this returns. `attributes` turns a state into
    the fitted attributes that methods read: callbacks such as ScoringMonitor ask for an estimator that is fitted as far
    as the fit has come. The contexts of steps are kept until the fit ends, so they are opened only where the user has
    set callbacks. `advice` is the last sentence of the warning where it has not converged.
    """
    X = X.source if on_cluster(X) else X
    max_iter = estimator.max_iter if max_iter is None else max_iter
    tol, name = estimator.tol if tol is None else tol, type(estimator).__name__
    watched = bool(getattr(estimator, "_skl_callbacks", None))
    task = estimator._init_callback_context(max_subtasks=max_iter)
    task.call_on_fit_task_begin(estimator=estimator, X=X, y=y)

    state, loss_curve, n_iter, gap, stopped, converged = None, [], 0, math.inf, False, True
    with closing(steps) if hasattr(steps, "close") else nullcontext():  # type: ignore[type-var]
        for n_iter, (state, gap, loss) in enumerate(islice(steps, max_iter), 1):
            if loss is not None:
                loss_curve.append(loss)
            if estimator.verbose:
                figures = [f"gap {gap:.1e}"] if math.isfinite(gap) else []
                figures += [] if loss is None else [f"loss {loss:.6g}"]
                print(f"[{name}] step {n_iter}: {', '.join(figures)}")
            if watched:
                step = task.subcontext(task_name="iteration").call_on_fit_task_begin(estimator=estimator, X=X, y=y)
                now = partial(attributes, state)  # the callback decides whether they are worth computing
                stopped = step.call_on_fit_task_end(estimator=estimator, X=X, y=y, reconstruction_attributes=now)
            if stopped or gap <= tol:
                converged = gap <= tol
                break
        else:
            converged = n_iter < max_iter
    if not (converged or stopped):
        reached = f"with a relative gap of {gap:.1e}, above tol={tol:.1e}"
        if not math.isfinite(gap):
            reached = f"before it could measure a relative gap to compare with tol={tol:.1e}"
        if not hasattr(estimator, "tol"):
            reached = "without having converged"
        warn(
            f"{name} stopped at max_iter={max_iter} {reached}. {advice}",
            ConvergenceWarning,
        )
    end = partial(attributes, state) if watched else None
    task.call_on_fit_task_end(estimator=estimator, X=X, y=y, reconstruction_attributes=end)
    return Run(state, n_iter, loss_curve, converged)
