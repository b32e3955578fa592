"""The training of a compressed network: to its labels, and to what it gave before it was compressed."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.utils.validation import column_or_1d
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from .._core.iterate import Step
from .._core.validation import on_host
from .._nets.estimating import held_out_rows
from .._nets.found import dtype_of, find_network
from .._nets.holding import Calls, Held, is_ours
from .._nets.randomness import Randomness
from .._nets.training import Batches, Training, train, weights_of


class Task(NamedTuple):
    """Targets of the rows, and the loss of outputs and targets."""

    target: torch.Tensor  # (n, ...), on the CPU
    loss: Callable[[Any, torch.Tensor], torch.Tensor]


def task_of(held: Held, y: Any, n_rows: int, *, frozen: bool) -> Task | None:
    """Return the task of a held estimator, or None where its loss is not known.

    The loss is the criterion of a skorch net, that of an estimator of ours, and of other classifiers the cross-entropy.

    Raises
    ------
    ValueError
        If there is not one target for each row, if labels are not among the classes, or values not finite.
    """
    owner, y = held.owner, np.asarray(on_host(y))
    if len(y) != n_rows:
        raise ValueError(f"X has {n_rows} rows and y has {len(y)}. Pass a target for each row.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("y contains NaN or infinity. Leave these rows out.")
    if is_classifier(held.estimator):
        y = column_or_1d(y, warn=frozen)  # what is fitted first has warned already
    if is_ours(owner):
        found = find_network(owner)
        return Task(found.encode(y), lambda outputs, target: found.loss(outputs, target).mean())
    if isinstance(owner, NeuralNet):
        return Task(_target_of_skorch(owner, y, dtype_of(held.module)), _skorch_loss(owner))
    if not hasattr(held.estimator, "classes_"):
        return None
    classes = np.asarray(on_host(held.estimator.classes_))
    unknown = y[~np.isin(y, classes)]
    if len(unknown):
        raise ValueError(f"y has the label {unknown.tolist()[0]!r}, which is not among the classes {classes.tolist()}.")
    return Task(torch.from_numpy(np.searchsorted(classes, y).astype(np.int64)), nn.functional.cross_entropy)


def _target_of_skorch(net, y, dtype):
    """Return targets as the criterion of a skorch net takes them."""
    if isinstance(net, NeuralNetClassifier) and y.dtype.kind not in "iub":
        y = np.searchsorted(np.asarray(net.classes_), y)
    target = torch.from_numpy(np.array(y))
    if isinstance(net, NeuralNetClassifier):
        return target.long()
    if isinstance(net, NeuralNetRegressor) and target.ndim == 1:
        target = target[:, None]
    is_value = target.is_floating_point() or isinstance(net, NeuralNetBinaryClassifier)
    return target.to(dtype) if is_value else target


def _skorch_loss(net):
    binary = isinstance(net, NeuralNetBinaryClassifier)

    def loss(outputs, target):
        if isinstance(net.criterion_, nn.Module):
            net.criterion_.to(target.device)
        outputs = outputs.reshape(-1) if binary and isinstance(outputs, torch.Tensor) else outputs
        return net.get_loss(outputs, target, X=None, training=True)

    return loss


class _Called(nn.Module):
    """A network that is called with indices of the rows of some calls."""

    def __init__(self, network: nn.Module, calls: Calls):
        super().__init__()
        self.network, self.calls = network, calls

    def forward(self, rows):
        args, kwargs = self.calls.taken(rows, rows.device).arguments[0]
        return self.network(*args, **kwargs)


def tuning(
    module: nn.Module,
    calls: Calls,
    outputs: torch.Tensor,
    task: Task | None,
    distillation: float,
    training: Training,
    *,
    randomness: Randomness,
    device: torch.device,
) -> Iterator[Step]:
    """Train a network in place on its task and on former outputs, an epoch at a time; see :func:`train`.

    The weights that it ends with have the lowest loss on the rows that are held out, those at the start among them.
    """
    if not training.max_iter:
        return
    n_rows = len(outputs)
    held_out = held_out_rows(
        outputs.float() if task is None else task.target, training.validation_fraction, randomness.generator
    )
    variance = float((outputs.double() - outputs.double().mean(0)).square().sum() / n_rows) or 1.0
    outputs = outputs.to(device)
    target = None if task is None else task.target.to(device)
    calls = calls.taken(torch.arange(n_rows, dtype=torch.int64, device="cpu"), device)

    def loss(found, wanted):
        now = found if isinstance(found, torch.Tensor) else found[0]
        change = (now - wanted[0]).square().reshape(len(now), -1).sum(1).mean() / variance
        if task is None or len(wanted) < 2:
            return change
        return distillation * change + (1 - distillation) * task.loss(found, wanted[1])

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
