"""Budgets add up, tightly where they may, and are refused before they are overspent."""

import copy
import math
import os
import pickle
import threading
import warnings
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklowrank.privacy import (
    BudgetError,
    PrivacyAccountant,
    PrivacyWarning,
    PrivateDistanceSum,
    PrivateKernelDensity,
    PrivateSimilarityClassifier,
)
from sklowrank.privacy._accountant import compose, epsilon_of, float_below, gaussian_scale, rho_of


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


def test_a_budget_has_no_delta_unless_it_is_given():
    purse = PrivacyAccountant(epsilon=2.0)
    assert purse.remaining() == (2.0, 0.0)
    with pytest.raises(BudgetError):
        purse.spend(1.0, 1e-12, "any delta")
    assert purse.total() == (0.0, 0.0)


@pytest.mark.parametrize(
    ("spend", "name"),
    [
        ((math.nan, 0.0), "epsilon"),
        ((-1.0, 0.0), "epsilon"),
        ((math.inf, 0.0), "epsilon"),
        ((10**400, 0.0), "epsilon"),
        ((True, 0.0), "epsilon"),
        (("1", 0.0), "epsilon"),
        ((1.0, math.nan), "delta"),
        ((1.0, -1e-9), "delta"),
        ((1.0, 1.5), "delta"),
        ((1.0, np.float32(1.5)), "delta"),
    ],
)
def test_spends_that_are_no_cost_are_refused(spend, name):
    purse = PrivacyAccountant(epsilon=5.0, delta=1.0)
    for call in (lambda: purse.spend(*spend, "x"), lambda: purse.check(*spend)):
        with pytest.raises(ValueError, match=f"{name}=.* of a spend"):
            call()
    with pytest.raises(ValueError, match="rho=nan of a spend"):
        purse.spend(1.0, 1e-6, "x", rho=math.nan)
    assert purse.history == []


def test_the_history_is_a_copy():
    purse = PrivacyAccountant(epsilon=1.0)
    purse.spend(1.0, 0.0, "all")
    purse.history.clear()
    with pytest.raises(BudgetError):
        purse.spend(0.1, 0.0, "more")


def test_an_error_names_what_was_asked_for_and_what_remains():
    X = np.random.default_rng(0).normal(size=(60, 2))
    purse = PrivacyAccountant(epsilon=2.0, delta=1e-5)
    purse.spend(1.5, 0.0, "before")
    with pytest.raises(BudgetError) as caught:
        PrivateKernelDensity(n_components=8, accountant=purse).fit(X)
    for part in ("epsilon=1, delta=1e-06 was asked", "epsilon=0.5, delta=1e-05 of a budget of epsilon=2, delta=1e-05"):
        assert part in str(caught.value)


def test_slack_refuses_nothing_that_basic_composition_affords():
    """400 releases of 0.01: 4 by the sum, with delta 0; 1.07 by advanced composition, with delta 1e-6."""
    for epsilon, delta in ((4.0, 0.0), (1.1, 1e-6)):
        purse = PrivacyAccountant(epsilon=epsilon, delta=delta, slack=1e-6)
        for _ in range(400):
            purse.spend(0.01, 0.0, "small")
        assert purse.total()[0] <= epsilon
        assert purse.total()[1] == delta
    for _ in range(15):  # advanced composition of 415 is still below 1.1, and of 440 above
        purse.spend(0.01, 0.0, "small")
    with pytest.raises(BudgetError):
        purse.spend(0.2, 0.0, "not so small")
    gaussian = PrivacyAccountant(epsilon=2.0, delta=1e-6, slack=1e-7)
    gaussian.spend(1.0, 1e-6, "all of delta", rho=rho_of(1.0, 1e-6))
    assert gaussian.total() == (pytest.approx(1.0, rel=1e-6), 1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("locked", [False, True])
def test_a_forked_process_cannot_spend(locked):
    """Also where a thread held the lock when the process was forked, and where the grandchild has the parent's pid."""
    purse = PrivacyAccountant(epsilon=1.0)
    X = np.zeros((4, 1))
    if locked:
        purse._lock.acquire()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python, where other threads run
        child = os.fork()
    if child == 0:
        refused = 0
        for call in (
            lambda: purse.spend(0.1, 0.0, "child"),
            lambda: purse.check(0.1, 0.0),
            lambda: PrivateKernelDensity(n_components=1, bandwidth=1.0, delta=0.0, accountant=purse).fit(X),
        ):
            try:
                call()
            except BudgetError as error:
                refused += "another process" in str(error)
        os.getpid = lambda: purse._home[0]
        try:
            purse.spend(0.1, 0.0, "a pid that came back")
        except BudgetError:
            refused += 1
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    if locked:
        purse._lock.release()
    purse.spend(1.0, 0.0, "here")


def test_costs_are_never_rounded_below_and_claims_never_above():
    assert float_below(np.float32(0.1)) == 0.1 < float(np.float32(0.1))
    assert float_below(np.float32(0.7)) <= 0.7
    for number in (Fraction(1, 3), Fraction(2, 3), np.float16(0.1), np.longdouble("0.1"), 10**400, 3):
        assert float_below(number) <= number
    purse = PrivacyAccountant(epsilon=math.inf, delta=0.5)
    purse.spend(Fraction(1, 3), Fraction(1, 3), "a third")
    assert purse.history[0].epsilon >= Fraction(1, 3) >= PrivacyAccountant(epsilon=Fraction(1, 3)).epsilon
    X = np.random.default_rng(0).normal(size=(300, 1))
    for epsilon in (np.float32(0.1), np.float16(0.1), Fraction(1, 10), 1, np.int8(1)):
        model = PrivateKernelDensity(epsilon=epsilon, delta=0.0, n_components=2).fit(X)
        assert type(model.privacy_spent_.epsilon) is float
        assert model.privacy_spent_.epsilon <= min(epsilon, float(str(np.float32(epsilon))))
        assert model.noise_scale_ >= model.sensitivity_ / model.privacy_spent_.epsilon


def test_a_later_release_is_paid_by_an_accountant_that_has_not_paid_for_the_first():
    """People in a second batch are others than those of the first, whose accountant knows nothing of them."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = PrivateKernelDensity(delta=0.0, n_components=8).partial_fit(X)
    purse = PrivacyAccountant(epsilon=1.5)
    model.set_params(accountant=purse).partial_fit(X + 1)
    assert purse.total() == (1.0, 0.0)
    model.partial_fit(X + 2)
    assert purse.total() == (1.0, 0.0)
    small = PrivacyAccountant(epsilon=0.5)
    before = model.sketch_.copy()
    with pytest.raises(BudgetError):
        model.set_params(accountant=small).partial_fit(X + 3)
    assert np.array_equal(model.sketch_, before)


def warned(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in seen if w.category is PrivacyWarning]


@pytest.mark.parametrize(
    "model",
    [
        PrivateKernelDensity(n_components=8, bandwidth=1.0),
        PrivateDistanceSum(bounds=(0, 1)),
        PrivateSimilarityClassifier(n_components=8, classes=[0, 1]),
    ],
)
def test_a_search_without_an_accountant_warns_once(model):
    X, y = np.random.default_rng(0).random((40, 2)), np.arange(40) % 2
    score = None if hasattr(model, "score") else lambda fitted, X, y=None: float(fitted.score_samples(X).mean())

    def fresh(**params):
        return type(model)(**{**model.get_params(), **params})

    def search(estimator):
        return GridSearchCV(estimator, {"epsilon": [1.0, 2.0]}, cv=2, scoring=score).fit(X, y)

    texts = warned(lambda: search(fresh()))
    assert len(texts) == 1
    assert "accountant=PrivacyAccountant" in texts[0]
    nested = make_pipeline(FunctionTransformer(), fresh())
    assert len(warned(lambda: cross_val_score(nested, X, y, cv=2, scoring=score))) == 1
    again = fresh()
    assert len(warned(lambda: [again.fit(X, y), again.fit(X, y), again.fit(X, y)])) == 1
    assert not warned(lambda: search(fresh(accountant=PrivacyAccountant(delta=1e-3))))
    assert not warned(lambda: [fresh().fit(X, y) for _ in range(2)])
