"""The parameters that all private estimators share: budget, adjacency, mechanism, accountant, randomness."""

from numbers import Integral, Real
from typing import Any, NamedTuple

from .._core.compat import Interval, StrOptions
from .._core.docs import documented
from .._core.warn import warn
from ._accountant import (
    BudgetError,
    PrivacyAccountant,
    PrivacyLeakWarning,
    PrivacyWarning,
    gaussian_scale,
    read_budget,
    refusal,
    rho_of,
)
from ._mechanism import PrivacyOptions, random_sources, resolve_backend
from ._sketch import ReleaseCounter, Sketch

_LARGE_DELTA = 1e-3

CONSTRAINTS = {  # of the parameters that all private estimators share
    "epsilon": [Real],  # their ranges are checked by privacy_options: scikit-learn's intervals know no fractions
    "delta": [Real],
    "bounds": ["array-like", None],
    "mechanism": [StrOptions({"auto", "gaussian", "laplace"})],
    "adjacency": [StrOptions({"add_remove", "substitute"})],
    "accountant": [PrivacyAccountant, None],
    "noise_backend": [StrOptions({"auto", "opendp", "builtin"})],
    "feature_random_state": ["random_state"],
    "random_state": ["random_state"],
    "device": [str],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
}


documented_release = documented(  # what the docstrings of all private estimators have in common
    budget_parameters="""
    epsilon : float, default=1.0
        The epsilon of (epsilon, delta)-differential privacy. The budget of one fit, above 0 and at most 1e18. Lowering
        it makes the guarantee stronger and the noise larger.
    delta : float, default=1e-6
        The delta of (epsilon, delta)-differential privacy. From 0 to below 1; choose it far below 1 / n_samples. 0 is
        pure differential privacy, by Laplace noise.
    """,
    mechanism_parameters="""
    mechanism : {"auto", "gaussian", "laplace"}, default="auto"
        Distribution of the noise. "auto" takes, of those that `delta` and the accountant allow, the one with the
        smaller predicted error.
    adjacency : {"add_remove", "substitute"}, default="add_remove"
        Which tables are adjacent. "add_remove": one has a row more, so the presence of a row is protected, and the
        number of rows is released with noise. "substitute": one row has other values (and another label), so the number
        of rows is public; it takes twice the noise.
    """,
    release_parameters="""
    accountant : PrivacyAccountant or None, default=None
        The budget that is charged. Without one, the second release of an estimator and its clones warns with
        `PrivacyWarning`, once.
    noise_backend : {"auto", "opendp", "builtin"}, default="auto"
        Sampler of the noise. "auto" is OpenDP where it is installed and nothing is seeded.
    feature_random_state : int, RandomState instance or None, default=None
        Seed of the random frequencies or directions, which are public. Sketches with equal seeds can be merged.
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. None draws noise from the operating
        system. Anything else is for tests only: whoever knows the seed subtracts the noise, and a small seed can be
        found by trying all 2^31 of them until the public features or the noise fit. It warns with
        `PrivacyLeakWarning`, and `noise_secure_` is False.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    batch_size : int or "auto", default="auto"
        Number of rows processed at once; it bounds memory and does not change the result.
    """,
)


class PrivacyParameters(NamedTuple):
    """The parameters as the user has given them."""

    epsilon: Any
    delta: Any
    mechanism: str
    adjacency: str
    accountant: PrivacyAccountant | None
    noise_backend: str
    feature_random_state: Any
    random_state: Any


def privacy_options(
    parameters: PrivacyParameters, former: Sketch | None = None, counter: ReleaseCounter | None = None
) -> PrivacyOptions:
    """Check and resolve the shared parameters, before any data are read.

    Of several releases only the first is paid for: the others are about other rows. An accountant that has not paid for
    the first pays for the next.

    Raises
    ------
    ValueError
        If parameters contradict one another, or the guarantee of `former`.
    BudgetError
        If no allowed mechanism fits into what the accountant has left.
    """
    epsilon, delta = read_budget(parameters.epsilon, parameters.delta)
    if parameters.mechanism == "gaussian" and delta == 0:
        raise ValueError("mechanism='gaussian' needs delta > 0. Pass a delta far below 1 / n_samples, or 'laplace'.")
    if delta >= _LARGE_DELTA:
        warn(
            f"delta={delta:g} is large: the guarantee may fail with that probability. Keep it far below 1 / n_samples.",
            PrivacyWarning,
        )
    rho, scale = (rho_of(epsilon, delta), gaussian_scale(epsilon, delta)) if delta > 0 else (None, float("inf"))
    words, seed, generator = random_sources(
        parameters.random_state, parameters.feature_random_state, 0 if former is None else former.n_releases
    )
    if seed is not None:
        warn(
            "random_state makes the noise reproducible: whoever knows the seed, or finds it by trying all small "
            "numbers until the frequencies or the noise fit, can subtract it. For a release pass None, and "
            "feature_random_state where frequencies have to be the same.",
            PrivacyLeakWarning,
        )
    backend, accountant = resolve_backend(parameters.noise_backend, seed is not None), parameters.accountant
    mechanisms = ("gaussian", "laplace") if parameters.mechanism == "auto" else (parameters.mechanism,)
    mechanisms = tuple(name for name in mechanisms if delta > 0 or name == "laplace")
    privacy = PrivacyOptions(
        epsilon, delta, parameters.adjacency, mechanisms, rho, scale, backend, words, seed, generator, accountant
    )
    if former is None:
        privacy = privacy._replace(counter=counter if accountant is None else None)
    else:
        _check_same_guarantee(privacy, former)
        paid = accountant is not None and accountant._name == former.payer
        privacy = privacy._replace(
            mechanisms=(former.mechanism,), payer=former.payer, accountant=None if paid else accountant
        )
    return privacy if privacy.accountant is None else privacy._replace(mechanisms=_affordable(privacy))


def _check_same_guarantee(privacy: PrivacyOptions, former: Sketch) -> None:
    """Refuse a further release under another guarantee."""
    if former.noise_backend != privacy.noise_backend:
        raise ValueError(
            f"The first release had its noise from {former.noise_backend!r}, this one would have it from "
            f"{privacy.noise_backend!r}. Keep noise_backend and random_state, or call fit."
        )
    changed = (privacy.epsilon, privacy.adjacency) != (former.epsilon, former.adjacency)
    if changed or former.delta not in (0.0, privacy.delta):
        raise ValueError(
            "epsilon, delta or adjacency have changed since the first release. Set them back, or call fit."
        )


def _affordable(privacy: PrivacyOptions) -> tuple[str, ...]:
    """Return the allowed mechanisms for which there is enough left."""
    found = []
    for mechanism in privacy.mechanisms:
        try:
            privacy.accountant.check(**privacy.cost(mechanism))  # type: ignore[union-attr]
            found.append(mechanism)
        except BudgetError:
            if privacy.accountant._detached:  # type: ignore[union-attr]
                raise
    if not found:
        raise refusal(privacy.accountant, privacy.epsilon, privacy.delta)
    return tuple(found)
