"""What the two matrix completion estimators share: from options and cells to sweeps, and from a model to attributes."""

from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from sklearn.exceptions import DataDimensionalityWarning

from .._core.compat import Interval, StrOptions
from .._core.iterate import Step
from .._core.rows import refuse_kind
from .._core.warn import warn
from ._alternating_least_squares import penalised, penalised_start
from ._row_equations import (
    CompletionOptions,
    Model,
    means_of_rows,
    squared_error,
    with_ordered_components,
)
from ._variational_solver import variational

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
_MOST_CHOLESKY_COMPONENTS = 16  # measured: above it sums over cells cost more than a few conjugate-gradient steps


class CompletionProblem(NamedTuple):
    """What a solver is given."""

    cells: Any  # of values divided by `unit`: their mean square is 1
    options: CompletionOptions  # resolved
    unit: float
    sample: Any = None  # cells of some rows, enough to find the number of components on; None: all
    offset_variance: float = 0.0  # least prior variance of the columns' offsets


class Posterior(NamedTuple):
    """What a fit stores of its model beside the public attributes; in units in which values have mean square 1."""

    cov: torch.Tensor | None
    noise: torch.Tensor
    row_ridge: torch.Tensor
    column_ridge: torch.Tensor
    unit: float
    options: CompletionOptions


class Factorization(NamedTuple):
    """A model and the means of all rows in the units of the values, with zeros for components switched off."""

    row_factors: torch.Tensor  # (m, n_components)
    row_intercept: torch.Tensor  # (m,)
    column_factors: torch.Tensor  # (n, n_components), which take the unit; rows do not
    column_intercept: torch.Tensor  # (n,)
    noise_variance: torch.Tensor  # (n,)
    component_variance: torch.Tensor  # (n_components,)


def checked_options(options: CompletionOptions) -> CompletionOptions:
    """Return options as they are; refuse those that exclude each other."""
    if options.nonnegative and not options.variational and options.solver == "cg":
        raise ValueError("nonnegative=True is solved by coordinate descent. Use solver='auto', not 'cg'.")
    if options.nonnegative and options.variational:
        raise ValueError("nonnegative=True needs inference='map': a normal posterior is never non-negative.")
    return options._replace(selects_components=options.n_components == "auto")


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


def completion_problem(cells, options: CompletionOptions, unit: float, **settings) -> CompletionProblem:
    """Return the problem, its solver resolved."""
    if options.solver == "cg" and not options.variational:
        message = "solver='cg' multiplies with all cells at once. Use 'cholesky' or 'auto' with partitions."
        refuse_kind(cells, "cluster", message)
    if options.solver == "auto":
        exact = options.n_components <= _MOST_CHOLESKY_COMPONENTS or options.nonnegative or cells.kind == "cluster"
        options = options._replace(solver="cholesky" if exact else "cg")
    return CompletionProblem(cells, options, unit, **settings)


def sweeps(problem: CompletionProblem, ws):
    """Return the steps of the solver: the model of the cells after each sweep."""
    cells, options, unit, sample, offset_variance = problem
    if not cells.column_counts.sum() > 0:
        return iter([Step(_nothing_observed(cells.shape[1], options, ws), gap=0.0)])
    if options.variational:
        sample = cells if sample is None else sample
        return variational(cells, sample, options, ws, offset_variance=offset_variance)
    return penalised(cells, penalised_start(cells, unit, options, ws), options)


def _nothing_observed(n_columns, options, ws):
    """Return a model of one component of zeros, for tables in which no column varies."""
    one = torch.ones(1 + options.offsets, dtype=ws.dtype, device=ws.device)
    mean = torch.zeros(n_columns, len(one), dtype=ws.dtype, device=ws.device)
    cov = one.diag().expand(n_columns, -1, -1) if options.variational else None
    return Model(mean, cov, torch.ones_like(mean[:, 0]), one, one)


def finished(problem: CompletionProblem, model: Model) -> tuple[Model, torch.Tensor]:
    """Return the model in its final form, and the means of all rows: one more pass, the columns being final."""
    model = with_ordered_components(model, problem.options)
    return model, means_of_rows(problem.cells, model, problem.options)


def mean_squared_residual(problem: CompletionProblem, model: Model, rows) -> float:
    """Return the mean squared residual of all values, in their units; 0 where there are none."""
    squares = squared_error(problem.cells, rows, model, problem.options)
    return float((squares / problem.cells.column_counts.sum()).nan_to_num(nan=0.0)) * problem.unit**2


def in_original_units(model: Model, rows, unit: float, options: CompletionOptions) -> Factorization:
    """Return the model and the means of all rows as the user sees them."""
    u, v = _factors(rows, options), _factors(model.mean, options)
    if model.cov is None:
        variance = ((u**2).mean(0) * (v**2).mean(0)).nan_to_num(nan=0.0)
    else:
        variance = _factors(1 / (model.row_ridge * model.column_ridge)[None], options)[0]
    b, c = (side[:, -1] if options.offsets else torch.zeros_like(side[:, 0]) for side in (rows, model.mean))
    squares = (model.noise.double() * unit**2, variance.double() * unit**2)  # of 1e25: too large for float32
    return Factorization(u, b * unit, v * unit, c * unit, *squares)


def _factors(means, options):
    """Return the factors of one side (m, n_components), with zeros for components that were switched off."""
    k = means.shape[1] - options.offsets
    return torch.nn.functional.pad(means[:, :k], (0, options.n_components - k))


def model_of(posterior: Posterior, components, intercept) -> Model:
    """Return the model of columns (n, n_components), (n,), as :func:`in_original_units` gives them."""
    mean = _means(components, intercept / posterior.unit, posterior, posterior.unit)
    return Model(mean, posterior.cov, posterior.noise, posterior.row_ridge, posterior.column_ridge)


def means_of_known_rows(posterior: Posterior, embedding, intercept) -> torch.Tensor:
    """Return the means (m, d) of rows (m, n_components), (m,), as :func:`in_original_units` gives them."""
    return _means(embedding, intercept / posterior.unit, posterior)


def _means(factors, intercept, posterior, unit=1.0):
    """Return factors in use and offsets as one matrix."""
    k = len(posterior.row_ridge) - posterior.options.offsets
    u = factors[:, :k] / unit
    return torch.cat([u, intercept[:, None]], 1) if posterior.options.offsets else u


def factor_attributes(found: Factorization, ws) -> dict[str, Any]:
    """Return the fitted attributes that both estimators have, but those of the columns."""
    variance = found.component_variance
    return {
        **row_attributes(found, ws),
        "component_variance_": ws.answer(variance),
        "n_components_effective_": int((variance > 1e-3 * variance.max()).sum()),
    }


def row_attributes(found: Factorization, ws) -> dict[str, Any]:
    """Return the fitted attributes of the rows."""
    return {"row_embedding_": ws.answer(found.row_factors), "row_intercept_": ws.answer(found.row_intercept)}


def has_posterior(fitted, inference, name) -> bool:
    """Return True for `available_if`: ask what a fit stored, or, where there is none, the parameter."""
    if (fitted["cov"] is None) if fitted else inference != "variational":
        done = "was fitted" if fitted else "is to be fitted"
        raise AttributeError(
            f"This needs the posterior of a {name} fitted with inference='variational'; this one {done} with 'map', "
            "which gives no standard errors."
        )
    return True
