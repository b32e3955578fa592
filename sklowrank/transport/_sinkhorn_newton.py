"""Entropic optimal transport between two weighted samples, to high accuracy in few iterations."""

from itertools import islice
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array

from .._core.compat import Interval, StrOptions, validate_params
from .._core.modes import in_plain_modes
from .._core.validation import on_host
from .._core.warn import warn
from .._core.workspace import Workspace, open_workspace
from ._sinkhorn_newton_solver import (
    NewtonOptions,
    feasible_plan,
    positive_part,
    scaling_form,
    solve_potentials,
    weighted_sum,
    with_massless,
)

_FLOATS = [np.float64, np.float32]

SOLVER_CONSTRAINTS = {
    "warmup": [Interval(Integral, 1, None, closed="left")],
    "continuation": ["boolean"],
    "density": [Interval(Real, 0, 1, closed="right"), StrOptions({"auto"})],
    "max_newton": [Interval(Integral, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "device": [str],
}


class SinkhornResult(NamedTuple):
    """What :func:`sinkhorn_newton` returns.

    Attributes
    ----------
    plan : array of shape (n, m)
        The transport plan; its sums are `a` and `b` up to rounding.
    u, v : arrays of shape (n,) and (m,)
        Potentials in units of C: ``exp((u_i + v_j - C_ij) / reg)`` is the plan before its sums are made exact.
    cost : float
        Cost of the plan, ``<C, plan>``.
    dual_value : float
        Value of the dual problem, ``<u, a> + <v, b> - reg * sum(exp((u_i + v_j - C_ij) / reg)) + reg``.
    marginal_error : float
        Distance in l1 between the sums of the plan, before they are made exact, and `a` and `b`.
    n_sinkhorn, n_newton, n_cg : int
        Number of sweeps, of Newton steps, and of iterations of conjugate gradients in all Newton steps.
    converged : bool
        Whether `marginal_error` is at most `tol`.

    Examples
    --------
    >>> from sklowrank.transport import sinkhorn_newton
    >>> result = sinkhorn_newton([0.5, 0.5], [0.25, 0.75], [[0.0, 1.0], [1.0, 0.0]], reg=0.01)
    >>> result.plan.round(3)
    array([[0.25, 0.25],
           [0.  , 0.5 ]])
    """

    plan: Any
    u: Any
    v: Any
    cost: float
    dual_value: float
    marginal_error: float
    n_sinkhorn: int
    n_newton: int
    n_cg: int
    converged: bool


@validate_params(
    {"C": ["array-like"], "reg": [Interval(Real, 0, None, closed="neither")], **SOLVER_CONSTRAINTS},
    prefer_skip_nested_validation=True,
)
@in_plain_modes
def sinkhorn_newton(
    a,
    b,
    C,
    reg: float,
    *,
    warmup: int = 5,
    continuation: bool = True,
    density: float | Literal["auto"] = "auto",
    tol: float = 1e-9,
    max_newton: int = 60,
    max_iter: int = 10_000,
    device: str = "auto",
) -> SinkhornResult:
    """Solve entropic optimal transport by Sinkhorn sweeps and sparse Newton steps.

    Where the regularisation is small compared with the costs, tens of iterations reach an error for which Sinkhorn's
    algorithm alone takes thousands. Without a regularisation, exact solvers are faster for some hundreds of points.

    Parameters
    ----------
    a, b : array-likes of shape (n,) and (m,), or None
        Masses, non-negative; each is divided by its sum. None is uniform.
    C : array-like or tensor of shape (n, m)
        Cost of moving a unit of mass from i to j, of any sign.
    reg : float
        Strength of the entropy, above 0, in units of `C`.
    warmup : int, default=5
        Number of sweeps before the first Newton step, of each problem of the continuation.
    continuation : bool, default=True
        Whether to solve roughly a series of problems first whose regularisation is 2, 4, ... times `reg`, so that the
        Newton steps start near the solution. ``False`` with ``warmup=20`` is the algorithm as published; it does not
        converge for all costs.
    density : float or "auto", default="auto"
        Share of the entries of the plan in the Hessian at the start, in (0, 1]. "auto" leaves out the entries that are
        small for their row and for their column. Where a step does not halve the error, more are kept.
    tol : float, default=1e-9
        Tolerance of the stopping criterion. This is the marginal error in l1, for masses that sum to one.
    max_newton : int, default=60
        Maximum number of Newton steps with the final regularisation; sweeps follow.
    max_iter : int, default=10000
        Maximum number of iterations. Sweeps and Newton steps count.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".

    Returns
    -------
    result : SinkhornResult
        The plan, potentials and counts, as a named tuple. Everything is computed in float64.

    See Also
    --------
    SinkhornTransport : Move the rows of one table onto another.
    scipy.optimize.linear_sum_assignment : Exact, for uniform masses of equal number.

    Notes
    -----
    The plan minimises ``<C, P> + reg * sum(P log P)`` among those with sums a and b. Newton steps maximise the dual;
    their Hessian has the sums of the whole plan on its diagonal and its largest entries beside it, gradients and sums
    are those of the whole plan. A step takes O(n m) time and some iterations of conjugate gradients with the entries
    kept; where these are more than 250, at most 4096 rows are factorised instead. The memory is some times that of C.

    References
    ----------
    .. [1] X. Tang et al., "Accelerating Sinkhorn algorithm with sparse Newton iterations", ICLR 2024.
    .. [2] J. Altschuler, J. Weed, P. Rigollet, "Near-linear time approximation algorithms for optimal transport via
       Sinkhorn iteration", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.transport import sinkhorn_newton
    >>> C = np.random.default_rng(0).uniform(size=(200, 200))
    >>> result = sinkhorn_newton(None, None, C, reg=1e-3)
    >>> result.converged, result.n_sinkhorn + result.n_newton < 60
    (True, True)
    >>> np.allclose(result.plan.sum(axis=1), 1 / 200)
    True
    """
    C = C.detach() if isinstance(C, torch.Tensor) else check_array(C, input_name="C", dtype=_FLOATS)
    ws = open_workspace(C, device=device).exact()
    cost = ws.load(C).double()
    masses = [checked_masses(w, n, name, ws) for w, n, name in zip((a, b), cost.shape, "ab")]
    check_costs(cost, "C")
    options = NewtonOptions(tol, warmup=warmup, continuation=continuation, density=density, max_newton=max_newton)
    for state, gap, _ in islice(solve_potentials(positive_part(cost, *masses, reg), options), max_iter):
        if gap <= tol:
            break
    if state.error > tol or gap > tol:
        warn(_not_converged(state, max_iter, tol), ConvergenceWarning)
    state = with_massless(state, *masses)
    plan = scaling_form(cost, state.u, state.v, reg)
    dual = weighted_sum(state.u, masses[0]) + weighted_sum(state.v, masses[1]) - reg * (float(plan.sum()) - 1)
    plan = feasible_plan(plan, *masses)
    return SinkhornResult(
        plan=ws.store(plan),
        u=ws.store(state.u),
        v=ws.store(state.v),
        cost=float((cost * plan).sum()),
        dual_value=dual,
        marginal_error=state.error,
        n_sinkhorn=state.n_sinkhorn,
        n_newton=state.n_newton,
        n_cg=state.n_cg,
        converged=gap <= tol,
    )


def _not_converged(state, max_iter, tol):
    """Return the text of the warning."""
    reached = f"with a marginal error of {state.error:.1e}, above tol={tol:.1e}"
    if state.n_sinkhorn + state.n_newton >= max_iter:
        return f"sinkhorn_newton stopped at max_iter={max_iter} {reached}. Raise max_iter, tol or reg."
    return f"sinkhorn_newton stopped {reached}, where rounding in float64 allows no less. Raise reg or tol."


def checked_masses(weights, n: int, name: str, ws: Workspace) -> torch.Tensor:
    """Return masses (n,) that sum to one, uniform where there are no weights."""
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64, device=ws.device)
    try:
        found = np.asarray(on_host(weights), dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} has values that are no numbers. Pass non-negative numbers.") from None
    if found.shape != (n,):
        raise ValueError(f"{name} has shape {found.shape}, but there are {n} rows to weight. Pass shape ({n},).")
    if not np.all(np.isfinite(found)) or found.min() < 0 or found.max() <= 0:
        raise ValueError(
            f"{name} has to be finite, at least 0, and above 0 somewhere; its values are between {found.min():g} and "
            f"{found.max():g}."
        )
    found = found / found.max()
    return ws.load(found / found.sum())


def check_costs(cost: torch.Tensor, name: str) -> None:
    """Raise a ValueError where a cost is not finite."""
    if not torch.isfinite(cost).all():
        raise ValueError(f"{name} contains NaN or infinity. Pass finite costs, large ones for pairs to be avoided.")
