"""What an estimator with one network calls: train it, go on with it, ask it."""

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.blocks import in_blocks, rows_per_block
from .._core.fitted import fitted_attributes, options, recall
from .._core.iterate import drive
from .._core.standardize import standardization, standardized
from .._core.validation import check_new_data
from .._core.workspace import Workspace, open_workspace
from .._math.distinct import distinct_rows
from .architecture import Architecture, architecture_of, as_numpy, build, load_weights, restore, split_params
from .randomness import fit_randomness, fixed_randomness
from .targets import Head, unit_weights, weighted
from .training import Batches, Rule, Snapshot, Training, train


class NetworkModel(NamedTuple):
    """A fitted network and what it sees of rows."""

    architecture: Architecture
    weights: dict[str, np.ndarray]
    mean: torch.Tensor  # (n_features,), float64
    scale: torch.Tensor  # (n_features,), float64
    optimizer: dict[int, Any]  # its state, with which `partial_fit` goes on


class Fitted(NamedTuple):
    """What a training leaves: ``keep(self, ws, fitted.model, **fitted.attributes)`` stores it."""

    model: NetworkModel
    attributes: dict[str, Any]  # public ones, those of the model among them


def fit_network(
    estimator,
    X: Any,
    y: Any,
    ws: Workspace,
    *,
    head: tuple[Head, dict[str, Any]],
    rule: Rule | None = None,
    sample_weight: torch.Tensor | None = None,
    start: NetworkModel | None = None,
) -> Fitted:
    """Train the network that an estimator's parameters name on validated X and y.

    It reads `hidden_layer_sizes`, `module`, `net_params`, `standardize` and the parameters of :class:`Training` and of
    :func:`drive`. `head` comes with its fitted attributes, as the functions of :mod:`.targets` return both. Without a
    `module` the network is a multilayer perceptron. A `rule` is copied. Training goes on from the weights of a `start`.

    Raises
    ------
    ValueError
        If the weights of the former model do not suit the network.
    """
    how = "columns" if estimator.standardize else False
    share = None if sample_weight is None else (sample_weight / sample_weight.sum()).to(ws.device)
    mean, scale = standardization(ws.load(X), how, share)
    n_features = (X.shape[1],)
    default: dict[str, Any] = {"hidden_layer_sizes": [int(size) for size in estimator.hidden_layer_sizes]}
    default |= {"activation": getattr(estimator, "activation", "relu"), "dropout": 0.0}
    architecture = architecture_of(estimator.module, estimator.net_params, n_features, head[0].n_out, **default)
    randomness = fit_randomness(estimator, ws)
    with randomness.scope():
        net = build(architecture, randomness.layers)
    if start is not None:
        shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
        if shapes != {name: value.shape for name, value in start.weights.items()}:
            raise ValueError(
                "The weights of the former fit do not suit the network. With warm_start=True keep the columns of X, "
                "the targets, hidden_layer_sizes, module and training as they were, or set warm_start=False."
            )
        load_weights(net, start.weights, ws.device)
    model = NetworkModel(architecture, {}, mean, scale, {})
    return _trained(estimator, X, y, ws, net, model, head, rule, sample_weight, randomness)


def continue_network(
    estimator,
    X: Any,
    y: Any,
    ws: Workspace,
    *,
    head: tuple[Head, dict[str, Any]],
    rule: Rule | None = None,
    sample_weight: torch.Tensor | None = None,
) -> Fitted:
    """Train the fitted network for an epoch on validated X and y; the state of the optimizer is kept."""
    model = recall(estimator, NetworkModel, ws.exact())
    ws.generator.manual_seed(ws.generator.initial_seed() + estimator.n_iter_)  # other batches than before
    randomness = fit_randomness(estimator, ws)
    net = restore(model.architecture, model.weights, ws.device, randomness.layers)
    fitted = _trained(estimator, X, y, ws, net, model, head, rule, sample_weight, randomness, n_epochs=1)
    added = {name: getattr(estimator, name) + fitted.attributes[name] for name in ("loss_curve_", "n_iter_")}
    return fitted._replace(attributes=fitted.attributes | added)


def _trained(estimator, X, y, ws, net, model, head, rule, sample_weight, randomness, n_epochs=None):
    """Train a network from where it is."""
    training = options(estimator, Training, net_params=split_params(estimator.net_params)[1])
    if n_epochs is not None:
        training = training._replace(max_iter=n_epochs, tol=0.0, early_stopping=False)
    rows = standardized(ws.load(X), model.mean, model.scale)
    target, weight = head[0].encode(y).to(ws.device), unit_weights(sample_weight, len(rows)).to(ws.device)
    held_out = None
    if training.early_stopping:
        count = max(1, round(training.validation_fraction * len(rows)))
        held_out = torch.randperm(len(rows), generator=ws.generator, device="cpu", dtype=torch.int64)[:count]
    batches = Batches(lambda at: (rows[at], (target[at], weight[at])), len(rows), held_out, whole=True)
    rule = None if rule is None else clone(rule)
    edits = list(model.architecture.edits)

    def described(snapshot: Snapshot, **more):
        architecture = model.architecture._replace(edits=snapshot.edits)
        now = NetworkModel(architecture, as_numpy(snapshot.weights), model.mean, model.scale, snapshot.optimizer)
        found = {
            "weights_": now.weights,
            "mean_": model.mean,
            "scale_": model.scale,
            "n_parameters_": _n_parameters(architecture),
            "n_dense_parameters_": _n_parameters(architecture._replace(edits=())),
            "training_": snapshot.report,
        }
        return Fitted(now, head[1] | found | more)

    def attributes(snapshot):
        fitted = described(snapshot)
        return fitted_attributes(ws, fitted.model, **fitted.attributes)

    steps = train(
        net,
        batches,
        weighted(head[0].loss),
        training,
        randomness=randomness,
        device=ws.device,
        rule=rule,
        edits=edits,
        optimizer=model.optimizer,
        keep_best=training.early_stopping,
        keep_optimizer=True,
    )
    run = drive(estimator, steps, attributes=attributes, X=X, y=y, max_iter=training.max_iter, tol=training.tol)
    report = {} if rule is None else rule.report()
    finished = Snapshot(tuple(edits), net.state_dict(), run.state.optimizer, report)
    return described(finished, loss_curve_=run.loss_curve, n_iter_=run.n_iter)


def _n_parameters(architecture: Architecture) -> int:
    with fixed_randomness().scope():
        return sum(parameter.numel() for parameter in build(architecture, None).parameters())


def fitted_network(estimator, device: torch.device | str = "cpu") -> nn.Module:
    """Return a new torch module with the fitted weights, in eval mode: what an estimator's `network()` gives."""
    check_is_fitted(estimator)
    model = recall(estimator, NetworkModel, open_workspace(np.empty((0, 0)), device="cpu"))
    return restore(model.architecture, model.weights, device)


def distinct_outputs(net: nn.Module, X: torch.Tensor, *, size: int) -> tuple[torch.Tensor, ...]:
    """Return the outputs of a network in eval mode for all rows, each of which takes `size` bytes.

    Equal rows get equal outputs: each is computed once, since a product may round a row according to its place in a
    block.
    """
    was_training = net.training
    net.eval()
    first, kind = distinct_rows(X)
    step = rows_per_block("auto", len(first), size)

    def of(rows):
        found = net(X[first[rows]])
        return found if isinstance(found, tuple) else (found,)

    with torch.inference_mode():
        parts = list(in_blocks(of, len(first), step, bytes_per_row=size))
    net.train(was_training)
    return tuple(torch.cat(part)[kind] for part in zip(*parts))


def network_outputs(estimator, X: Any, *, method: str) -> tuple[Workspace, torch.Tensor]:
    """Validate new rows of a fitted estimator's method; return the workspace and the network's outputs.

    The default network is computed in float64: the outputs of a row do not depend on the rows beside it. A user's
    module may know float32 only.
    """
    X = check_new_data(estimator, X, like="mean_", method=method)
    ws = open_workspace(X, device=estimator.device)
    model = recall(estimator, NetworkModel, ws.exact())
    net = restore(model.architecture, model.weights, ws.device)
    dtype = torch.float64 if model.architecture.module is None else torch.float32
    rows = standardized(ws.load(X), model.mean, model.scale, dtype)
    size = 8 * (X.shape[1] + sum(p.shape[0] for p in net.parameters()))
    return ws, distinct_outputs(net.to(dtype), rows, size=size)[0]
