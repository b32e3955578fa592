"""What an estimator with one network calls: train it, continue its training, compute its outputs."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.blocks import join_blocks, rows_per_block
from .._core.fitted import fitted_attributes, keep, options, public_attributes, recall
from .._core.iterate import drive
from .._core.modes import plain_modes
from .._core.standardize import standardization, standardized
from .._core.validation import check_new_data, on_host
from .._core.workspace import Workspace, open_workspace
from .._math.distinct import distinct_rows
from .architecture import (
    Architecture,
    Edit,
    Start,
    answers_exactly,
    architecture_of,
    as_numpy,
    build,
    draws_again,
    is_skeleton,
    multiply_out,
    restore,
    same_network,
    split_params,
    start_at_low_rank,
)
from .batches import Batches
from .layers import layer_sizes, linear_layers, rank_of, refresh_statistics
from .randomness import fit_randomness, fixed_randomness
from .targets import Head, unit_weights, weighted
from .training import Rule, Snapshot, Training, current_edits, train


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


def former_network(estimator, ws: Workspace) -> NetworkModel | None:
    """Return the model of the former fit where `warm_start` asks for it, else None."""
    warm = estimator.warm_start and hasattr(estimator, "weights_")
    return recall(estimator, NetworkModel, ws.exact()) if warm else None


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
    n_epochs: int | None = None,
) -> Fitted:
    """Train the network that an estimator's parameters name on validated X and y.

    It reads `hidden_layer_sizes`, `module`, `net_params`, `standardize`, `init_rank` and the parameters of
    :class:`Training` and of :func:`drive`. `head` comes with its fitted attributes, as the functions of :mod:`.targets`
    return both. Without a `module` the network is a multilayer perceptron. A `rule` is copied. Training goes on from a
    `start`: its layers, its weights, and its standardisation of the columns. `n_epochs` takes the place of `max_iter`,
    and nothing ends it before.

    Raises
    ------
    ValueError
        If the former model does not suit the parameters or the data.
    """
    default: dict[str, Any] = {"hidden_layer_sizes": layer_sizes(estimator.hidden_layer_sizes)}
    default |= {"activation": getattr(estimator, "activation", "relu"), "dropout": 0.0}
    architecture = architecture_of(estimator.module, estimator.net_params, (X.shape[1],), head[0].n_out, **default)
    randomness = fit_randomness(estimator, ws)
    if start is None:
        share = None if sample_weight is None else (sample_weight / sample_weight.sum()).to(ws.device)
        mean, scale = standardization(ws.load(X), "columns" if estimator.standardize else False, share)
        with randomness.scope():
            net = build(architecture, randomness.layers)
        if getattr(estimator, "init_rank", None) is not None:
            start_at_low_rank(net, estimator.init_rank)
        if rule is not None:
            drawn = architecture._replace(start=Start(randomness.layers_seed, getattr(estimator, "init_rank", None)))
            architecture = drawn if draws_again(drawn, net) else architecture
        start = NetworkModel(architecture, {}, mean, scale, {})
    else:
        if not same_network(architecture, start.architecture):
            raise ValueError(
                "The former network does not suit the parameters or the data. With warm_start=True keep the columns "
                "of X, the targets, hidden_layer_sizes, module and its arguments as they were, or set "
                "warm_start=False. A network that a compressor or an adapter has changed is trained on by partial_fit."
            )
        net = restore(start.architecture, start.weights, ws.device, randomness.layers)
        start = start._replace(optimizer={})
    return _trained(estimator, X, y, ws, net, start, head, rule, sample_weight, randomness, n_epochs)


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
    """Train the network for an epoch on validated X and y; the state of the optimizer is kept.

    Where there is none yet, this is a fit of one epoch.
    """
    if not hasattr(estimator, "weights_"):
        return fit_network(estimator, X, y, ws, head=head, rule=rule, sample_weight=sample_weight, n_epochs=1)
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
    target = head[0].encode(on_host(y))
    held_out = held_out_rows(target, training.validation_fraction, ws.generator) if training.early_stopping else None
    n_rows = len(target) - (0 if held_out is None else len(held_out))
    # In one batch of all rows in float64 a weight of two is the same as a row that is there twice, to 1e-7.
    exact = ws.dtype == torch.float64 and n_rows <= training.batch_size and model.architecture.module is None
    dtype = torch.float64 if exact else torch.float32
    net.to(dtype)
    rows = standardized(ws.load(X), model.mean, model.scale, dtype)
    target = target.to(ws.device, dtype if target.is_floating_point() else None)
    weight = unit_weights(sample_weight)
    weight = None if weight is None else weight.to(ws.device, dtype)

    def batch(at):
        return rows[at], (target[at], None if weight is None else weight[at])

    batches = Batches(batch, len(rows), held_out, whole=True)
    rule = None if rule is None else clone(rule)
    if rule is not None and model.weights:
        rule.former_ = estimator.training_
    edits = list(model.architecture.edits)

    def described(snapshot: Snapshot, **more):
        architecture, weights = _stored(model, rule, snapshot)
        now = NetworkModel(architecture, as_numpy(weights), model.mean, model.scale, snapshot.optimizer)
        found = {"weights_": now.weights, "mean_": model.mean, "scale_": model.scale, "training_": snapshot.report}
        return Fitted(now, head[1] | found | sizes(architecture) | more)

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


def _stored(model, rule, snapshot):
    """Return the architecture and the weights that are stored of a training that began with a model."""
    architecture = model.architecture._replace(edits=snapshot.edits, expansion=None)
    if rule is None:
        return architecture, snapshot.weights
    expansion = rule.expansion()
    from_start = not model.weights or expansion == model.architecture.expansion
    if expansion is not None and from_start and architecture.start.seed is not None:
        architecture = architecture._replace(expansion=expansion)
    expands = architecture.expansion is not None
    return architecture, rule.stored(snapshot.weights, snapshot.report, expands=expands)


def held_out_rows(target: torch.Tensor, fraction: float, generator: torch.Generator) -> torch.Tensor:
    """Draw the rows that are held out; of each class its share, where the targets are classes."""
    n_rows = len(target)
    order = torch.randperm(n_rows, generator=generator, device="cpu", dtype=torch.int64)
    if not target.is_floating_point():
        order = order[target[order].argsort(stable=True)]
    count = min(max(1, round(fraction * n_rows)), n_rows - 1)
    if count < 1:
        raise ValueError(
            "Early stopping holds rows out, but n_samples=1. Set early_stopping=False, or validation_fraction=0 where "
            "the estimator has no such parameter."
        )
    return order[((torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) * n_rows / count).long()]


def sizes(architecture: Architecture) -> dict[str, Any]:
    """Return what an estimator says of the size of its network."""
    with fixed_randomness().scope():
        dense, net = build(architecture._replace(edits=()), None), build(architecture, None)
    if is_skeleton(architecture):
        ranks = tuple(rank_of(layer) for _, layer in linear_layers(net)[:-1])
        return {"n_parameters_": _count(net), "n_dense_parameters_": architecture.n_dense, "ranks_": ranks}
    ranks = tuple(rank_of(layer) for _, layer in linear_layers(net)[:-1])
    multiply_out(net)
    count = _count(net) if architecture.expansion is None else architecture.expansion.shape[0]
    return {"n_parameters_": count, "n_dense_parameters_": _count(dense), "ranks_": ranks}


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def fitted_network(estimator, device: torch.device | str = "cpu") -> nn.Module:
    """Return a new torch module with the fitted weights, in eval mode: what an estimator's `network()` gives.

    Thin layers with more numbers than their product are multiplied out.
    """
    check_is_fitted(estimator)
    model = recall(estimator, NetworkModel, open_workspace(np.empty((0, 0)), device="cpu"))
    net = restore(model.architecture, model.weights)
    multiply_out(net)
    return net.to(device)


def changed_copy(estimator, change: Callable[[nn.Module], list[Edit]], X: Any = None, **attributes):
    """Return a copy of a fitted estimator whose network has been changed.

    `change` works on a module in place and returns the layers that it has replaced. With validated rows X the running
    statistics of batch normalisation are computed again. `attributes` are public ones that change, too. The state of
    the optimizer stays for parameters that keep their shape.
    """
    check_is_fitted(estimator)
    ws = open_workspace(np.empty((0, 0)) if X is None else X, device=estimator.device)
    model = recall(estimator, NetworkModel, ws.exact())
    net = restore(model.architecture, model.weights, ws.device)
    edits = [*model.architecture.edits, *change(net)]
    if X is not None:
        rows = standardized(ws.load(X), model.mean, model.scale, torch.float32)
        refresh_statistics(net, rows, estimator.batch_size)
    architecture = model.architecture._replace(edits=current_edits(net, edits))
    model = model._replace(architecture=architecture, weights=as_numpy(net.state_dict()))
    new = copy.deepcopy(estimator)
    changed = {**public_attributes(new), "weights_": model.weights, **sizes(architecture), **attributes}
    return keep(new, ws, model, **changed)


def distinct_outputs(net: nn.Module, X: torch.Tensor, *, size: int) -> tuple[torch.Tensor, ...]:
    """Return the outputs of a network in eval mode for all rows, each of which takes `size` bytes.

    Equal rows get equal outputs: each is computed once, since a product may round a row according to its place in a
    block.
    """
    was_training = net.training
    net.eval()
    first, kind = distinct_rows(X)
    step = rows_per_block("auto", len(first), size)
    with plain_modes(), torch.inference_mode():
        found = join_blocks(lambda rows: net(X[first[rows]]), len(first), step, bytes_per_row=size)
    net.train(was_training)
    return tuple(part[kind] for part in (found if isinstance(found, tuple) else (found,)))


def network_outputs(estimator, X: Any, *, method: str) -> tuple[Workspace, torch.Tensor]:
    """Validate new rows of a fitted estimator's method; return the workspace and the network's outputs.

    The default network is computed in float64: the outputs of a row do not depend on the rows beside it. A user's
    module may take float32 alone.
    """
    X = check_new_data(estimator, X, like="mean_", method=method)
    ws = open_workspace(X, device=estimator.device)
    model = recall(estimator, NetworkModel, ws.exact())
    net = restore(model.architecture, model.weights, ws.device)
    dtype = torch.float64 if answers_exactly(model.architecture) else torch.float32
    rows = standardized(ws.load(X), model.mean, model.scale, dtype)
    size = 8 * (X.shape[1] + sum(p.shape[0] for p in net.parameters()))
    return ws, distinct_outputs(net.to(dtype), rows, size=size)[0]
