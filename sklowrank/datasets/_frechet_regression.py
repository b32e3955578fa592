"""Regression data whose responses are numbers, distributions, matrices or directions."""

from numbers import Integral, Real

import numpy as np
from scipy.stats import norm

from .._core.compat import Interval, StrOptions, validate_params

_LEVELS = (np.arange(50) + 0.5) / 50  # of the quantiles that stand for a distribution


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_features": [Interval(Integral, 4, None, closed="left")],
        "response": [StrOptions({"number", "heavy_tails", "location", "location_scale", "matrix", "direction"})],
        "contamination": [Interval(Real, 0, 1, closed="both")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_frechet_regression(
    n_samples=1000, n_features=10, *, response="location", contamination=0.0, random_state=None
):
    """Generate features, responses in a metric space, and the sufficient predictors.

    For sufficient dimension reduction with responses that need not be vectors. Responses depend nonlinearly on at most
    four features; the others are noise.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows.
    n_features : int, default=10
        Number of features, at least 4.
    response : str, default="location"
        Kind of response. "number": a number that depends on the distance from an axis. "heavy_tails": a number with
        Cauchy noise. "location": 50 quantiles of a normal distribution whose mean depends on the features.
        "location_scale": likewise, with a mean and a standard deviation that depend on them. "matrix": a positive
        definite 3 x 3 matrix. "direction": a point on the unit sphere in three dimensions.
    contamination : float, default=0.0
        Share of outliers among the responses, in [0, 1]: 30 times a Cauchy variable is added to them. Only for
        "number", "heavy_tails", "location" and "location_scale".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        Features: uniform on (-1, 1) for "location_scale", "matrix" and "direction", else standard normal.
    y : ndarray of shape (n_samples,), (n_samples, 50), (n_samples, 3, 3) or (n_samples, 3)
        Responses.
    S : ndarray of shape (n_samples, 1) or (n_samples, 2)
        Sufficient predictors: y depends on X through these functions of X alone. They are given up to increasing
        functions.

    Raises
    ------
    ValueError
        If `contamination` is not 0 for matrices or directions, to which no number can be added.

    Examples
    --------
    >>> from sklowrank.datasets import make_frechet_regression
    >>> X, y, S = make_frechet_regression(100, response="matrix", random_state=0)
    >>> X.shape, y.shape, S.shape
    ((100, 10), (100, 3, 3), (100, 2))
    """
    if contamination and response in ("matrix", "direction"):
        raise ValueError(
            f"contamination={contamination} needs numbers or distributions, not response={response!r}. Pass "
            "contamination=0."
        )
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(np.iinfo(np.int32).max)
    rng = np.random.default_rng(random_state)
    uniform = response in ("location_scale", "matrix", "direction")
    shape = (n_samples, n_features)
    X = rng.uniform(-1, 1, size=shape) if uniform else rng.normal(size=shape)
    y, S = _RESPONSES[response](X, rng)
    if contamination:
        hit = rng.random(n_samples) < contamination
        y[hit] += (30 * rng.standard_t(1, size=hit.sum())).reshape(-1, *[1] * (y.ndim - 1))
    return X, y, S


def _number(X, rng):
    r = np.hypot(X[:, 0], X[:, 1])
    return r * np.log(r) + 0.25 * rng.normal(size=len(X)), r[:, None]


def _heavy_tails(X, rng):
    s = 2 * np.sin(np.pi * (X[:, 0] + X[:, 1]) / 4) + X[:, 2] ** 2
    return s + 0.25 * rng.standard_t(1, size=len(X)), s[:, None]


def _location(X, rng):
    m = X[:, 0] ** 2 + X[:, 1] ** 2
    return rng.normal(m, 0.5)[:, None] + norm.ppf(_LEVELS), m[:, None]


def _location_scale(X, rng):
    m, s = 2 * np.sin(np.pi * X[:, 0] * X[:, 1]), np.exp(X[:, 2] ** 2 + X[:, 3] ** 2)
    mean, spread = rng.normal(m, 0.2), rng.gamma(s**2 / 0.25, 0.25 / s)
    return mean[:, None] + spread[:, None] * norm.ppf(_LEVELS), np.column_stack([m, s])


def _matrix(X, rng):
    """Return exponentials of symmetric matrices that are linear in two functions, plus noise."""
    first, second = X[:, 0] ** 2 + X[:, 1] ** 2, np.tanh(4 * X[:, 2] * X[:, 3])
    L = np.zeros((len(X), 3, 3))
    L[:, 0, 0], L[:, 1, 1], L[:, 2, 2] = first, -first, second
    L[:, 0, 1] = L[:, 1, 0] = second
    noise = 0.2 * rng.normal(size=L.shape)
    e, V = np.linalg.eigh(L + (noise + noise.transpose(0, 2, 1)) / 2)
    return (V * np.exp(e)[:, None, :]) @ V.transpose(0, 2, 1), np.column_stack([first, second])


def _direction(X, rng):
    """Return points on a meridian, moved on the sphere by noise in the tangent plane."""
    t = np.pi / 2 * np.minimum(np.hypot(X[:, 0], X[:, 1]), 1.3)
    along, across = 0.15 * rng.normal(size=(len(X), 2)).T
    zero = np.zeros(len(X))
    step = along[:, None] * np.column_stack([np.cos(t), zero, -np.sin(t)])
    step[:, 1] += across
    length = np.linalg.norm(step, axis=1, keepdims=True)
    return np.cos(length) * np.column_stack([np.sin(t), zero, np.cos(t)]) + np.sinc(length / np.pi) * step, t[:, None]


_RESPONSES = {
    "number": _number,
    "heavy_tails": _heavy_tails,
    "location": _location,
    "location_scale": _location_scale,
    "matrix": _matrix,
    "direction": _direction,
}
