"""Costs between rows, the plan of a transport, and the maps that it defines."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import euclidean_distances

from .._core.blocks import join_blocks, rows_per_block
from .._core.fitted import fitted_attributes
from .._core.warn import warn
from ._samples import Sample
from ._sinkhorn_newton import check_costs
from ._sinkhorn_newton_solver import (
    EntropicProblem,
    NewtonOptions,
    Potentials,
    feasible_plan,
    positive_part,
    scaling_form,
    with_massless,
)

_UNKNOWN = ("-1", "-1.0", "nan", "None", "NaT", "<NA>")  # classes, as text
SPARSE_METRICS = ("sqeuclidean", "cosine")
_LARGE_ENTROPY = 0.1  # of the median cost, from which sweeps alone are as fast
_LARGE_SHIFT, _SHRINKING_ENTROPY = 0.8, 0.25  # of the mean cost, and of its remainder: moved rows then shrink


class TransportOptions(NamedTuple):
    """Parameters of the estimator that define the problem and the solver."""

    reg: float
    metric: Callable[..., Any] | str
    reg_scale: str | None
    class_reg: float
    solver: str
    warmup: int
    continuation: bool
    density: float | str
    max_newton: int
    tol: float


class TransportProblem(NamedTuple):
    """Two samples, the costs between them, and the entropy in their units."""

    source: Sample
    target: Sample
    metric: Any
    metric_cost: torch.Tensor
    cost: torch.Tensor  # with the penalty of classes
    reg: float
    solving: NewtonOptions

    def entropic(self) -> EntropicProblem:
        """Return the problem of the potentials."""
        return positive_part(self.cost, self.source.mass, self.target.mass, self.reg)


class TransportModel(NamedTuple):
    """What the maps of rows need."""

    X_source: Any
    X_target: Any
    mass_source: torch.Tensor
    mass_target: torch.Tensor
    potentials_source: torch.Tensor
    potentials_target: torch.Tensor
    cost: torch.Tensor
    reg: float
    metric: Any  # that of the fit: potentials belong to it


# The problem


def transport_problem(source: Sample, target: Sample, options: TransportOptions) -> TransportProblem:
    """Return the costs between two samples, and the entropy in their units."""
    cost = costs(source.rows, target.rows, options.metric, source.mass.device)
    check_costs(cost, f"The cost by metric={options.metric!r}")
    rows, columns = source.mass > 0, target.mass > 0
    sizes = cost[rows][:, columns].abs()
    median, largest = weighted_median(sizes, source.mass[rows], target.mass[columns]), float(sizes.max())
    unit = {"median": median, "max": largest, None: 1.0}[options.reg_scale]
    reg = options.reg * (unit or largest or 1.0)  # the median of many equal rows is zero
    if options.metric == "sqeuclidean" and options.reg_scale is not None:
        _warn_of_a_large_shift(source, target, cost, reg)
    penalised = cost
    if source.labels is not None and target.labels is not None:
        penalised = cost + options.class_reg * largest * unlike(source.labels, target.labels).to(cost)
    newton = options.solver == "sns" or (options.solver == "auto" and reg <= _LARGE_ENTROPY * median)
    solving = NewtonOptions(
        options.tol, newton, options.warmup, options.continuation, options.density, options.max_newton
    )
    return TransportProblem(source, target, options.metric, cost, penalised, reg, solving)


def _warn_of_a_large_shift(source, target, cost, reg):
    """Warn where most of the mean cost is the distance between the means, and the entropy is large against the rest."""
    if min(cost.shape) == 1:  # no extent to lose
        return
    away, mean = _mean_row(source) - _mean_row(target), float(source.mass @ cost @ target.mass)
    shift = float(away @ away)
    if shift > _LARGE_SHIFT * mean and reg > _SHRINKING_ENTROPY * (mean - shift):
        warn(
            f"The distance between the means of both tables makes up {shift / mean:.1%} of the mean cost, and so of "
            "the unit of reg: moved rows shrink towards the mean of the target. Centre both tables, as by "
            "X - X.mean(axis=0), or lower reg.",
            UserWarning,
        )


def _mean_row(sample):
    if issparse(sample.rows):
        return torch.from_numpy(sample.rows.T @ sample.mass.cpu().numpy()).to(sample.mass)
    return sample.mass @ sample.rows


def costs(left, right, metric, device) -> torch.Tensor:
    """Return the cost (n_left, n_right) between rows, tensors or CSR matrices, in float64."""
    if metric == "sqeuclidean" and not issparse(left) and not issparse(right):
        centre = right.mean(0)  # far from the origin products would lose digits
        A, B = left - centre, right - centre
        squares = torch.addmm((B * B).sum(1), A, B.T, alpha=-2.0)
        return squares.add_((A * A).sum(1)[:, None]).clamp_(min=0.0)
    left, right = (rows if issparse(rows) else rows.cpu().numpy() for rows in (left, right))
    if metric == "sqeuclidean":
        found = euclidean_distances(left, right, squared=True)
    else:
        found = _pairwise_distances(left, right, metric)
    return torch.from_numpy(np.asarray(found, dtype=np.float64)).to(device)


def _pairwise_distances(left, right, metric):
    """Return scikit-learn's distances; errors of named metrics, some of which need parameters, name the metric."""
    try:
        return pairwise_distances(left, right, metric=metric)
    except ValueError as error:
        if callable(metric):
            raise
        raise ValueError(
            f"metric={metric!r} failed: {str(error).rstrip('.')}. Use another metric, or a function of two rows."
        ) from None


def turned_costs(left, right, metric, device) -> torch.Tensor:
    """Return the cost of rows of the target with rows of the source."""
    return costs(right, left, metric, device).T


def weighted_median(cost, a, b) -> float:
    """Return the median of a cost matrix whose entry i, j counts a_i b_j times."""
    n = cost.numel()
    if bool((a == a[0]).all() and (b == b[0]).all()):
        middle = [cost.flatten().kthvalue(k).values for k in {(n + 1) // 2, n // 2 + 1}]
        return float(sum(middle) / len(middle))
    values, order = cost.flatten().sort()
    below = torch.outer(a, b).flatten()[order].cumsum(0)
    half = below[-1] / 2
    slack = 1e-12 * half
    ends = torch.searchsorted(below, torch.stack([half - slack, half + slack])).clamp(max=n - 1)
    return float(values[ends].mean())


def unlike(labels, target_labels) -> torch.Tensor:
    """Return where two rows have known classes that differ; -1, NaN, None and other missing values are unknown."""
    known, target_known = _is_known(labels), _is_known(target_labels)
    classes, target_classes = (
        np.array(found[there].tolist()) for found, there in ((labels, known), (target_labels, target_known))
    )
    if len(classes) and len(target_classes) and (classes.dtype.kind in "SU") != (target_classes.dtype.kind in "SU"):
        examples = classes.tolist()[0], target_classes.tolist()[0]
        raise ValueError(
            f"y has classes such as {examples[0]!r}, y_target such as {examples[1]!r}. Pass text in both, or numbers."
        )
    codes = np.unique(np.concatenate([classes, target_classes]), return_inverse=True)[1]
    differ = np.zeros((len(labels), len(target_labels)), dtype=bool)
    differ[np.ix_(known, target_known)] = codes[: len(classes), None] != codes[len(classes) :]
    return torch.from_numpy(differ)


def _is_known(labels):
    if labels.dtype.kind in "biuf":
        return ~(np.isnan(labels) | (labels == -1))
    return ~np.isin(labels.astype(str), _UNKNOWN)


# The model


def transport_model(problem: TransportProblem, state: Potentials) -> TransportModel:
    """Return what the maps of rows need."""
    source, target = problem.source, problem.target
    state = with_massless(state, source.mass, target.mass)
    return TransportModel(
        source.rows, target.rows, source.mass, target.mass, state.u, state.v, problem.cost, problem.reg, problem.metric
    )


def described(model: TransportModel, problem: TransportProblem, state: Potentials, ws) -> dict[str, Any]:
    """Return the public attributes."""
    rows = {"X_source_": model.X_source, "X_target_": model.X_target}
    return {
        **{name: table if issparse(table) else table.to(ws.precision) for name, table in rows.items()},
        "potentials_source_": model.potentials_source,
        "potentials_target_": model.potentials_target,
        "cost_": model.cost,
        "distance_": float((problem.metric_cost * coupling(model)).sum()),
        "reg_": model.reg,
        "n_sinkhorn_": state.n_sinkhorn,
        "n_newton_": state.n_newton,
        "n_iter_": state.n_sinkhorn + state.n_newton,
    }


def progress(problem, ws, state) -> dict[str, Any]:
    """Return the fitted attributes at a state of the solver."""
    model = transport_model(problem, state)
    return fitted_attributes(ws, model, **described(model, problem, state, ws))


def coupling(model: TransportModel) -> torch.Tensor:
    """Return the plan, with its exact sums."""
    plan = scaling_form(model.cost, model.potentials_source, model.potentials_target, model.reg)
    return feasible_plan(plan, model.mass_source, model.mass_target)


# The maps


def turned(model: TransportModel) -> TransportModel:
    """Return the model of the transport from the target to the source."""
    return TransportModel(
        model.X_target,
        model.X_source,
        model.mass_target,
        model.mass_source,
        model.potentials_target,
        model.potentials_source,
        model.cost.T,
        model.reg,
        model.metric,
    )


def entropic_rows(rows, model: TransportModel, cost_of) -> torch.Tensor:
    """Return for each row the mean of the target rows, weighted by their potentials and by their cost."""

    def of_block(block):
        return _weighted_rows(cost_of(rows[block], model.X_target), model)

    return _by_blocks(of_block, rows, model.X_target)


def nearest_rows(rows, model: TransportModel, cost_of) -> torch.Tensor:
    """Return each row moved like the nearest row of the plan."""
    means = _weighted_rows(model.cost, model)

    def of_block(block):
        nearest = cost_of(rows[block], model.X_source).argmin(1)
        return means[nearest] + _dense(rows[block], means) - _dense(model.X_source, means)[nearest]

    return _by_blocks(of_block, rows, model.X_source)


MAPS = {"entropic": entropic_rows, "nearest": nearest_rows}


def _weighted_rows(cost, model):
    share = torch.softmax((model.potentials_target - cost) / model.reg, 1)
    if issparse(model.X_target):
        return torch.from_numpy(np.asarray(share.cpu().numpy() @ model.X_target)).to(share)
    return share @ model.X_target


def _dense(rows, like):
    return torch.from_numpy(rows.toarray()).to(like) if issparse(rows) else rows


def _by_blocks(of_block, rows, others):
    """Return what a function makes of slices of rows, each of which needs its costs to all of the others."""
    size, n = 32 * others.shape[0], rows.shape[0]
    return join_blocks(of_block, n, rows_per_block("auto", n, size), bytes_per_row=size)
