"""Nested orthogonal projections: where they start, how they are trained, and which is kept.

Rotations have the shape (groups, k, k): see :mod:`._nested_rotations`.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch

from .._core.blocks import join_blocks, rows_per_block
from .._core.iterate import Step
from .._core.rows import RowSource, gather_blocks
from ._nested_rotations import (
    descending_order,
    explained,
    flat_components,
    greedy_order,
    grouped,
    masks_of,
    principal_rotation,
    sorted_within,
    splice,
    turned,
    turned_back,
    uniform_order,
)
from ._teachers import Teacher, divergence, label_loss

_HELD_OUT = 0.2
_MOST_HELD_OUT = 512
_FEWEST = 10  # rows below which all are held out and trained on
_EVALUATIONS = 30  # of the loss on held-out rows, in max_iter iterations
_SHORTEST_WINDOW = 50  # iterations in which the loss has to fall: the first ones may raise it
_MOST_PASSES = 64  # back-propagations per row for the gradients: above, outputs are probed at random
_DRAWS = 2
_ROUNDING = 1e-9  # a loss that is lower by less than this share of its unit is not lower


class ProjectionOptions(NamedTuple):
    """What the solver reads of the parameters."""

    n_groups: int
    group_ranks: str
    widths: list[int]  # per group, ascending, the last one all
    init: str
    gradient_rows: int
    center: bool
    max_iter: int
    batch_size: int
    learning_rate: float
    task_weight: float


class Moments(NamedTuple):
    """The mean that is subtracted, and the second moments about it."""

    mean: torch.Tensor  # (d,)
    scale: torch.Tensor  # (d,): standard deviations
    blocks: torch.Tensor  # (groups, k, k)


class Nested(NamedTuple):
    """Nested directions, and what their prefixes lose."""

    components: torch.Tensor  # (d, d), rows are directions
    groups: torch.Tensor  # (d,): the group of each row
    losses: torch.Tensor  # at the widths


class Start(NamedTuple):
    """Where training starts."""

    name: str  # "gradient" or "pca"
    rotation: torch.Tensor  # (groups, k, k)


class Problem(NamedTuple):
    """Rows, what is to be kept of them, and what is known of both."""

    rows: RowSource  # (n, d)
    moments: Moments
    gradients: torch.Tensor  # (groups, k, k): second moments of the gradients of the outputs
    teacher: Teacher
    target: torch.Tensor | None  # labels
    train: torch.Tensor  # positions of rows
    held: torch.Tensor  # rows (m, groups, k), centred
    truth: torch.Tensor  # outputs for them
    unit: float  # of the loss


# Closed forms


def moments_of(rows: RowSource, n_groups: int, *, center: bool) -> Moments:
    """Return the mean and the second moments of the groups of features, in float64."""
    n, d = rows.shape
    mean = rows.gather(partial(_sums, n), size=16 * d)[0]
    variance = rows.gather(partial(_squares, n, mean), size=16 * d)[0]
    shift = mean if center else torch.zeros_like(mean)
    return Moments(shift, variance.sqrt(), rows.gather(partial(_products, n, n_groups, shift), size=32 * d)[0])


def _sums(n, X):
    return (X.double().sum(0) / n,)


def _squares(n, mean, X):
    return ((X.double() - mean).square().sum(0) / n,)


def _products(n, n_groups, shift, X):
    Z = grouped(X.double() - shift, n_groups)
    return (torch.einsum("ngi,ngj->gij", Z, Z) / n,)


def closed_form(moments: Moments, options: ProjectionOptions) -> Nested:
    """Return the directions that explain most of the second moments, and the mean squared errors at the widths."""
    U = principal_rotation(moments.blocks, moments.blocks)
    values = explained(moments.blocks, U).clamp(min=0)
    adaptive = options.group_ranks == "adaptive"
    order = descending_order(values) if adaptive else uniform_order(*values.shape)
    rest = [values[:, width:].sum() / values.numel() for width in options.widths]
    return Nested(*flat_components(U, order), torch.stack(rest))


# What is measured


def losses(
    teacher: Teacher, Z: torch.Tensor, truth: torch.Tensor, mean: torch.Tensor, U: torch.Tensor, widths: torch.Tensor
) -> torch.Tensor:
    """Return the mean loss for each choice of the widths of the groups (m, groups)."""
    n, n_groups, k = Z.shape
    masks, widest = masks_of(widths, k), widths.amax(1).tolist()

    def compute(rows):
        coordinates, of = turned(Z[rows], U), truth[rows]
        found = []
        for mask, top in zip(masks, widest):
            near = turned_back(coordinates[..., :top] * mask[:, :top], U)
            outputs = teacher.outputs(mean + near.flatten(1))
            found.append(divergence(outputs, of, classifies=teacher.classifies))
        return torch.stack(found, 1)

    size = 8 * (6 * n_groups * k + 4 * len(masks))
    with torch.no_grad():
        found = join_blocks(compute, n, rows_per_block("auto", n, size), bytes_per_row=size).mean(0)
    return found.clamp(min=0)  # rounding makes divergences of nothing negative


def outputs_in_blocks(teacher: Teacher, X: torch.Tensor) -> torch.Tensor:
    """Return the outputs for all rows, without gradients."""
    n, size = len(X), 64 * X.shape[1]
    with torch.no_grad():
        return join_blocks(
            lambda rows: teacher.outputs(X[rows]), n, rows_per_block("auto", n, size), bytes_per_row=size
        )


def held_losses(problem: Problem, U: torch.Tensor, widths: list[int]) -> torch.Tensor:
    """Return the losses on held-out rows at widths that all groups share."""
    every = torch.tensor(widths, device=U.device)[:, None].expand(-1, len(U))
    return losses(problem.teacher, problem.held, problem.truth, problem.moments.mean, U, every)


def gradient_moments(teacher: Teacher, X: torch.Tensor, n_groups: int, generator: torch.Generator) -> torch.Tensor:
    """Return E[J' M J] for each group: J are the Jacobians of the outputs, M what a small change of them costs.

    For classes M is diag(p) - p p', of probabilities at twice the temperature, for values the identity.

    Raises
    ------
    TypeError
        If the outputs have no gradients.
    """

    def compute(rows):
        x = X[rows].double().requires_grad_(True)
        G = _rows_of_gradients(teacher, x, generator)
        G = grouped(G, n_groups)
        return (torch.einsum("mgi,mgj->gij", G, G) / len(X),)

    return gather_blocks(compute, len(X), size=16 * _MOST_PASSES * X.shape[1])[0]


def _rows_of_gradients(teacher, x, generator):
    """Return rows of which the second moments are the sum of J' M J over the rows x."""
    out = teacher.outputs(x)
    if not out.requires_grad:
        raise TypeError("The outputs of estimator have no gradients with respect to the features: it has to use torch.")
    n, n_outputs = out.shape
    p = (out.detach() / 2).softmax(1)
    probes: list[torch.Tensor] = []
    if n_outputs <= _MOST_PASSES:
        probes = [torch.eye(n_outputs, dtype=out.dtype, device=out.device)[i].expand(n, -1) for i in range(n_outputs)]
        passes = torch.stack([_pulled(out, x, v) for v in probes], 1)  # (n, outputs, d)
        if teacher.classifies:
            passes = p.sqrt()[:, :, None] * (passes - torch.einsum("nk,nkd->nd", p, passes)[:, None])
        return passes.flatten(0, 1)
    found = []
    for _ in range(_MOST_PASSES):
        v = torch.randn(n, n_outputs, generator=generator, dtype=torch.float64, device="cpu").to(out.device)
        if teacher.classifies:
            v = p.sqrt() * v - p * (p.sqrt() * v).sum(1, keepdim=True)
        found.append(_pulled(out, x, v))
    return torch.cat(found) / math.sqrt(_MOST_PASSES)


def _pulled(out, x, v):
    (found,) = torch.autograd.grad(out, x, v, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


# The problem and its start


def projection_problem(
    rows: RowSource,
    moments: Moments,
    teacher: Teacher,
    target: torch.Tensor | None,
    options: ProjectionOptions,
    generator: torch.Generator,
) -> Problem:
    """Return the problem: a fifth of the rows is held out, the gradients are those of some others.

    Raises
    ------
    ValueError
        If outputs of the teacher are not finite, or targets are not as many for a row as these.
    """
    n = len(rows)
    order = torch.randperm(n, generator=generator, device="cpu", dtype=torch.int64).to(moments.mean.device)
    n_held = n if n < _FEWEST else min(_MOST_HELD_OUT, int(_HELD_OUT * n))
    held, train = order[:n_held], order[n_held:] if n >= _FEWEST else order
    X = rows.take(held)
    truth = outputs_in_blocks(teacher, X)
    if not bool(truth.isfinite().all()):
        raise ValueError("The estimator answers NaN or infinity for rows of X.")
    if target is not None and target.ndim == 2 and target.shape[1] != truth.shape[1]:
        raise ValueError(
            f"y has {target.shape[1]} columns, but the estimator answers with {truth.shape[1]} numbers for a row. Pass "
            "a column for each, or task_weight=0."
        )
    some = rows.take(train[: options.gradient_rows])
    gradients = gradient_moments(teacher, some, options.n_groups, generator)
    variance = float((truth - truth.mean(0)).square().mean())
    unit = 1.0 if teacher.classifies or variance == 0 else variance
    Z = grouped(X.double() - moments.mean, options.n_groups)
    return Problem(rows, moments, gradients, teacher, target, train, Z, truth, unit)


def start_of(problem: Problem, options: ProjectionOptions) -> Start:
    """Return the start: for "auto" the one with the lower mean loss."""
    blocks = problem.moments.blocks
    starts = {
        "gradient": principal_rotation(problem.gradients, blocks),
        "pca": principal_rotation(blocks, problem.gradients),
    }
    if options.init != "auto":
        return Start(options.init, starts[options.init])
    gradient, pca = (float(held_losses(problem, U, options.widths).mean()) for U in starts.values())
    best = "pca" if pca < gradient - _ROUNDING * problem.unit else "gradient"
    return Start(best, starts[best])


# Training


def cayley(P: torch.Tensor) -> torch.Tensor:
    """Return the rotations (groups, k, k) of the skew-symmetric parts of matrices."""
    A = (P - P.mT) / 2
    eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    return torch.linalg.solve(eye - A, eye + A)


def trained_rotations(
    problem: Problem, start: torch.Tensor, options: ProjectionOptions, generator: torch.Generator
) -> Iterator[Step]:
    """Train a rotation by Adam, each step at random widths; the state is the best one on held-out rows so far.

    The gap is the relative fall of the held-out loss in the last tenth of the iterations, or 50.
    """
    P = torch.zeros_like(start, requires_grad=True)
    with torch.device("cpu"):  # where Adam counts, whatever the default device is
        adam = torch.optim.Adam([P], lr=options.learning_rate)
    batches = _batches(problem.train, options.batch_size, generator)
    every = max(1, options.max_iter // _EVALUATIONS)
    lag = math.ceil(max(_SHORTEST_WINDOW, options.max_iter // 10) / every)
    best, curve = start, [float(held_losses(problem, start, options.widths).mean())]
    gap = math.inf
    for i, rows in enumerate(batches, 1):
        with torch.enable_grad():
            loss = _batch_loss(problem, start @ cayley(P), rows, options, generator)
            (P.grad,) = torch.autograd.grad(loss, P)
        with torch.device("cpu"):
            adam.step()
        if i % every == 0 or i == options.max_iter:
            U = start @ cayley(P.detach())
            now = float(held_losses(problem, U, options.widths).mean())
            best = U if now < min(curve) else best
            curve.append(min(now, curve[-1]))
            if len(curve) > lag:
                gap = (curve[-1 - lag] - curve[-1]) / curve[-1 - lag] if curve[-1 - lag] > 0 else 0.0
        yield Step(best, gap, float(loss.detach()) * problem.unit)


def _batches(train, size, generator):
    """Yield positions of rows for ever, in a new order each time."""
    while True:
        order = torch.randperm(len(train), generator=generator, device="cpu", dtype=torch.int64).to(train.device)
        yield from train[order].split(size)


def _batch_loss(problem, U, rows, options, generator):
    """Return the mean loss of a batch at widths drawn for each group, in units of the problem."""
    n_groups, k, _ = U.shape
    mean, teacher = problem.moments.mean, problem.teacher
    x = problem.rows.take(rows).double()
    with torch.no_grad():
        truth = teacher.outputs(x)
    choices = torch.tensor(_drawn_widths(options.widths, n_groups), device="cpu")
    drawn = torch.randint(len(choices), (_DRAWS, 1, n_groups), generator=generator, device="cpu", dtype=torch.int64)
    masks = masks_of(choices[drawn].to(U.device), k)
    found = mean + turned_back(turned(grouped(x - mean, n_groups), U) * masks, U).flatten(2)
    outputs = teacher.outputs(found.flatten(0, 1)).unflatten(0, (_DRAWS, len(x)))
    loss = divergence(outputs, truth, classifies=teacher.classifies).mean()
    if problem.target is not None and options.task_weight:
        target = problem.target[rows]
        task = label_loss(outputs.flatten(0, 1), target.repeat(_DRAWS, *[1] * (target.ndim - 1))).mean()
        loss = (1 - options.task_weight) * loss + options.task_weight * task
    return loss / problem.unit


def _drawn_widths(widths, n_groups):
    """Return the widths that are drawn: where there is one group, all columns would teach nothing."""
    return widths[:-1] if n_groups == 1 and len(widths) > 1 else widths


# What is kept


def nested_directions(
    problem: Problem, start: Start, trained: torch.Tensor | None, options: ProjectionOptions
) -> Nested:
    """Return the directions that are kept, in their order; `trained` None: the start."""
    U = start.rotation if trained is None else _best(problem, start, trained, options)
    n_groups, k, _ = U.shape
    order = uniform_order(n_groups, k)
    if options.group_ranks == "adaptive" and n_groups > 1:
        loss = partial(losses, problem.teacher, problem.held, problem.truth, problem.moments.mean, U)
        order = greedy_order(loss, n_groups, options.widths)
    return Nested(*flat_components(U, order), held_losses(problem, U, options.widths))


def _best(problem, start, trained, options):
    """Return the rotation with the least mean loss on held-out rows: the start, the trained one, or one spliced.

    A splice has the first columns of the trained one and, in the space that they leave, those that the start would have
    there.
    """
    first, second = problem.gradients, problem.moments.blocks
    first, second = (first, second) if start.name == "gradient" else (second, first)
    widths = options.widths
    trained = sorted_within(trained, widths, problem.gradients, problem.moments.blocks)
    loss = held_losses(problem, trained, widths)
    candidates = [(float(loss.mean()), trained)]
    for i, width in enumerate(widths[:-1], 1):
        spliced = torch.stack([splice(*parts, width) for parts in zip(trained, first, second)])
        rest = held_losses(problem, spliced, widths[i:])
        candidates.append((float((loss[:i].sum() + rest.sum()) / len(widths)), spliced))
    best_loss, best = min(candidates, key=lambda pair: pair[0])
    start_loss = float(held_losses(problem, start.rotation, widths).mean())
    return best if best_loss < start_loss - _ROUNDING * problem.unit else start.rotation
