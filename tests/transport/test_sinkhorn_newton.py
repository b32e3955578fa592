"""Plans by Newton steps: those of a slow reference, whatever the masses, units and sizes."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from sklowrank.transport import _sinkhorn_newton_solver as solver
from sklowrank.transport import sinkhorn_newton
from sklowrank.transport._sinkhorn_newton_solver import NewtonOptions, entropic_problem, solve_potentials

RNG = np.random.default_rng(1)
C = cdist(RNG.normal(size=(60, 2)), RNG.normal(size=(80, 2)) + 1, "sqeuclidean")
A, B = RNG.dirichlet(np.ones(60)), RNG.dirichlet(np.ones(80))
REG = 0.2
SQUARE = np.random.default_rng(0).uniform(size=(300, 300))


def log_sinkhorn(a, b, C, reg, sweeps):
    """The reference: sweeps by logarithms, in numpy."""
    y = np.zeros(len(b))
    for _ in range(sweeps):
        x = reg * (np.log(a) - logsumexp((y - C) / reg, axis=1))
        y = reg * (np.log(b) - logsumexp((x[:, None] - C) / reg, axis=0))
    return np.exp((x[:, None] + y - C) / reg)


def certificate(result, a, b, C, reg):
    """Zero at the one optimum alone: the distance of the plan from its form, and of the form from its sums."""
    form = np.exp((result.u[:, None] + result.v - C) / reg)
    return np.abs(result.plan - form).sum() + np.abs(form.sum(1) - a).sum() + np.abs(form.sum(0) - b).sum()


@pytest.fixture(scope="module")
def reference():
    return log_sinkhorn(A, B, C, REG, 3000)


@pytest.mark.parametrize("density", ["auto", 0.02, 1.0])
@pytest.mark.parametrize("continuation", [True, False])
def test_the_plan_is_that_of_long_sinkhorn(reference, density, continuation):
    """A Newton stage that took its gradient from the sparse plan would end elsewhere."""
    result = sinkhorn_newton(A, B, C, REG, density=density, continuation=continuation)
    assert result.converged
    assert result.n_newton > 0
    assert np.abs(result.plan - reference).sum() <= 1e-7
    assert certificate(result, A, B, C, REG) <= 1e-8


def test_a_sharp_assignment_takes_tens_of_iterations():
    n, reg = 300, 1 / 1200
    flat = np.full(n, 1 / n)
    result = sinkhorn_newton(None, None, SQUARE, reg)
    assert result.n_sinkhorn + result.n_newton <= 60
    assert certificate(result, flat, flat, SQUARE, reg) <= 1e-8
    i, j = linear_sum_assignment(SQUARE)
    assert SQUARE[i, j].mean() < result.cost < SQUARE[i, j].mean() + reg * np.log(n)
    plain = np.exp(-SQUARE / reg)
    u = v = np.ones(n)
    for _ in range(2000):
        u = flat / (plain @ v)
        v = flat / (plain.T @ u)
    assert np.abs(u * (plain @ v) - flat).sum() > 1e-7  # the baseline, after 2000 sweeps


def test_rounding_ends_a_solve_that_cannot_reach_the_tolerance():
    with pytest.warns(ConvergenceWarning, match="rounding in float64"):
        result = sinkhorn_newton(A, B, C, REG, tol=0.0)
    assert not result.converged
    assert result.marginal_error < 1e-11


def test_a_factorisation_takes_over_from_conjugate_gradients(monkeypatch):
    expected = sinkhorn_newton(A, B, C, 0.01)
    monkeypatch.setattr(solver, "_MOST_CG", 2)
    result = sinkhorn_newton(A, B, C, 0.01)
    assert result.converged
    assert np.abs(result.plan - expected.plan).sum() <= 1e-7


def test_a_failed_line_search_is_followed_by_sweeps(reference, monkeypatch):
    monkeypatch.setattr(solver, "_line_search", lambda *args: None)
    result = sinkhorn_newton(A, B, C, REG, tol=1e-7, max_newton=5)
    assert result.converged
    assert result.n_sinkhorn > 100
    assert np.abs(result.plan - reference).sum() <= 1e-5


@pytest.mark.parametrize("newton", [True, False])
def test_the_solver_yields_a_step_per_sweep_and_newton_step(newton):
    a, b, costs = (torch.from_numpy(table) for table in (A, B, C))
    problem = entropic_problem(a, b, costs, REG)
    for n, (state, gap, _) in enumerate(solve_potentials(problem, NewtonOptions(1e-9, newton=newton)), 1):
        assert state.n_sinkhorn + state.n_newton == n
    assert gap <= 1e-9
    assert newton == (state.n_newton > 0)


def test_sweeps_by_products_are_those_by_logarithms():
    """And rows that are far from all columns, whose sums underflow, are found."""
    far = C.copy()
    far[0] += 500.0
    a, b, costs = (torch.from_numpy(table) for table in (A, B, far))
    found = list(
        solver._sweeps(entropic_problem(a, b, costs, REG), torch.zeros(60).double(), torch.zeros(80).double(), count=7)
    )
    for sweeps in (3, 7):
        f, g, error, _ = found[sweeps - 1]
        problem = entropic_problem(a, b, costs, REG)
        plan = torch.exp(f[:, None] + g - problem.K).numpy()
        y = np.zeros(80)
        for _ in range(sweeps):
            x = np.log(A) - logsumexp(y - problem.K.numpy(), axis=1)
            y = np.log(B) - logsumexp(x[:, None] - problem.K.numpy(), axis=0)
        assert np.abs(plan - np.exp(x[:, None] + y - problem.K.numpy())).sum() <= 1e-12
        assert error == pytest.approx(np.abs(plan.sum(1) - A).sum(), abs=1e-12)


def test_potentials_are_those_of_the_costs_that_were_given():
    """Terms of rows and columns, units and order change potentials alone."""
    expected = sinkhorn_newton(A, B, C, REG)
    tilted = C + np.arange(60)[:, None] * 0.1 - np.arange(80) * 0.05 + 7
    order, target_order = RNG.permutation(60), RNG.permutation(80)
    for plan in (
        sinkhorn_newton(A, B, tilted, REG).plan,
        sinkhorn_newton(A, B, 1e25 * C, 1e25 * REG).plan,
        sinkhorn_newton(A, B, 1e-25 * C, 1e-25 * REG).plan,
        sinkhorn_newton(B, A, C.T, REG).plan.T,
        sinkhorn_newton(3 * A, 1e-200 * B, C, REG).plan,
        sinkhorn_newton(A[order], B[target_order], C[order][:, target_order], REG).plan[
            np.ix_(order.argsort(), target_order.argsort())
        ],
    ):
        assert np.abs(plan - expected.plan).sum() <= 1e-7
    assert certificate(sinkhorn_newton(A, B, tilted, REG), A, B, tilted, REG) <= 1e-8


def test_the_value_of_the_dual_is_that_of_the_primal():
    result = sinkhorn_newton(A, B, C, REG)
    entropy = (result.plan * np.log(result.plan)).sum()
    assert result.dual_value == pytest.approx(result.cost + REG * entropy, abs=1e-8)
    assert result.cost == pytest.approx((C * result.plan).sum(), abs=1e-12)


def test_rows_without_mass():
    hole = A.copy()
    hole[[3, 17]] = 0
    result = sinkhorn_newton(hole, B, C, REG)
    assert not result.plan[[3, 17]].any()
    assert np.all(np.isneginf(result.u[[3, 17]]))
    assert np.isfinite(result.dual_value)
    alone = sinkhorn_newton(np.delete(hole, [3, 17]), B, np.delete(C, [3, 17], axis=0), REG)
    assert np.abs(np.delete(result.plan, [3, 17], axis=0) - alone.plan).sum() <= 1e-7


def test_a_constant_between_the_potentials_does_not_matter():
    """The Hessian is singular in that direction: a solve in it would drift."""
    result = sinkhorn_newton(A, B, C, REG)
    form = np.exp((result.u[:, None] + result.v - C) / REG)
    moved = np.exp(((result.u + 5)[:, None] + (result.v - 5) - C) / REG)
    assert np.abs(moved - form).sum() <= 1e-10
    assert np.abs(result.u).max() < 2 * np.abs(C).max()


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (2, 2), (2, 40)])
def test_small_problems(shape):
    rng = np.random.default_rng(sum(shape))
    costs, b = rng.normal(size=shape), rng.dirichlet(np.ones(shape[1]))
    result = sinkhorn_newton(None, b, costs, 0.05)
    assert result.converged
    assert np.allclose(result.plan.sum(0), b)
    assert np.allclose(result.plan.sum(1), 1 / shape[0])


def test_equal_costs_give_the_product_of_the_masses():
    result = sinkhorn_newton(A, B, np.full_like(C, 3.0), REG)
    assert np.abs(result.plan - np.outer(A, B)).sum() <= 1e-12
    assert result.cost == pytest.approx(3.0)


def test_a_plan_is_feasible_even_where_max_iter_was_reached():
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        result = sinkhorn_newton(A, B, C, 1e-3, max_iter=3)
    assert not result.converged
    assert result.n_sinkhorn + result.n_newton == 3
    assert np.abs(result.plan.sum(1) - A).sum() + np.abs(result.plan.sum(0) - B).sum() <= 1e-12
    assert result.plan.min() >= 0


def test_single_precision_is_solved_in_double():
    result = sinkhorn_newton(A.astype(np.float32), B.astype(np.float32), C.astype(np.float32), REG)
    assert result.plan.dtype == np.float64
    assert result.marginal_error <= 1e-9


def test_lists_and_tensors(reference):
    listed = sinkhorn_newton(A.tolist(), B.tolist(), C.tolist(), REG)
    tensors = sinkhorn_newton(torch.from_numpy(A), torch.from_numpy(B), torch.from_numpy(C), REG)
    for result in (listed, tensors):
        assert np.abs(np.asarray(result.plan) - reference).sum() <= 1e-7


@pytest.mark.cuda
def test_on_a_gpu(reference):
    result = sinkhorn_newton(A, B, C, REG, device="cuda")
    assert np.abs(result.plan - reference).sum() <= 1e-7
    sharp = sinkhorn_newton(None, None, SQUARE, 1e-4, device="cuda")
    assert np.abs(sharp.plan - sinkhorn_newton(None, None, SQUARE, 1e-4, device="cpu").plan).sum() <= 1e-6


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"C": np.where(C > 5, np.nan, C)}, "C contains NaN"),
        ({"C": np.where(C > 5, np.inf, C)}, "C contains infinity|C contains NaN or infinity"),
        ({"C": torch.full((60, 80), torch.nan)}, "C contains NaN"),
        ({"reg": 0.0}, "'reg'"),
        ({"a": A - 0.3}, "a has to be finite, at least 0"),
        ({"a": 0 * A}, "a has to be finite, at least 0, and above 0"),
        ({"b": B[:4]}, r"b has shape \(4,\), but there are 80"),
        ({"density": 1.5}, "'density'"),
        ({"device": "warp"}, "device='warp'"),
    ],
)
def test_refusals(change, match):
    with pytest.raises(ValueError, match=match):
        sinkhorn_newton(**{"a": A, "b": B, "C": C, "reg": REG, **change})


def test_a_converged_solve_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sinkhorn_newton(A, B, C, REG)
