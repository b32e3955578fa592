"""Potentials of entropic optimal transport: Sinkhorn sweeps, then Newton steps with a sparse Hessian.

Costs are in units of the regularisation, and the plan of the potentials f, g is ``exp(f_i + g_j - K_ij)``. The dual
``a'f + b'g - sum(plan)`` is concave; its gradient is what the marginals of the plan lack.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch

from .._core.iterate import Step
from .._math.sparse import csr_tensor

_LEAST_EXPONENT, _MOST_EXPONENT = -300.0, 50.0  # of entries of a plan; smaller ones would be denormal, and slow
_LEAST_SUM, _LARGEST_ENTRY = 1e-100, 1e20  # of a plan whose rows and columns can be scaled without logarithms
_LARGEST_SCALING = 1e30  # after which scalings are taken into the potentials
_SWEEPS_PER_PLAN = 50  # likewise
_FIRST_RANGE = 20.0  # of the costs in the first problem of the continuation
_LEVEL_TOLERANCE, _LEVEL_STEPS = 1e-2, 8  # where the problems before the last one are left
_ARMIJO = 1e-4  # share of the linear rise that a step has to reach
_SMALL_SLOPE = 1e-6  # below which the rise of the dual may be lost in rounding
_LEAST_STEP = 1e-6  # of the line search, after which sweeps take over
_SWEEPS_AFTER_FAILURE = 20
_DROPPED = 1e-3  # entries below this share of the mean of their row and of their column are left out at first
_DENSE = 0.1  # share of the entries from which products with the dense plan are faster
_MOST_CG = 250  # iterations, after which a factorisation is faster
_LARGEST_FACTORISED = 4096  # rows
_EPS = torch.finfo(torch.float64).eps


class EntropicProblem(NamedTuple):
    """Transport between masses a and b, all positive; the cost is ``reg * (K_ij + rows_i + columns_j)``."""

    K: torch.Tensor  # (n, m)
    rows: torch.Tensor  # (n,)
    columns: torch.Tensor  # (m,)
    a: torch.Tensor
    b: torch.Tensor
    reg: float


class NewtonOptions(NamedTuple):
    """What the solver reads."""

    tol: float
    newton: bool = True  # False: sweeps alone
    warmup: int = 5
    continuation: bool = True
    density: float | str = "auto"
    max_newton: int = 60


class Potentials(NamedTuple):
    """Where the solver stands: potentials in units of the cost, the marginal error, and what was done."""

    u: torch.Tensor
    v: torch.Tensor
    error: float
    n_sinkhorn: int
    n_newton: int
    n_cg: int


def entropic_problem(a, b, C, reg) -> EntropicProblem:
    """Return the problem of a cost matrix in float64, without what rows and columns add to all of their entries."""
    rows = C.mean(1) / reg
    K = C / reg - rows[:, None]
    columns = K.mean(0)
    K -= columns
    return EntropicProblem(K, rows, columns, a, b, float(reg))


def solve_potentials(problem: EntropicProblem, options: NewtonOptions) -> Iterator[Step]:
    """Yield :class:`Potentials` after each sweep and each Newton step; the gap is the marginal error in l1.

    It ends where the error is below `tol`, or below what rounding in ``exp`` allows. A continuation begins with costs
    of a small range, doubles them, and keeps the potentials; before the last problem the gap is infinite.
    """
    if len(problem.a) > len(problem.b):
        for step in solve_potentials(_transposed(problem), options):
            u, v, *rest = step.state
            yield step._replace(state=Potentials(v, u, *rest))
        return
    width = float(problem.K.max() - problem.K.min())
    target = max(options.tol, 4 * _EPS * width)
    levels = _levels(width) if options.continuation and options.newton else [1.0]
    f, g = torch.zeros_like(problem.a), torch.zeros_like(problem.b)
    counts, before = [0, 0, 0], levels[0]
    for level in levels:
        f, g, before, last = f * (level / before), g * (level / before), level, level == 1
        scaled = problem if last else problem._replace(K=level * problem.K)
        for found in _solve_level(scaled, f, g, options, last):
            f, g, error, done = found
            counts = [count + more for count, more in zip(counts, done)]
            u, v = (f / level + problem.rows) * problem.reg, (g / level + problem.columns) * problem.reg
            yield Step(Potentials(u, v, error, *counts), error if last else math.inf)
            if error <= (target if last else max(target, _LEVEL_TOLERANCE)):
                break


def _transposed(problem):
    return EntropicProblem(problem.K.T.contiguous(), problem.columns, problem.rows, problem.b, problem.a, problem.reg)


def _levels(width):
    """Return the factors of the costs in a continuation, the last one 1."""
    n_before = max(0, math.ceil(math.log2(width / _FIRST_RANGE))) if width > 0 else 0
    return [_FIRST_RANGE / width * 2**k for k in range(n_before)] + [1.0]


def _solve_level(problem, f, g, options, last):
    """Yield potentials, their error, and counts of sweeps, Newton steps and iterations of conjugate gradients.

    Without end in the last problem, where sweeps follow the Newton steps.
    """
    stages = [partial(_sweeps, count=None)] if last else []
    if options.newton:
        count = options.max_newton if last else _LEVEL_STEPS
        newton = partial(_newton_steps, density=options.density, count=count)
        stages = [partial(_sweeps, count=options.warmup), newton, *stages]
    for stage in stages:
        for found in stage(problem, f, g):
            f, g, *_ = found
            yield found


# Sweeps


def _sweeps(problem, f, g, *, count):
    """Yield the potentials after each of some sweeps, or of sweeps without end.

    The plan of the potentials is scaled, which takes two products with it for each sweep. Where a row or a column of it
    is too small for that, sums are by their logarithms.
    """
    done, (K, a, b) = 0, (problem.K, problem.a, problem.b)
    while count is None or done < count:
        plan = _plan(K, f, g)
        sums = plan.sum(1)
        if min(sums.min(), plan.sum(0).min()) < _LEAST_SUM or plan.max() > _LARGEST_ENTRY:
            f = a.log() - torch.logsumexp(g - K, 1)
            g = b.log() - torch.logsumexp(f[:, None] - K, 0)
            plan = _plan(K, f, g)
            done += 1
            yield f, g, _error(plan.sum(1), plan.sum(0), a, b), (1, 0, 0)
            continue
        left, right = torch.ones_like(f), torch.ones_like(g)
        for _ in range(_SWEEPS_PER_PLAN):
            left, right = a / sums, b / (plan.T @ (a / sums))
            sums = plan @ right
            done += 1
            yield f + left.log(), g + right.log(), float((left * sums - a).abs().sum()), (1, 0, 0)
            extent = torch.stack([left.max(), 1 / left.min(), right.max(), 1 / right.min()]).max()
            if done == count or extent > _LARGEST_SCALING:
                break
        f, g = f + left.log(), g + right.log()


def _plan(K, f, g):
    """Return ``exp(f_i + g_j - K_ij)``, without numbers so small that they would be slow, or so large to overflow."""
    plan = f[:, None] - K
    plan += g
    return plan.clamp_(_LEAST_EXPONENT, _MOST_EXPONENT).exp_()


def _error(p, q, a, b):
    return float((p - a).abs().sum() + (q - b).abs().sum())


# Newton steps


class _Point(NamedTuple):
    """Potentials and their plan, with its sums."""

    f: torch.Tensor
    g: torch.Tensor
    plan: torch.Tensor
    p: torch.Tensor  # sums of rows
    q: torch.Tensor  # sums of columns
    error: float


def _point(problem, f, g):
    plan = _plan(problem.K, f, g)
    p, q = plan.sum(1), plan.sum(0)
    return _Point(f, g, plan, p, q, _error(p, q, problem.a, problem.b))


def _newton_steps(problem, f, g, *, density, count):
    """Yield the potentials after each of some Newton steps, and after sweeps where a step has failed.

    Where a step does not halve the error, the next Hessian is less sparse.
    """
    here, kept = _point(problem, f, g), _DROPPED if density == "auto" else density
    for _ in range(count):
        hessian = _sparse_plan(here, kept) if density == "auto" else _largest_entries(here, kept)
        df, dg, n_cg = _newton_direction(problem, here, hessian)
        there = _line_search(problem, here, df, dg)
        if there is None or there.error > here.error / 2:
            kept = kept * 1e-2 if density == "auto" else min(1.0, 2 * kept)
        here = here if there is None else there
        yield here.f, here.g, here.error, (0, 1, n_cg)
        if there is None:
            for f, g, error, done in _sweeps(problem, here.f, here.g, count=_SWEEPS_AFTER_FAILURE):
                yield f, g, error, done
            here = _point(problem, f, g)


def _line_search(problem, here, df, dg):
    """Return the first of the points at steps 1, 1/2, ... at which the dual rises enough, None where none does.

    Near the solution the rise is lost in rounding: there a point with half of the error is taken.
    """
    slope = float((problem.a - here.p) @ df + (problem.b - here.q) @ dg)
    rise, mass, step = float(problem.a @ df + problem.b @ dg), float(here.p.sum()), 1.0
    while step >= _LEAST_STEP:
        there = _point(problem, here.f + step * df, here.g + step * dg)
        gain = step * rise - (float(there.p.sum()) - mass)
        if gain >= _ARMIJO * step * slope or (slope < _SMALL_SLOPE and there.error <= here.error / 2):
            return there
        step /= 2
    return None


def _newton_direction(problem, here, hessian):
    """Return the step of the potentials, and how many iterations of conjugate gradients it took.

    The Hessian is ``[[diag(p), S], [S', diag(q)]]`` with the sparse plan S and the sums p, q of the whole one; g is
    eliminated. A small multiple of the diagonal is added, which vanishes with the error.
    """
    S, St = hessian
    lack_f, lack_g = problem.a - here.p, problem.b - here.q
    diagonal = here.p * (1 + max(1e-12, 1e-3 * min(1.0, here.error)))
    right = lack_f - S @ (lack_g / here.q)
    n, most = len(right), _MOST_CG
    if n > _LARGEST_FACTORISED:
        most = 10 * n

    def product(x):
        return diagonal * x - S @ ((St @ x) / here.q)

    df, n_cg, solved = _conjugate_gradients(product, right, here.p, 1e-3 if here.error > 1e-3 else 1e-6, most)
    if not solved and n <= _LARGEST_FACTORISED:
        complement = -(S @ (St.to_dense() / here.q[:, None]))
        complement.diagonal().add_(diagonal)
        factor, failed = torch.linalg.cholesky_ex(complement)
        if not failed:
            df = torch.cholesky_solve(right[:, None], factor)[:, 0]
    return df, (lack_g - St @ df) / here.q, n_cg


def _conjugate_gradients(product, right, diagonal, tol, max_iter):
    """Return the solution of ``product(x) = right``, the number of iterations, and whether the tolerance was met."""
    x, residual = torch.zeros_like(right), right.clone()
    direction = residual / diagonal
    norm = first = float(residual @ direction)
    for n_iter in range(max_iter):
        if norm <= tol**2 * first:
            return x, n_iter, True
        image = product(direction)
        step = norm / float(direction @ image)
        x.add_(direction, alpha=step)
        residual.sub_(image, alpha=step)
        scaled = residual / diagonal
        before, norm = norm, float(residual @ scaled)
        direction = scaled + (norm / before) * direction
    return x, max_iter, norm <= tol**2 * first


# Sparse plans


def _sparse_plan(here, share):
    """Return the entries of a plan that are not small for both their row and their column, and their transpose."""
    n, m = here.plan.shape
    kept = here.plan > (share / m) * here.p[:, None]
    kept |= here.plan > (share / n) * here.q
    return _entries(here.plan, kept)


def _largest_entries(here, density):
    """Return the largest entries of a plan, of which there are `density` times all, and their transpose."""
    n_left_out = here.plan.numel() - math.ceil(density * here.plan.numel())
    if n_left_out == 0:
        return here.plan, here.plan.T
    return _entries(here.plan, here.plan > here.plan.flatten().kthvalue(n_left_out).values)


def _entries(plan, kept):
    """Return the CSR matrix of the entries that are kept, and its transpose; the whole plan where these are many."""
    if int(kept.sum()) > _DENSE * plan.numel():
        return plan, plan.T
    row, column = kept.nonzero(as_tuple=True)
    values, by_column = plan[row, column], column.argsort(stable=True)
    transposed = column[by_column], row[by_column], values[by_column]
    return _csr(row, column, values, plan.shape), _csr(*transposed, plan.T.shape)


def _csr(row, column, values, shape):
    indptr = torch.zeros(shape[0] + 1, dtype=torch.int64, device=row.device)
    torch.cumsum(torch.bincount(row, minlength=shape[0]), 0, out=indptr[1:])
    return csr_tensor(indptr, column, values, shape)


# Masses and the plan


def positive_part(C, a, b, reg) -> EntropicProblem:
    """Return the problem without rows and columns that have no mass."""
    rows, columns = a > 0, b > 0
    if not (rows.all() and columns.all()):
        C, a, b = C[rows][:, columns], a[rows], b[columns]
    return entropic_problem(a, b, C, reg)


def with_massless(state: Potentials, a, b) -> Potentials:
    """Return a state with potentials -inf where there is no mass."""
    u, v = torch.full_like(a, -torch.inf), torch.full_like(b, -torch.inf)
    u[a > 0], v[b > 0] = state.u, state.v
    return state._replace(u=u, v=v)


def scaling_form(C, u, v, reg) -> torch.Tensor:
    """Return ``exp((u_i + v_j - C_ij) / reg)``."""
    return (u[:, None] - C).add_(v).div_(reg).clamp_(max=_MOST_EXPONENT).exp_()


def feasible_plan(plan, a, b) -> torch.Tensor:
    """Return the plan, changed in place so that its sums are a and b.

    Rows, then columns whose sums are too large are scaled down; what is then missing is added as a product.
    """
    tiny = torch.finfo(plan.dtype).tiny
    plan *= (a / plan.sum(1).clamp(min=tiny)).clamp(max=1.0)[:, None]
    plan *= (b / plan.sum(0).clamp(min=tiny)).clamp(max=1.0)
    missing_rows, missing_columns = (a - plan.sum(1)).clamp(min=0.0), (b - plan.sum(0)).clamp(min=0.0)
    total = float(missing_rows.sum())
    if total > 0:
        plan += missing_rows[:, None] * (missing_columns / total)
    return plan


def weighted_sum(values, masses) -> float:
    """Return the sum of values times masses, without rows that have no mass."""
    return float(torch.where(masses > 0, values, 0.0) @ masses)
