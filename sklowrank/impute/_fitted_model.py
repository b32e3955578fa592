"""From a solver's model to what a fit stores and shows, and back."""

from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.validation import on_host
from ._matrix_completion_solver import CompletionProblem
from ._options import CompletionOptions
from ._row_equations import Model, means_of_rows, squared_error, with_ordered_components

_FIRST_ROWS = 1000  # of a stream, which are kept


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


class RowStream(NamedTuple):
    """What `partial_fit` keeps of its first rows."""

    first_rows: np.ndarray | None  # or a CSR matrix; None once there are enough of them
    n_rows_fitted: int  # in the last full fit


def stream_of(X) -> RowStream:
    """Return the stream that a fit to its first rows starts."""
    return RowStream(on_host(X) if X.shape[0] < _FIRST_ROWS else None, X.shape[0])


def described_table(problem, columns, has_values, known, stream, ws, model):
    """Return what `keep` stores of a solver's model, and the public attributes, with those `known` before."""
    model = with_ordered_components(model, problem.options)
    means = means_of_rows(problem.cells, model, problem.options)
    noise = None if problem.options.variational else mean_squared_residual(problem, model, means)
    rows = means.new_zeros(len(has_values), means.shape[1])  # the prior's means, where a row has no values
    rows[has_values] = means
    models = (Posterior(*model[1:], problem.unit, problem.options), columns, stream)
    return models, {**known, **table_attributes(model, rows, noise, columns, problem.unit, problem.options, ws)}


def table_attributes(model, rows, noise_variance, columns, unit, options, ws):
    """Return the fitted attributes of a model; its noise is learnt where `noise_variance` is None."""
    found = in_original_units(model, rows, unit, options)
    noise = found.noise_variance
    if noise_variance is None:
        noise_variance = float(noise.mean()) if len(noise) else 0.0
    else:
        noise = torch.full_like(noise, noise_variance)
    values = (found.column_factors, found.column_intercept, noise)
    components, intercept, noise = (on_all_columns(side, columns.modelled) for side in values)
    return {
        **factor_attributes(found, ws),
        "components_": ws.answer(components.mT),
        "intercept_": ws.answer(intercept),
        "feature_noise_variance_": ws.answer(noise),
        "noise_variance_": noise_variance,
        "mean_": ws.answer(columns.mean),
        "scale_": ws.answer(columns.scale),
    }


def mean_squared_residual(problem: CompletionProblem, model: Model, rows) -> float:
    """Return the mean squared residual of all values, in their units; 0 where there are none."""
    squares = squared_error(problem.cells, rows, model, problem.options)
    return float((squares / problem.cells.column_counts.sum()).nan_to_num(nan=0.0)) * (problem.unit * problem.unit)


def in_original_units(model: Model, rows, unit: float, options: CompletionOptions) -> Factorization:
    """Return the model and the means of all rows as the user sees them."""
    u, v = _factors(rows, options), _factors(model.mean, options)
    if model.cov is None:
        variance = ((u**2).mean(0) * (v**2).mean(0)).nan_to_num(nan=0.0)
    else:
        variance = _factors(1 / (model.row_ridge * model.column_ridge)[None], options)[0]
    b, c = (side[:, -1] if options.offsets else torch.zeros_like(side[:, 0]) for side in (rows, model.mean))
    squared_unit = unit * unit  # of 1e25: too large for float32
    squares = (model.noise.double() * squared_unit, variance.double() * squared_unit)
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


def on_all_columns(values, modelled):
    """Return values of the modelled columns as values of all columns, zeros elsewhere."""
    full = values.new_zeros(len(modelled), *values.shape[1:])
    full[modelled] = values
    return full
