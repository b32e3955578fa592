"""What a privacy budget is, what releases add up to, and who stops one that would cost too much."""

import math
import os
import secrets
import sys
import threading
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

_LARGEST_EPSILON = 1e18  # of an estimator
_LARGEST_SPEND = 1e100  # of epsilon or rho: sums of squares stay finite
_ROUNDING = 1 + 1e-12  # by which a sum of floats may be above the budget


class BudgetError(RuntimeError):
    """A release would cost more than the budget has left; nothing was released.

    Examples
    --------
    >>> from sklowrank.privacy import BudgetError, PrivacyAccountant
    >>> purse = PrivacyAccountant(epsilon=1.0)
    >>> purse.spend(0.8, 0.0, "first")
    >>> try:
    ...     purse.spend(0.8, 0.0, "second")
    ... except BudgetError:
    ...     print("refused")
    refused
    """


class PrivacyWarning(UserWarning):
    """A guarantee that is weaker than it looks.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from sklowrank.privacy import PrivacyWarning, PrivateKernelDensity
    >>> X = np.random.default_rng(0).random((50, 1))
    >>> with warnings.catch_warnings(record=True) as heard:
    ...     warnings.simplefilter("always")
    ...     model = PrivateKernelDensity(delta=0.01, bounds=(0, 1)).fit(X)
    >>> heard[0].category is PrivacyWarning
    True
    """


class PrivacyLeakWarning(UserWarning):
    """Something was read from private data, or can be undone, outside the guarantee.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from sklowrank.privacy import PrivacyLeakWarning, PrivateDistanceSum
    >>> X = np.random.default_rng(0).random((50, 2))
    >>> with warnings.catch_warnings(record=True) as heard:
    ...     warnings.simplefilter("always")
    ...     model = PrivateDistanceSum().fit(X)  # bounds are read from the rows
    >>> heard[0].category is PrivacyLeakWarning
    True
    """


class PrivacySpent(NamedTuple):
    """The guarantee of a fitted estimator to each row; releases from other rows do not add to it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.privacy import PrivateKernelDensity
    >>> X = np.random.default_rng(0).random((50, 1))
    >>> spent = PrivateKernelDensity(epsilon=0.5, delta=0.0, bounds=(0, 1)).fit(X).privacy_spent_
    >>> spent.epsilon, spent.mechanism
    (0.5, 'laplace')
    """

    epsilon: float
    delta: float
    mechanism: str
    adjacency: str
    n_releases: int


class Spend(NamedTuple):
    """One entry of an accountant's history."""

    epsilon: float
    delta: float
    label: str
    rho: float | None  # of a Gaussian release: concentrated differential privacy


_forks = 0  # of this process, from the interpreter's start


def _count_fork():
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class PrivacyAccountant:
    """A privacy budget for several releases from the same rows: adds up their costs and refuses what exceeds it.

    Give one accountant to every estimator that sees the same people. :func:`~sklearn.base.clone` and copies share it,
    so each candidate of a grid search pays. Threads may share it. A process cannot report back, so what arrives in
    another one, by a pickle or by a fork, is detached and refuses to spend.

    Parameters
    ----------
    epsilon : float, default=inf
        The budget, above 0.
    delta : float, default=0.0
        The delta of the budget, from 0 to 1. With 0 all releases have Laplace noise; Gaussian noise needs the sum of
        the deltas of all releases.
    slack : float, default=0.0
        A part of delta, spent once, for which releases may be composed more tightly (advanced composition). Without
        effect where `delta` has no room for it.

    Attributes
    ----------
    history : list of tuples (epsilon, delta, label, rho)
        What was spent, in order, as a copy; `rho` is None for releases without Gaussian noise.

    Notes
    -----
    Epsilons and deltas add up (basic composition). Two other bounds hold as well: with `slack` advanced composition
    (Kairouz, Oh, Viswanath 2015), and where all releases have Gaussian noise the sum of their concentrated costs rho,
    converted once at the sum of the deltas (Canonne, Kamath, Steinke 2020). A release is refused if none of these is
    within the budget. The last two presume costs that are not chosen by looking at earlier releases.

    Examples
    --------
    >>> from sklowrank.privacy import PrivacyAccountant
    >>> purse = PrivacyAccountant(epsilon=2.0, delta=1e-5)
    >>> purse.spend(1.5, 1e-6, "a density")
    >>> purse.remaining()
    (0.5, 9e-06)
    """

    def __init__(self, epsilon: float = math.inf, delta: float = 0.0, slack: float = 0.0):
        numbers = all(is_number(value) for value in (epsilon, delta, slack))
        if not (numbers and epsilon > 0 and 0 <= delta <= 1 and 0 <= slack < 1):
            raise ValueError(
                f"epsilon={epsilon!s:.40}, delta={delta!s:.40}, slack={slack!s:.40}: pass epsilon > 0, delta from 0 to "
                "1, and slack from 0 to below 1."
            )
        self.epsilon = epsilon if epsilon == math.inf else float_below(epsilon)
        self.delta = float_below(delta)
        self.slack = float_below(slack)
        self._history = []
        self._name = secrets.token_hex(8)  # by which estimators know who has paid
        self._home = _place()
        self._lock = threading.Lock()

    @property
    def _detached(self):
        """True in another process than that which made the accountant."""
        return self._home != _place()

    @property
    def history(self):
        """What was spent, in order, as a copy."""
        return list(self._history)

    def check(self, epsilon, delta, *, rho=None):
        """Raise BudgetError where a spend of this size would be refused.

        Parameters
        ----------
        epsilon, delta : float
            What the release would cost: epsilon finite and at least 0, delta from 0 to 1.
        rho : float or None, default=None
            Its concentrated cost, where it has Gaussian noise.
        """
        spend = _read_spend(epsilon, delta, "", rho)
        self._refuse_elsewhere()
        with self._lock:
            self._check(spend)

    def spend(self, epsilon, delta, label, *, rho=None):
        """Record a spend, or raise BudgetError and record nothing.

        Parameters
        ----------
        epsilon, delta : float
            What the release costs: epsilon finite and at least 0, delta from 0 to 1.
        label : str
            What it was for.
        rho : float or None, default=None
            Its concentrated cost, where it has Gaussian noise.
        """
        spend = _read_spend(epsilon, delta, label, rho)
        self._refuse_elsewhere()
        with self._lock:
            self._check(spend)
            self._history.append(spend)

    def total(self):
        """Return what was spent, by the bound with the smallest epsilon within the budget.

        Returns
        -------
        epsilon, delta : float
        """
        return self._least(compositions(self._history, self.slack)) or compose(self._history)

    def remaining(self):
        """Return the budget less what was spent, at least zero.

        Returns
        -------
        epsilon, delta : float
        """
        epsilon, delta = self.total()
        return max(0.0, self.epsilon - epsilon), max(0.0, self.delta - delta)

    def _check(self, spend):
        if not self._least(compositions([*self._history, spend], self.slack)):
            raise refusal(self, spend.epsilon, spend.delta)

    def _least(self, bounds):
        """Return the bound with the smallest epsilon of those within the budget, None if there is none."""
        epsilon, delta = self.epsilon * _ROUNDING, self.delta * _ROUNDING
        return min((bound for bound in bounds if bound[0] <= epsilon and bound[1] <= delta), default=None)

    def _refuse_elsewhere(self):
        """Refuse before the lock is asked for, which another thread may have held when the process was forked."""
        if self._detached:
            raise BudgetError(
                "This accountant is a copy in another process, whose spending nobody would see. Fit in the process of "
                "the accountant: n_jobs=1, or joblib's threads."
            )

    def __sklearn_clone__(self):
        return self

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __getstate__(self):
        return {**self.__dict__, "_lock": None, "_home": None, "_history": list(self._history)}

    def __setstate__(self, state):
        self.__dict__.update(state, _lock=threading.Lock())

    def __repr__(self):
        return f"PrivacyAccountant(epsilon={self.epsilon}, delta={self.delta}, slack={self.slack})"


def refusal(accountant, epsilon: float, delta: float) -> BudgetError:
    """Return the error for a release of this size, which would cost more than the accountant has left."""
    left = accountant.remaining()
    return BudgetError(
        f"A release of epsilon={epsilon:.10g}, delta={delta:.10g} was asked for, which is more than remains: "
        f"epsilon={left[0]:.10g}, delta={left[1]:.10g} of a budget of epsilon={accountant.epsilon:.10g}, "
        f"delta={accountant.delta:.10g}. Nothing was released. Ask for less, or use a larger budget."
    )


def _place():
    """Return what tells this process from its parents and children."""
    return os.getpid(), _forks


def is_number(value) -> bool:
    """Return whether a value is a real number and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def float_below(number) -> float:
    """Return a float that is no larger than a number, nor than what the number prints as.

    The float32 nearest to 0.1 is above 0.1, and a fraction may lie between two floats.
    """
    found = _to_float(number)
    if isinstance(number, np.floating):
        found = min(found, float(str(number)))
    return math.nextafter(found, -math.inf) if found > number else found


def _float_above(number) -> float:
    """Return a float that is no smaller than a number."""
    found = _to_float(number)
    return math.nextafter(found, math.inf) if found < number else found


def _to_float(number) -> float:
    """Return the nearest float; the largest one for whole numbers that are larger."""
    try:
        return float(number)
    except OverflowError:
        return sys.float_info.max if number > 0 else -sys.float_info.max


def read_budget(epsilon, delta) -> tuple[float, float]:
    """Return epsilon and delta of an estimator as floats that are no larger than what was asked for."""
    if not (is_number(epsilon) and 0 < float_below(epsilon) <= _LARGEST_EPSILON):
        raise ValueError(f"epsilon={epsilon!s:.40} has to be a finite number above 0, at most {_LARGEST_EPSILON:g}.")
    if not (is_number(delta) and 0 <= float_below(delta) < 1):
        raise ValueError(f"delta={delta!s:.40} has to be a number from 0 to below 1, far below 1 / n_samples.")
    return float_below(epsilon), float_below(delta)


def _read_spend(epsilon, delta, label, rho):
    """Return an entry of the history.

    Raises
    ------
    ValueError
        If a cost is negative, NaN or infinite, or a delta above 1.
    """
    costs = {"epsilon": epsilon, "delta": delta} if rho is None else {"epsilon": epsilon, "delta": delta, "rho": rho}
    for name, cost in costs.items():
        most = 1 if name == "delta" else _LARGEST_SPEND
        if not (is_number(cost) and cost >= 0 and _float_above(cost) <= most):
            raise ValueError(f"{name}={cost!s:.40} of a spend has to be a number from 0 to {most:g}.")
    return Spend(_float_above(epsilon), _float_above(delta), label, None if rho is None else _float_above(rho))


def compose(spends) -> tuple[float, float]:
    """Return epsilon and delta of several releases from the same rows, by basic composition."""
    return math.fsum(spend.epsilon for spend in spends), math.fsum(spend.delta for spend in spends)


def compositions(spends, slack: float = 0.0) -> list[tuple[float, float]]:
    """Return pairs of epsilon and delta, each of which holds for several releases from the same rows."""
    epsilon, delta = compose(spends)
    bounds = [(epsilon, delta)]
    if delta > 0 and all(spend.rho is not None for spend in spends):
        bounds.append((epsilon_of(math.fsum(spend.rho for spend in spends), delta), delta))
    if slack > 0 and spends:
        epsilons = [spend.epsilon for spend in spends]
        spread = math.sqrt(2 * math.log(1 / slack) * math.fsum(e * e for e in epsilons))
        bounds.append((spread + math.fsum(e * math.tanh(e / 2) for e in epsilons), delta + slack))
    return bounds


def epsilon_of(rho: float, delta: float) -> float:
    """Return epsilon at delta of a release that is rho-concentrated differentially private.

    For each order alpha > 1, delta = exp((alpha - 1)(alpha rho - epsilon)) (1 - 1/alpha)^alpha / (alpha - 1) is a valid
    bound, so the search for the best order cannot err on the wrong side.
    """

    def bound(t):
        return (1 + math.exp(t)) * rho + (_order(t) - math.log(delta)) / math.exp(t)

    return max(0.0, _least(bound)) if rho > 0 else 0.0


def rho_of(epsilon: float, delta: float) -> float:
    """Return the largest rho whose releases are (epsilon, delta)-differentially private; the inverse of the above."""

    def bound(t):
        return -(epsilon + (math.log(delta) - _order(t)) / math.exp(t)) / (1 + math.exp(t))

    return -_least(bound)


def gaussian_scale(epsilon: float, delta: float) -> float:
    """Return the standard deviation of Gaussian noise for sensitivity one, rounded up."""
    rho = rho_of(epsilon, delta)
    return (1 + 1e-6) / math.sqrt(2 * rho) if rho > 0 else math.inf


def _order(t):
    """Return the logarithm of (1 - 1/alpha)^alpha / (alpha - 1) at alpha = 1 + exp(t)."""
    return -(1 + math.exp(t)) * math.log1p(math.exp(-t)) - t


def _least(function):
    """Return the least value over orders from 1 + 1e-16 to 1e16: a grid, and a search around its best point."""
    grid = [-37 + 0.25 * i for i in range(297)]
    best = min(grid, key=function)
    found = minimize_scalar(function, bounds=(best - 0.25, best + 0.25), method="bounded", options={"xatol": 1e-11})
    return min(function(best), float(found.fun))
