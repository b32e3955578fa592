"""What a privacy budget is, what releases add up to, and who stops one that would cost too much."""

import math
import threading
from typing import NamedTuple

from scipy.optimize import minimize_scalar

SAMPLER_SHARE = 0.01  # of delta, at most, for what the built-in sampler of Gaussian noise may do wrong


class BudgetError(RuntimeError):
    """A release would cost more than the budget has left; nothing was released.

    Examples
    --------
    >>> from sklowrank.privacy import BudgetError, PrivacyAccountant
    >>> purse = PrivacyAccountant(epsilon=1.0, delta=1e-5)
    >>> purse.spend(0.8, 0.0, "first")
    >>> try:
    ...     purse.spend(0.8, 0.0, "second")
    ... except BudgetError:
    ...     print("refused")
    refused
    """


class PrivacyWarning(UserWarning):
    """A promise that is weaker than it looks.

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
    """What a fitted estimator has promised: for each row, and the same for all releases on other rows.

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
    neighbors: str
    n_releases: int


class Spend(NamedTuple):
    """One entry of an accountant's history."""

    epsilon: float
    delta: float
    label: str
    rho: float | None  # of a Gaussian release: concentrated differential privacy


class PrivacyAccountant:
    """A purse for several releases from the same rows: it adds up what they cost, and stops what would cost too much.

    Give one accountant to every estimator that sees the same people; it is shared, not copied, by
    :func:`~sklearn.base.clone`, so each candidate of a grid search pays. Threads may share it. A process cannot report
    back, so a pickled copy is detached and refuses to spend.

    Parameters
    ----------
    epsilon : float, default=inf
        The budget.
    delta : float, default=1.0
        The budget of failure probabilities.
    slack : float, default=0.0
        Extra failure probability for which releases may be composed more tightly (advanced composition).

    Attributes
    ----------
    history : list of tuples (epsilon, delta, label, rho)
        What was spent, in order; `rho` is None for releases without Gaussian noise.

    Notes
    -----
    Epsilons and deltas add up. With `slack` the smaller of that and advanced composition (Kairouz, Oh, Viswanath 2015)
    counts. Where all releases have Gaussian noise, their concentrated costs rho add up too and are converted once, at
    the sum of the deltas (Canonne, Kamath, Steinke 2020), if that is smaller.

    Examples
    --------
    >>> from sklowrank.privacy import PrivacyAccountant
    >>> purse = PrivacyAccountant(epsilon=2.0)
    >>> purse.spend(1.5, 0.0, "a density")
    >>> purse.remaining()
    (0.5, 1.0)
    """

    def __init__(self, epsilon=math.inf, delta=1.0, slack=0.0):
        if not epsilon > 0 or not 0 <= delta <= 1 or not 0 <= slack < 1:
            raise ValueError(
                f"epsilon={epsilon}, delta={delta}, slack={slack}: pass epsilon > 0, and delta and slack from 0 to 1."
            )
        self.epsilon = epsilon
        self.delta = delta
        self.slack = slack
        self.history = []
        self._detached = False
        self._lock = threading.Lock()

    def check(self, epsilon, delta, *, rho=None):
        """Raise BudgetError where a spend of this size would be refused.

        Parameters
        ----------
        epsilon, delta : float
            What the release would cost.
        rho : float or None, default=None
            Its concentrated cost, where it has Gaussian noise.
        """
        with self._lock:
            self._check(Spend(epsilon, delta, "", rho))

    def spend(self, epsilon, delta, label, *, rho=None):
        """Record a spend, or raise BudgetError and record nothing.

        Parameters
        ----------
        epsilon, delta : float
            What the release costs.
        label : str
            What it was for.
        rho : float or None, default=None
            Its concentrated cost, where it has Gaussian noise.
        """
        with self._lock:
            self._check(Spend(epsilon, delta, label, rho))
            self.history.append(Spend(epsilon, delta, label, rho))

    def total(self):
        """Return what was spent.

        Returns
        -------
        epsilon, delta : float
        """
        return compose(self.history, self.slack)

    def remaining(self):
        """Return what is left, at least zero.

        Returns
        -------
        epsilon, delta : float
        """
        epsilon, delta = self.total()
        return max(0.0, self.epsilon - epsilon), max(0.0, self.delta - delta)

    def _check(self, spend):
        if self._detached:
            raise BudgetError(
                "This accountant is a copy in another process, whose spending nobody would see. Fit in the process of "
                "the accountant: n_jobs=1, or joblib's threads."
            )
        epsilon, delta = compose([*self.history, spend], self.slack)
        if epsilon > self.epsilon * (1 + 1e-12) or delta > self.delta * (1 + 1e-12):
            left = self.remaining()
            raise BudgetError(
                f"A release of epsilon={spend.epsilon:g}, delta={spend.delta:g} costs more than is left: "
                f"epsilon={left[0]:g}, delta={left[1]:g} of epsilon={self.epsilon:g}, delta={self.delta:g}. "
                "Nothing was released."
            )

    def __sklearn_clone__(self):
        return self

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __getstate__(self):
        return {**self.__dict__, "_lock": None, "_detached": True, "history": list(self.history)}

    def __setstate__(self, state):
        self.__dict__.update(state, _lock=threading.Lock())

    def __repr__(self):
        return f"PrivacyAccountant(epsilon={self.epsilon}, delta={self.delta}, slack={self.slack})"


def compose(spends, slack: float = 0.0) -> tuple[float, float]:
    """Return epsilon and delta of several releases from the same rows."""
    epsilons = [spend.epsilon for spend in spends]
    epsilon, delta = math.fsum(epsilons), math.fsum(spend.delta for spend in spends)
    if not spends:
        return 0.0, 0.0
    if delta > 0 and all(spend.rho is not None for spend in spends):
        rho = math.fsum(spend.rho for spend in spends)
        epsilon = min(epsilon, epsilon_of(rho, delta * (1 - SAMPLER_SHARE)))
    if slack > 0:
        spread = math.sqrt(2 * math.log(1 / slack) * math.fsum(e * e for e in epsilons))
        tighter = spread + math.fsum(e * math.tanh(e / 2) for e in epsilons)
        if tighter < epsilon:
            return tighter, delta + slack
    return epsilon, delta


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
    return (1 + 1e-6) / math.sqrt(2 * rho_of(epsilon, delta))


def _order(t):
    """Return the logarithm of (1 - 1/alpha)^alpha / (alpha - 1) at alpha = 1 + exp(t)."""
    return -(1 + math.exp(t)) * math.log1p(math.exp(-t)) - t


def _least(function):
    """Return the least value over orders from 1 + 1e-16 to 1e16: a grid, and a search around its best point."""
    grid = [-37 + 0.25 * i for i in range(297)]
    best = min(grid, key=function)
    found = minimize_scalar(function, bounds=(best - 0.25, best + 0.25), method="bounded", options={"xatol": 1e-11})
    return min(function(best), float(found.fun))
