"""Budgets add up, tightly where they may, and are refused before they are overspent."""

import copy
import math
import pickle
import threading

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklowrank.privacy import BudgetError, PrivacyAccountant, PrivateKernelDensity
from sklowrank.privacy._accountant import compose, epsilon_of, gaussian_scale, rho_of


@pytest.mark.parametrize(
    ("epsilon", "delta", "sigma"),
    [(0.5, 1e-6, 8.677), (1, 1e-6, 4.531), (1, 1e-5, 4.045), (2, 1e-6, 2.382), (4, 1e-6, 1.268), (8, 1e-6, 0.689)],
)
def test_gaussian_scale(epsilon, delta, sigma):
    assert gaussian_scale(epsilon, delta) == pytest.approx(sigma, abs=6e-4)


@pytest.mark.parametrize("epsilon", [1e-6, 0.1, 1.0, 30.0, 1e12])
def test_scale_is_never_below_the_best_order_and_hardly_above(epsilon):
    """The definition, order by order: the largest rho for which some alpha keeps delta."""
    delta = 1e-6

    def rho(t):
        alpha = 1 + math.exp(t)
        order = alpha * math.log1p(-1 / alpha) - math.log(alpha - 1)
        return (epsilon + (math.log(delta) - order) / (alpha - 1)) / alpha

    best = max(rho(t) for t in np.linspace(-35, 30, 20_001))
    tight = 1 / math.sqrt(2 * best)
    assert tight * (1 - 1e-9) <= gaussian_scale(epsilon, delta) <= tight * (1 + 1e-5)
    assert epsilon_of(rho_of(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-6)


def test_conversion_is_the_least_over_orders():
    rho, delta = 0.3, 1e-5

    def bound(t):
        alpha = 1 + math.exp(t)
        return alpha * rho + (alpha * math.log1p(-1 / alpha) - math.log(alpha - 1) - math.log(delta)) / (alpha - 1)

    found = minimize_scalar(bound, bounds=(-5, 10), method="bounded")
    assert epsilon_of(rho, delta) == pytest.approx(found.fun, rel=1e-6)
    assert epsilon_of(0.0, delta) == 0


def test_composition():
    purse = PrivacyAccountant(delta=1e-5, slack=1e-6)
    for _ in range(400):
        purse.spend(0.01, 0.0, "small")
    epsilon, delta = purse.total()
    expected = math.sqrt(2 * math.log(1e6) * 400 * 0.01**2) + 400 * 0.01 * math.tanh(0.005)
    assert epsilon == pytest.approx(expected)
    assert epsilon < 4
    assert delta == 1e-6
    assert compose(purse.history) == (pytest.approx(4.0), 0.0)
    gaussian = PrivacyAccountant(delta=1e-5)
    for _ in range(9):
        gaussian.spend(1.0, 1e-6, "Gaussian", rho=rho_of(1.0, 1e-6))
    epsilon, delta = gaussian.total()
    assert epsilon == pytest.approx(epsilon_of(9 * rho_of(1.0, 1e-6), 9e-6))
    assert epsilon < 3.5
    assert delta == pytest.approx(9e-6)
    gaussian.spend(1.0, 0.0, "Laplace")
    assert gaussian.total()[0] == pytest.approx(10.0)
    assert PrivacyAccountant().total() == (0.0, 0.0)


def test_refusal_records_nothing():
    purse = PrivacyAccountant(epsilon=1.0, delta=1e-5)
    purse.spend(0.6, 0.0, "first")
    with pytest.raises(BudgetError, match=r"epsilon=0.5, delta=0 was asked for.* remains: epsilon=0.4, delta=1e-05 of"):
        purse.spend(0.5, 0.0, "second")
    with pytest.raises(BudgetError):
        purse.check(0.1, 2e-5)
    purse.check(0.4, 1e-5)
    assert [entry[2] for entry in purse.history] == ["first"]
    assert purse.remaining() == pytest.approx((0.4, 1e-5))


def test_copies_share_and_pickles_are_detached():
    purse = PrivacyAccountant(epsilon=2.0)
    assert copy.copy(purse) is copy.deepcopy(purse) is clone(purse) is purse
    model = PrivateKernelDensity(accountant=purse)
    assert clone(model).accountant is copy.deepcopy(model).accountant is purse
    away = pickle.loads(pickle.dumps(purse))
    for call in (lambda: away.spend(0.1, 0.0, "away"), lambda: away.check(0.1, 0.0)):
        with pytest.raises(BudgetError, match="another process"):
            call()
    purse.spend(0.1, 0.0, "here")


def test_threads_cannot_overspend():
    purse, refused = PrivacyAccountant(epsilon=10.0), []

    def shop():
        for _ in range(20):
            try:
                purse.spend(0.5, 0.0, "a thread")
            except BudgetError:
                refused.append(1)

    threads = [threading.Thread(target=shop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(purse.history) == 20
    assert len(refused) == 60
    assert purse.total()[0] == pytest.approx(10.0)


def test_every_candidate_of_a_search_pays_and_overspending_stops_it_before_the_data():
    X = np.random.default_rng(0).normal(size=(60, 2))
    purse = PrivacyAccountant(epsilon=5.0)
    model = PrivateKernelDensity(delta=0.0, n_components=8, accountant=purse)
    GridSearchCV(model, {"bandwidth": [0.5, 1.0]}, cv=2).fit(X)
    assert len(purse.history) == 5  # two candidates, two folds, the final fit
    with pytest.raises(BudgetError):
        model.fit(None)  # nothing was looked at
    assert not hasattr(model, "sketch_")


def test_refitting_costs_again_and_other_rows_do_not():
    X = np.random.default_rng(0).normal(size=(60, 2))
    purse = PrivacyAccountant(epsilon=2.0)
    model = PrivateKernelDensity(delta=0.0, n_components=8, accountant=purse).fit(X)
    first = model.sketch_.copy()
    assert not np.array_equal(model.fit(X).sketch_, first)
    assert purse.total()[0] == 2.0
    model.partial_fit(X + 1)
    model.kernel_sums(np.tile(X, (20, 1)))
    assert purse.total()[0] == 2.0


def test_auto_takes_the_mechanism_that_is_left():
    X = np.random.default_rng(0).normal(size=(60, 2))
    purse = PrivacyAccountant(epsilon=10.0, delta=0.0)
    assert PrivateKernelDensity(n_components=8, accountant=purse).fit(X).mechanism_ == "laplace"


@pytest.mark.parametrize("params", [{"epsilon": 0}, {"epsilon": math.nan}, {"delta": 1.5}, {"slack": 1.0}])
def test_bad_budgets(params):
    with pytest.raises(ValueError, match="pass epsilon > 0"):
        PrivacyAccountant(**params)
