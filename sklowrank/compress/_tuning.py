"""The training of a compressed network: to its labels, and to what it gave before it was compressed."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from torch import nn

from .._core.iterate import Step
from .._core.validation import on_host
from .._nets.batches import Batches
from .._nets.calls import Calls
from .._nets.estimating import held_out_rows
from .._nets.goals import Goal, UnknownLossError, checked_targets, codes_of, goal_of, labels_of_codes
from .._nets.holding import Held
from .._nets.randomness import Randomness
from .._nets.training import Training, train, weights_of
from ._feature_mimicking_compressor_solver import Problem


def known_goal(held: Held, y: Any, calls: Calls, *, frozen: bool) -> Goal | None:
    """Return targets and loss of a held estimator, or None without targets or where its loss is not known.

    Raises
    ------
    ValueError
        If there is not one target for each row, or labels are not among the classes.
    """
    if y is None:
        return None
    y = checked_targets(held, y, calls.n_rows, frozen=frozen, one_class=True)
    labels = labels_of_codes(held, calls)
    if is_classifier(held.estimator):
        classes = np.asarray(on_host(held.estimator.classes_))
        unknown = y[~np.isin(y, classes)]
        if len(unknown):
            there = classes.tolist()
            raise ValueError(f"y has the label {unknown.tolist()[0]!r}, which is not among the classes {there}.")
    try:
        return goal_of(held, y, None if labels is None else codes_of(y, labels))
    except UnknownLossError:
        return None


class _Called(nn.Module):
    """A network that is called with indices of the rows of some calls."""

    def __init__(self, network: nn.Module, calls: Calls):
        super().__init__()
        self.network, self.calls = network, calls

    def forward(self, rows):
        args, kwargs = self.calls.taken(rows, rows.device).arguments[0]
        return self.network(*args, **kwargs)


def tuning(
    problem: Problem,
    goal: Goal | None,
    distillation: float,
    training: Training,
    *,
    randomness: Randomness,
    device: torch.device,
) -> Iterator[Step]:
    """Train a network in place to its goal and to former outputs, an epoch at a time; see :func:`train`.

    The weights that it ends with have the lowest loss on the rows that are held out, those at the start among them.
    """
    if not training.max_iter:
        return
    module, calls, outputs = problem.module, problem.calls, problem.outputs
    n_rows = len(outputs)
    held_out = _held_out(outputs.float() if goal is None else goal.target, training, randomness.generator)
    variance = float((outputs.double() - outputs.double().mean(0)).square().sum() / n_rows) or 1.0
    outputs = outputs.to(device)
    target = None if goal is None else goal.target.to(device)
    calls = calls.taken(torch.arange(n_rows, dtype=torch.int64, device="cpu"), device)

    def loss(found, wanted):
        now = found if isinstance(found, torch.Tensor) else found[0]
        change = (now - wanted[0]).square().reshape(len(now), -1).sum(1).mean() / variance
        if goal is None or len(wanted) < 2:
            return change
        return distillation * change + (1 - distillation) * goal.loss(found, wanted[1])

    def batch(at):
        at = at.to(device)
        return at, (outputs[at],) if target is None else (outputs[at], target[at])

    network = _Called(module, calls)
    batches = Batches(batch, n_rows, held_out, whole=True)
    start, lowest = weights_of(module), math.inf
    with _trainable(module):
        with torch.no_grad():
            parts = held_out.split(training.batch_size)
            first = sum(float(loss(network(at), wanted)) * len(at) for at, wanted in map(batch, parts)) / len(held_out)
        try:
            for epoch, step in enumerate(
                train(network, batches, loss, training, randomness=randomness, device=device), start=1
            ):
                lowest = min(lowest, step.loss)
                yield step._replace(gap=0.0 if epoch == training.max_iter else math.inf)
        finally:
            if not lowest < first:
                module.load_state_dict(start)
            module.eval()


def _held_out(target, training, generator):
    """Draw the rows that are held out: one more where a batch of one row would be left, which norms cannot take."""
    rows = held_out_rows(target, training.validation_fraction, generator)
    n_left = len(target) - len(rows)
    if n_left > 1 and n_left % training.batch_size == 1:
        left = torch.ones(len(target), dtype=torch.bool, device="cpu")
        left[rows] = False
        rows = torch.cat([rows, left.nonzero()[:1, 0]])
    return rows


@contextmanager
def holding_weights(module: nn.Module, weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Let a network in training have the weights of a snapshot in the block, and be in eval mode."""
    now = weights_of(module)
    module.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    module.eval()
    try:
        yield
    finally:
        module.load_state_dict(now)


@contextmanager
def _trainable(module):
    """Let all weights of a network be trained in the block, with dense gradients."""
    parameters = [(p, p.requires_grad) for p in module.parameters() if p.is_floating_point()]
    tables = [part for part in module.modules() if getattr(part, "sparse", False) is True]
    try:
        for parameter, _ in parameters:
            parameter.requires_grad_(True)
        for table in tables:
            table.sparse = False
        yield
    finally:
        for parameter, needs in parameters:
            parameter.requires_grad_(needs)
            parameter.grad = None
        for table in tables:
            table.sparse = True
