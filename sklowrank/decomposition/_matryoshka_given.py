"""What nested projections are given, rows, widths and what prefixes are to keep, and what is kept of a fit."""

from numbers import Integral, Real
from typing import Any, NamedTuple

import torch

from .._core.fitted import fitted_attributes
from .._core.rows import RowSource, refuse_kind
from .._core.validation import check_fit_rows
from ._matryoshka_projection_solver import Moments, losses, nested_directions, outputs_in_blocks
from ._nested_rotations import grouped, rotation_of
from ._teachers import CHECKED_ROWS, StoredTeacher, find_teacher, fitted_teacher, live_teacher

_WIDEST = 4096  # features of a group: its matrix is dense


class Projection(NamedTuple):
    """A fitted projection."""

    components: torch.Tensor  # (d, d), rows are directions
    mean: torch.Tensor
    groups: torch.Tensor  # (d,): the group of each row
    n_groups: int
    widths: list[int]  # per group, of the losses
    teacher: StoredTeacher | None  # None: squared errors of the rows


def checked(projection: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """Validate what `fit` was given, and what ties parameters to it."""
    if y is None:
        X = check_fit_rows(projection, X, ensure_min_samples=2)
    else:
        X, y = check_fit_rows(projection, X, y, ensure_min_samples=2, multi_output=True)
    if projection.task_weight and y is None:
        raise ValueError(f"task_weight={projection.task_weight} needs labels. Pass y, or task_weight=0.")
    _check_names(projection)
    d, n_groups = X.shape[1], projection.n_groups
    if d % n_groups:
        raise ValueError(f"n_groups={n_groups} does not divide n_features={d}. Pass a divisor.")
    if d // n_groups > _WIDEST:
        raise ValueError(
            f"X has n_features={d}, of which each of n_groups={n_groups} has {d // n_groups}: at most {_WIDEST} are "
            "rotated at once. Pass more groups."
        )
    return X, y


def _check_names(projection):
    """Refuse columns in another order than those that the estimator was fitted to, as scikit-learn does."""
    names, known = (getattr(fitted, "feature_names_in_", None) for fitted in (projection, projection.estimator))
    if names is not None and known is not None and len(names) == len(known) and list(names) != list(known):
        raise ValueError(
            f"X has the columns {list(names)}, but the estimator was fitted to {list(known)}. Pass them in its order."
        )


def objective_of(projection: Any, y: Any) -> str:
    """Return what prefixes keep."""
    nothing = projection.estimator is None and y is None
    if projection.objective == "predictions" and nothing:
        raise ValueError("objective='predictions' needs estimator, or y for a linear one. Pass one of them.")
    if projection.objective == "auto":
        return "reconstruction" if nothing else "predictions"
    return projection.objective


def count_components(value: Any, d: int) -> int:
    """Return a number of components as a number."""
    if value is None:
        return d
    if isinstance(value, Integral):
        if not 1 <= value <= d:
            raise ValueError(f"n_components={value} has to be between 1 and n_features={d}, or None to keep all.")
        return int(value)
    if not (isinstance(value, Real) and 0 < value <= 1):
        raise ValueError(
            f"n_components={value!r} has to be a whole number, None, or a share of n_features={d} in (0, 1]."
        )
    return max(1, round(value * d))


def widths_of(schedule: Any, d: int, n_groups: int) -> list[int]:
    """Return the widths per group, ascending, at which losses are taken; the last one is all."""
    k = d // n_groups
    if schedule is None:
        step = max(4, k // 16)
        return sorted({*range(step, k, step), k})
    found = list(schedule)
    if not found or not all(isinstance(width, Real) and width in range(1, k + 1) for width in found):
        raise ValueError(f"rank_schedule={found} has to list whole numbers between 1 and {k}.")
    return sorted({*(int(width) for width in found), k})


def teacher_of(given: Any, rows: RowSource, y: Any, moments: Moments, max_iter: int) -> StoredTeacher:
    """Return what answers are kept of; of rows of a cluster it has to be given, and nothing is trained."""
    if max_iter:
        refuse_kind(rows, "cluster", f"max_iter={max_iter} trains on batches of rows, which partitions cannot. Use 0.")
    if given is not None:
        return find_teacher(given, rows.take(slice(0, CHECKED_ROWS)))
    refuse_kind(rows, "cluster", "A linear model of y is not fitted to partitions. Pass one that is, as estimator.")
    return fitted_teacher(rows.take(slice(0, len(rows))), y, moments.mean, moments.scale)


def described(ws: Any, n_components: int, moments: Moments, chosen: Any, teacher: Any, nested: Any, run: Any) -> dict:
    """Return the fitted attributes."""
    model = Projection(nested.components, moments.mean, nested.groups, chosen.n_groups, chosen.widths, teacher)
    return fitted_attributes(
        ws,
        model,
        components_=nested.components.to(ws.dtype),
        mean_=moments.mean.to(ws.dtype),
        n_components_=n_components,
        group_ranks_=ranks_of_groups(nested.groups, n_components, chosen.n_groups),
        rank_loss_=dict(zip(chosen.widths, nested.losses.tolist())),
        loss_curve_=run.loss_curve,
        n_iter_=run.n_iter,
    )


def finished(describe: Any, problem: Any, start: Any, chosen: Any, run: Any) -> dict:
    """Return the fitted attributes where training is at a rotation, or was not."""
    return describe(nested_directions(problem, start, run.state, chosen), run)


def ranks_of_groups(groups: torch.Tensor, width: int, n_groups: int) -> list[int]:
    """Return how many of the first components are of each group."""
    return torch.bincount(groups[:width].cpu(), minlength=n_groups).tolist()


def mean_loss(model: Projection, X: torch.Tensor, n_components: int) -> float:
    """Return the mean loss on rows X (n, d) over the widths; without a teacher the mean squared error of components."""
    Z = X.double() - model.mean
    if model.teacher is None:
        U = model.components[:n_components]
        return float((Z - Z @ U.T @ U).square().mean())
    teacher = live_teacher(model.teacher, X.device, X.dtype)
    U = rotation_of(model.components, model.groups, model.n_groups)
    widths = torch.tensor(model.widths, device=X.device)[:, None].expand(-1, model.n_groups)
    truth = outputs_in_blocks(teacher, X)
    return float(losses(teacher, grouped(Z, model.n_groups), truth, model.mean, U, widths).mean())
