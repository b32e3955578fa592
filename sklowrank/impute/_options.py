"""The parameters that the two matrix completion estimators share: what they may be, and what solvers read of them."""

from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import DataDimensionalityWarning

from .._core.compat import Interval, StrOptions
from .._core.warn import warn

CONSTRAINTS: dict[str, Any] = {  # of the parameters that both estimators have
    "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "inference": [StrOptions({"variational", "map"})],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "solver": [StrOptions({"auto", "cholesky", "cg"})],
    "cg_steps": [Interval(Integral, 1, None, closed="left")],
    "fit_intercept": ["boolean"],
    "nonnegative": ["boolean"],
    "clip": [StrOptions({"observed"}), tuple, list, None],
    "init": [StrOptions({"svd", "random"})],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


NOT_CONVERGED = "Raise max_iter or tol."  # the columns are scaled, or the values


class CompletionOptions(NamedTuple):
    """The parameters that both estimators have, and that their solvers read."""

    n_components: int | str  # resolved: an int
    inference: str
    alpha: float
    reg_scaling: str | None
    solver: str  # resolved: "cholesky" or "cg"
    cg_steps: int
    fit_intercept: bool
    nonnegative: bool
    init: str
    batch_size: int | str
    selects_components: bool  # components are added where they raise the bound, not wherever they stay in use

    @property
    def variational(self) -> bool:
        """Whether posteriors are learnt, not penalised least squares."""
        return self.inference == "variational"

    @property
    def offsets(self) -> bool:
        """Whether rows and columns have an offset, and values are centred."""
        return self.fit_intercept and not self.nonnegative

    @property
    def iterative(self) -> bool:
        """Whether rows are solved by conjugate gradients."""
        return not self.variational and self.solver == "cg"


def checked_options(options: CompletionOptions, shape=None) -> CompletionOptions:
    """Return the options of a fit to a table of this shape, where it is known; refuse those that exclude each other."""
    if options.iterative and options.nonnegative:
        raise ValueError("nonnegative=True is solved by coordinate descent. Use solver='auto', not 'cg'.")
    if options.nonnegative and options.variational:
        raise ValueError("nonnegative=True needs inference='map': a normal posterior is never non-negative.")
    options = options._replace(selects_components=options.n_components == "auto")
    return options if shape is None else options._replace(n_components=count_components(options.n_components, shape))


def automatic_components(shape) -> int:
    """Return the number of components that "auto" means for a matrix of this shape."""
    return max(1, min(20, *(size - 1 for size in shape)))


def count_components(n_components, shape) -> int:
    """Resolve `n_components` for a table of this shape; an int that is too large is cut with a warning."""
    most = min(shape)
    if n_components == "auto":
        return automatic_components(shape)
    if n_components > most:
        warn(
            f"n_components={n_components} is too large for X with n_samples={shape[0]}, n_features={shape[1]}; "
            f"{most} were used.",
            DataDimensionalityWarning,
        )
    return min(n_components, most)


def check_clip(clip, n_features=None):
    """Return `clip` as it is, or its bounds as floats or arrays of shape (n_features,), which they may be if given."""
    if clip is None or isinstance(clip, str):
        return clip
    bounds = [np.asarray(bound) for bound in clip]
    if len(bounds) != 2 or any(bound.dtype.kind not in "biuf" or np.isnan(bound).any() for bound in bounds):
        raise ValueError(f"clip={clip} must be a pair (low, high) of numbers with low <= high, 'observed' or None.")
    for name, bound in zip(("low", "high"), bounds):
        if bound.shape not in ((), (n_features,)):
            per_feature = "" if n_features is None else f", or one bound for each of the n_features={n_features}"
            raise ValueError(f"The {name} bound in clip has shape {bound.shape}. Pass a number{per_feature}.")
    low, high = (bound.astype(np.float64) for bound in bounds)
    wrong = np.flatnonzero(np.atleast_1d(low > high))
    if len(wrong):
        pair = tuple(float(bound.flat[min(wrong[0], bound.size - 1)]) for bound in (low, high))
        where = "" if low.ndim == high.ndim == 0 else f" of feature {wrong[0]}"
        raise ValueError(f"The bounds {pair}{where} in clip are not in order: they need low <= high.")
    return tuple(bound.item() if bound.ndim == 0 else bound for bound in (low, high))


def has_posterior(fitted, inference, name) -> bool:
    """Return True for `available_if`: ask what a fit stored, or, where there is none, the parameter."""
    if (fitted["cov"] is None) if fitted else inference != "variational":
        done = "was fitted" if fitted else "is to be fitted"
        raise AttributeError(
            f"This needs the posterior of a {name} fitted with inference='variational'; this one {done} with 'map', "
            "which gives no standard errors."
        )
    return True
