"""What the two matrix completion estimators share: from options and cells to sweeps, and from a model to attributes."""

from typing import Any, NamedTuple

import torch

from .._core.iterate import Step
from .._core.rows import refuse_kind
from ._alternating_least_squares import penalised, penalised_start
from ._options import CompletionOptions
from ._row_equations import Model
from ._variational_solver import variational

_MOST_CHOLESKY_COMPONENTS = 16  # measured: above it sums over cells cost more than a few conjugate-gradient steps


class CompletionProblem(NamedTuple):
    """What a solver is given."""

    cells: Any  # of values divided by `unit`: their mean square is 1
    options: CompletionOptions  # resolved
    unit: float
    sample: Any = None  # cells of some rows, enough to find the number of components on; None: all
    offset_variance: float = 0.0  # least prior variance of the columns' offsets


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
