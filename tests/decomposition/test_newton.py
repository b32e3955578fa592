"""The last digits of supervised dictionaries: Newton's method by preconditioned conjugate gradients."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

from sklowrank.decomposition import SupervisedDictionaryLearning, SupervisedDictionaryRegressor
from sklowrank.decomposition._sdl import problem as problem
from sklowrank.decomposition._sdl import solver_lbfgs as newton
from sklowrank.decomposition._sdl.objective import fit_term, objective
from sklowrank.decomposition._sdl.solver_lbfgs import curve

DIGITS, DIGIT = load_digits(return_X_y=True)


def wide(n=400, p=120, rank=10, seed=0):
    """Rows near to a few directions of different lengths, and three classes that depend on them."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(p, rank)))[0].T
    X = rng.normal(size=(n, rank)) * np.linspace(5, 1, rank) @ basis + 0.5 * rng.normal(size=(n, p))
    return X, (X[:, :5] @ rng.normal(size=(5, 3)) + rng.gumbel(size=(n, 3))).argmax(1)


def noise(n=400, p=120):
    """Rows without any direction of their own: the dictionary is hardly determined where no class looks."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    return X, (0.3 * X @ rng.normal(size=(p, 3)) + rng.gumbel(size=(n, 3))).argmax(1)


def many_columns():
    """More columns than eigenvectors are had for by a full decomposition."""
    return wide(n=400, p=520)


def words():
    rng = np.random.default_rng(0)
    X = sp.random_array((300, 100), density=0.1, random_state=rng, format="csr")
    return X, (X[:, [0]].toarray() + X[:, [1]].toarray() > 0.1)[:, 0] + rng.integers(0, 2, size=300)


TABLES = {
    "low rank": (wide, {}),
    "noise": (noise, {}),
    "digits": (lambda: (DIGITS[::3] / 16, DIGIT[::3]), {"n_components": 4}),
    "sparse": (words, {}),
    "more columns": (many_columns, {"n_components": 3}),
}
EACH = pytest.mark.parametrize(("make", "params"), TABLES.values(), ids=TABLES)


@pytest.fixture
def watched(monkeypatch):
    """What `polish` was given and returned, and the number of products with the Hessian."""
    seen = {"products": 0}

    def polish(task, weights, generator, tol):
        seen["end"] = newton.polish(task, weights, generator, tol)
        seen.update(task=task, start=newton.with_best_dictionary(task, weights, generator))
        return seen["end"]

    def counted(*args):
        seen["products"] += 1
        return curve(*args)

    monkeypatch.setattr(problem, "polish", polish)
    monkeypatch.setattr(newton, "curve", counted)
    return seen


def steepness(task, weights):
    return float(newton.flatten(objective(task, weights)[1]).norm())


@EACH
def test_few_products_take_the_gradient_to_rounding(make, params, watched):
    """Without a preconditioner hundreds of products in every step do not. 1e-8 is far above rounding."""
    X, y = make()
    SupervisedDictionaryLearning(**{"random_state": 0, **params}).fit(X, y)
    assert watched["products"] < 400
    assert steepness(watched["task"], watched["end"]) < 1e-8
    assert steepness(watched["task"], watched["end"]) < 1e-2 * steepness(watched["task"], watched["start"])


UNEVEN = {"digits": lambda: (scale(DIGITS), DIGIT), "units": lambda: load_breast_cancer(return_X_y=True)}


@pytest.mark.parametrize("make", UNEVEN.values(), ids=UNEVEN)
def test_columns_of_very_different_weight_converge(make, watched):
    """Columns that are almost always zero, standardised; and columns in units of 1e-3 to 1e3. L-BFGS alone needs some
    thousand and some 450 iterations."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = SupervisedDictionaryLearning(4, random_state=0).fit(*make())
    assert model.n_iter_ < 150
    assert steepness(watched["task"], watched["end"]) < 1e-8


def test_separable_classes_without_penalty_converge():
    """Weights grow until a penalty of 1e-6 stops them. L-BFGS alone ends at 0.0427, after 303 iterations."""
    X, y = load_breast_cancer(return_X_y=True)
    model = SupervisedDictionaryLearning(2, C=1e6, random_state=0).fit(scale(X)[:200], y[:200])
    assert model.n_iter_ < 200
    assert model.loss_curve_[-1] < 0.0423
    assert model.score(scale(X)[:200], y[:200]) == 1


def test_tol_ends_the_last_digits_as_well(watched):
    """A step is worth about the square of the one before, so the unknowns are some tol away, and no product more."""
    X, y = wide()
    products, models = [], []
    for tol in (1e-2, 1e-4, 1e-7):
        watched["products"] = 0
        models.append(SupervisedDictionaryLearning(random_state=0, tol=tol).fit(X, y))
        products.append(watched["products"])
    assert products[0] < products[1] < products[2]
    exact = models[-1].decision_function(X)
    apart = [np.abs(model.decision_function(X) - exact).max() / np.abs(exact).max() for model in models]
    assert apart[0] < 0.1
    assert apart[1] < 1e-3


@EACH
def test_integer_weights_are_copies_in_large_tables(make, params):
    X, y = make()
    weight = np.random.default_rng(0).integers(0, 4, size=len(y))
    rows = np.repeat(np.arange(len(y)), weight)
    model = SupervisedDictionaryLearning(**{"random_state": 0, **params})
    scores = model.fit(X, y, sample_weight=weight).decision_function(X)
    copies = model.fit(X[rows], y[rows]).decision_function(X)
    assert np.abs(scores - copies).max() < 1e-7 * np.abs(copies).max()


def test_numbers_and_covariates_are_polished_as_classes_are(watched):
    X, _ = wide()
    Z = np.random.default_rng(1).normal(size=(len(X), 2))
    SupervisedDictionaryRegressor(random_state=0).fit(X, X[:, 0] + Z[:, 0], covariates=Z)
    assert watched["products"] < 100
    assert steepness(watched["task"], watched["end"]) < 1e-9


@pytest.mark.parametrize("r", [2, 5], ids=["more classes than components", "fewer"])
def test_the_hessian_is_the_derivative_of_the_gradient(r, watched):
    """Central differences of step 1e-6: off by about 1e-12 for the curvature of the gradient, 1e-10 for rounding."""
    X, y = wide()
    Z = np.random.default_rng(1).normal(size=(len(X), 2))
    SupervisedDictionaryLearning(r, random_state=0, tol=1e-2).fit(X, y, covariates=Z)
    task, weights = watched["task"], watched["end"]
    generator = torch.Generator().manual_seed(0)
    direction = newton.unflatten(
        torch.randn(newton.flatten(weights).shape, generator=generator, dtype=torch.float64), weights
    )
    ends = [newton.unflatten(newton.flatten(weights) + s * newton.flatten(direction), weights) for s in (1e-6, -1e-6)]
    slopes = [newton.flatten(objective(task, end)[1]) for end in ends]
    by_A, SW = fit_term(task, weights.W @ weights.B, weights.gamma)[1], task.table.gram_times(weights.W)
    F, predictions, *_ = newton.loss_curvature(task, weights)
    product = newton.flatten(curve(task, weights, F, predictions, by_A, SW, direction))
    assert torch.allclose(product, (slopes[0] - slopes[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_the_preconditioner_is_the_inverse_hessian_where_the_loss_has_one_curvature(watched):
    """Squared loss, no weight on the codes: nothing couples dictionary and weights, and principal axes are exact."""
    X = scale(wide()[0])
    SupervisedDictionaryRegressor(2, random_state=0, xi=1.0).fit(X, np.ones(len(X)))
    task, weights = watched["task"], watched["end"]
    axes = newton.principal_axes(task, weights.W, None)
    _, _, *curvature = newton.loss_curvature(task, weights)
    inverse = newton.preconditioner(task, weights, axes, task.table.gram_times(weights.W), *curvature)
    generator = torch.Generator().manual_seed(0)
    dB = torch.randn(weights.B.shape, generator=generator, dtype=torch.float64)
    direction = weights._replace(W=0 * weights.W, B=dB, gamma=0 * weights.gamma)
    _, slope = objective(task, weights._replace(B=weights.B + dB))  # quadratic in B: the difference is the product
    slope = slope._replace(W=0 * slope.W)
    back = inverse(slope)
    assert torch.allclose(back.B, direction.B, rtol=1e-8)
    assert torch.allclose(back.gamma, direction.gamma, atol=1e-8)


def test_conjugate_gradients_stop_at_negative_curvature_and_go_downhill():
    H = torch.diag(torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64))
    for b in ([1.0, 1.0, 0.1], [0.0, 0.0, 1.0]):
        b = torch.tensor(b, dtype=torch.float64)
        x = newton.conjugate_gradients(lambda v: H @ v, lambda v: v, b, tol=1e-10)
        assert torch.isfinite(x).all()
        assert b @ x > 0
    plain = torch.diag(torch.arange(1.0, 31.0, dtype=torch.float64))
    b = torch.ones(30, dtype=torch.float64)
    x = newton.conjugate_gradients(lambda v: plain @ v, lambda v: v / 2, b, tol=1e-12)
    assert torch.allclose(plain @ x, b, atol=1e-10)
