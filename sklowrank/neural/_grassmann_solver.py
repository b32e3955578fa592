"""Training of subspaces of classes: where they begin, the steps, what is kept."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from .._core.iterate import Step
from .._core.rows import Rows, map_rows
from .._nets.architecture import (
    architecture_of,
    as_numpy,
    build,
    same_network,
    split_params,
)
from .._nets.batches import Batches
from .._nets.estimating import held_out_rows
from .._nets.layers import layer_sizes
from .._nets.randomness import Randomness
from .._nets.schedules import cosine
from .._nets.targets import weighted
from .._nets.training import Snapshot, Training, train
from ._grassmann_network import (
    TRUNK,
    Model,
    SubspaceNet,
    UnitFeatures,
    dense,
    feature_network,
    is_plain,
    logits,
    restored,
)
from ._grassmannian import GrassmannSGD, leading_directions, orthonormal

_WEIGHT_DECAY = 1e-4  # of the network in front
_RATE_IN_FRONT = 0.1  # of the learning rate: gamma makes gradients large, and at the full rate units saturate
_HELD_OUT = 0.1


class Options(NamedTuple):
    """The parameters of the estimator that decide the network and its training."""

    subspace_dim: Any
    hidden_layer_sizes: Any
    gamma: float
    add_bias: bool | str
    init: str
    retraction: str
    module: Any
    net_params: dict[str, Any] | None
    learning_rate: float
    momentum: float
    batch_size: int
    max_iter: int
    tol: float
    n_iter_no_change: int
    early_stopping: bool
    verbose: int


class Problem(NamedTuple):
    """What is trained, on what, and how."""

    rows: Rows
    codes: torch.Tensor  # (n,) classes of the rows
    weight: torch.Tensor | None  # (n,) of the rows in the loss
    held_out: torch.Tensor | None
    net: "SubspaceNet"
    start: Model  # its architecture, scale, ...: what does not change in training
    training: Training
    device: torch.device
    randomness: Randomness


# The problem


def class_subspaces(
    rows: Rows,
    codes: torch.Tensor,
    weight: torch.Tensor | None,
    options: Options,
    n_classes: int,
    device: torch.device,
    randomness: Randomness,
    start: Model | None = None,
    *,
    n_epochs: int | None = None,
) -> Problem:
    """Return the problem of rows and their classes; it goes on from a `start`.

    `n_epochs` takes the place of `max_iter`, at the full learning rate.

    Raises
    ------
    ValueError
        If parameters do not suit one another, the data, or the start.
    """
    held_out = (
        held_out_rows(codes, _HELD_OUT, randomness.generator) if options.early_stopping and not n_epochs else None
    )
    sizes = layer_sizes(options.hidden_layer_sizes)
    default = {"hidden_layer_sizes": sizes, "activation": "relu", "dropout": 0.0}
    architecture = architecture_of(options.module, options.net_params, (rows.shape[1],), **default)
    training = _training(options, n_epochs)
    if start is None:
        start, net = _beginning(rows, codes, held_out, options, architecture, n_classes, device, randomness)
    else:
        if not same_network(architecture, start.architecture) or not _same_subspaces(start, options, rows):
            raise ValueError(
                "The former network does not suit the parameters or the data. Keep the columns of X, subspace_dim, "
                "add_bias, hidden_layer_sizes, module and its arguments as they were, or call fit with "
                "warm_start=False."
            )
        start = start._replace(gamma=float(options.gamma))
        net = restored(start, device, randomness.layers)
    return Problem(rows, codes, weight, held_out, net, start, training, device, randomness)


def _same_subspaces(start, options, rows):
    """Return whether the parameters name the subspaces of a former fit; "auto" keeps what it was."""
    n_classes, width, _ = start.subspaces.shape
    wanted = options.subspace_dim
    same = isinstance(wanted, str) or dimensions(wanted, width, n_classes, rows.shape[1]) == start.dims
    return same and options.add_bias in ("auto", start.constant)


def _beginning(rows, codes, held_out, options, architecture, n_classes, device, randomness):
    """Return what a fit begins with: a model that has no weights yet, and the network."""
    plain = is_plain(architecture)
    if options.init == "class_svd" and not plain:
        raise ValueError(
            "init='class_svd' is for the rows themselves, and features of an untrained network mean nothing. Pass "
            "init='auto' or 'random', or hidden_layer_sizes=() and module=None."
        )
    size, negative = magnitudes(rows, device)
    constant, ambiguous = options.add_bias, plain and (negative or rows.shape[1] == 1)
    if constant == "auto":
        constant = ambiguous and sides_matter(rows, codes, held_out, options.subspace_dim, n_classes, size, device)
    constant = bool(constant)
    scale, gamma = size if options.module is None else 1.0, float(options.gamma)

    def head(trunk, width, generator):
        dims = dimensions(options.subspace_dim, width + constant, n_classes, rows.shape[1])
        return SubspaceNet(trunk, width, generator, dims=dims, plain=plain, constant=constant, gamma=gamma)

    with randomness.scope():
        net = build(architecture, randomness.layers, head).to(device)
    start = Model(architecture, {}, net.subspaces, scale, constant, gamma, {})
    if plain and options.init != "random":
        with torch.no_grad():
            net.subspaces.copy_(subspaces_of_classes(rows, codes, held_out, start))
    return start, net


def subspaces_of_classes(rows: Rows, codes: torch.Tensor, held_out: torch.Tensor | None, start: Model) -> torch.Tensor:
    """Return the subspaces of each class's unit rows; where these have fewer dimensions, the former ones fill up."""
    S = start.subspaces.detach().double()
    found, features = torch.zeros_like(S), feature_network(start, S.device)
    directions = class_directions(rows, codes, held_out, start.dims, features, S.device)
    for c, (k, V) in enumerate(zip(start.dims, directions)):
        found[c, :, :k] = torch.cat([V, S[c, :, : k - V.shape[1]]], 1)
    return orthonormal(found)


def class_directions(
    rows: Rows,
    codes: torch.Tensor,
    held_out: torch.Tensor | None,
    dims: tuple[int, ...],
    features: "UnitFeatures",
    device: torch.device,
) -> list[torch.Tensor]:
    """Return the leading right singular vectors of each class's unit rows, as columns: at most as many as there are."""
    at = torch.arange(len(codes), dtype=torch.int64, device="cpu")
    at = at if held_out is None else at[~torch.isin(at, held_out)]
    at = at[codes[at].argsort(stable=True)]
    members = at.split(codes[at].bincount(minlength=len(dims)).tolist())
    return [leading_directions(features(taken(rows, at, device)), k) for k, at in zip(dims, members)]


def sides_matter(
    rows: Rows,
    codes: torch.Tensor,
    held_out: torch.Tensor | None,
    subspace_dim: Any,
    n_classes: int,
    scale: float,
    device: torch.device,
) -> bool:
    """Return whether a constant coordinate is to separate a row from its negative.

    They are, unless untrained subspaces classify the rows better without it, by three standard deviations of the
    difference: of rows that one of both gets right, half would be expected for either.
    """
    n_features, right = rows.shape[1], []
    if max(dimensions(subspace_dim, n_features + 1, n_classes, n_features)) >= n_features:
        return True
    for constant in (True, False):
        dims = dimensions(subspace_dim, n_features + constant, n_classes, n_features)
        features = UnitFeatures(nn.Sequential(), constant, scale)
        directions = class_directions(rows, codes, held_out, dims, features, device)
        S = torch.stack([nn.functional.pad(V, (0, max(dims) - V.shape[1])) for V in directions])
        right.append(_nearest_subspaces(rows, features, S).cpu() == codes)
    with_it, without = right
    lost, gained = int((with_it & ~without).sum()), int((without & ~with_it).sum())
    return gained - lost <= 3 * (gained + lost) ** 0.5


def _nearest_subspaces(rows, features, S):
    """Return the subspace in which each row's projection is longest."""
    size = 24 * rows.shape[1] + 8 * S[:, 0].numel()
    return map_rows(rows, lambda X: logits(features(dense(X, S.device)), S, 1.0).argmax(1), size=size)


def taken(rows: Rows, at: torch.Tensor, device) -> torch.Tensor:
    """Return some rows as a tensor in float64."""
    return dense(rows.take(at.numpy() if rows.kind == "csr" else at), device)


def magnitudes(rows: Rows, device) -> tuple[float, bool]:
    """Return the root of the mean square of all entries, 1 where all are zero, and whether one is negative."""
    size = 24 * rows.shape[1]
    low, high = rows.gather(lambda X: dense(X, device).aminmax(), size=size, merge=_outer)
    peak = max(-float(low), float(high), 0.0)
    if not peak:
        return 1.0, False
    (total,) = rows.gather(lambda X: ((dense(X, device) / peak).square().sum(),), size=size)
    return peak * float(total / (rows.shape[0] * rows.shape[1])) ** 0.5, bool(low < 0)


def _outer(a, b):
    return torch.minimum(a[0], b[0]), torch.maximum(a[1], b[1])


def dimensions(subspace_dim: Any, width: int, n_classes: int, n_features: int) -> tuple[int, ...]:
    """Return the dimension of each class's subspace in features of some width.

    Raises
    ------
    ValueError
        If there is not one for each class, or one is not below the width.
    """
    if isinstance(subspace_dim, str):
        subspace_dim = min(8, max(1, width // 8))
    given = np.asarray(subspace_dim)
    dims = tuple(np.broadcast_to(given, (n_classes,)).tolist()) if given.ndim == 0 else tuple(given.tolist())
    if given.ndim > 1 or len(dims) != n_classes or given.dtype.kind not in "iu" or min(dims) < 1:
        raise ValueError(
            f"subspace_dim={subspace_dim!r} has to be an integer >= 1, or one for each of the {n_classes} classes."
        )
    if max(dims) >= width:
        raise ValueError(
            f"subspace_dim={max(dims)} has to be below the width {width} of the features, of X with "
            f"n_features={n_features}: a subspace of all dimensions has every row in it. "
            + (f"Pass at most {width - 1}." if width > 1 else "Pass add_bias=True, or a network with more outputs.")
        )
    return dims


# The training


def weights_of_classes(
    class_weight: dict | str | None, classes: np.ndarray, codes: torch.Tensor, *, stream: bool
) -> torch.Tensor | None:
    """Return the weights (n,) of rows in the loss, those of their classes, of mean 1; None where all are equal.

    In a stream it is the mean over the classes that is 1: a batch says nothing of how frequent they are.

    Raises
    ------
    ValueError
        If one is negative, or none of a class of the rows is above 0.
    """
    if class_weight is None:
        return None
    present = classes[codes.unique().numpy()] if class_weight == "balanced" else classes
    factors = np.ones(len(classes))
    factors[np.isin(classes, present)] = compute_class_weight(class_weight, classes=present, y=classes[codes.numpy()])
    weights = torch.from_numpy(factors)
    rows = weights[codes]
    mean = float((weights if stream else rows).mean())
    if not (0 < mean < np.inf) or weights.min() < 0:
        raise ValueError(
            f"class_weight={class_weight!r} has to hold finite numbers >= 0, and one above 0 for a class of y. Pass "
            "other weights, or leave out the rows of classes that are not to count."
        )
    return rows / mean


def _training(options, n_epochs):
    """Return how the network is trained: with a cosine schedule, but for `n_epochs` of a stream."""
    settings = split_params(options.net_params)[1]
    for name in settings:
        if name.startswith("optimizer") and name != "optimizer__weight_decay":
            raise ValueError(
                f"net_params={{{name!r}: ...}} cannot be set: subspaces have an optimizer of their own. Use "
                "learning_rate, momentum and 'optimizer__weight_decay'."
            )
    weight_decay = settings.get("optimizer__weight_decay", _WEIGHT_DECAY)
    own: dict[str, Any] = {
        "optimizer": GrassmannSGD,
        "optimizer__momentum": options.momentum,
        "optimizer__retraction": options.retraction,
        "optimizer__param_groups": [("subspaces", {"subspaces": True, "lr": options.learning_rate})],
    }
    if n_epochs is None:
        own["callbacks"] = [*(settings.get("callbacks") or []), *cosine(options.max_iter, every="epoch")]
    return Training(
        max_iter=n_epochs or options.max_iter,
        batch_size=options.batch_size,
        learning_rate=_RATE_IN_FRONT * options.learning_rate,
        weight_decay=weight_decay,
        tol=options.tol if n_epochs is None and options.early_stopping else 0.0,
        n_iter_no_change=options.n_iter_no_change,
        early_stopping=options.early_stopping and n_epochs is None,
        net_params=settings | own,
        verbose=options.verbose,
    )


def training(problem: Problem) -> Iterator[Step]:
    """Train the network, an epoch at a time; after the last one the schedule is at its end, and nothing is left."""
    target, weight = problem.codes.to(problem.device), problem.weight
    weight = None if weight is None else weight.to(problem.device, torch.float32)
    inputs = _inputs(problem)

    def batch(at):
        return inputs(at), (target[at], None if weight is None else weight[at])

    steps = train(
        problem.net,
        Batches(batch, len(target), problem.held_out, whole=True),
        weighted(nn.CrossEntropyLoss(reduction="none")),
        problem.training,
        randomness=problem.randomness,
        device=problem.device,
        optimizer=problem.start.optimizer,
        keep_best=problem.training.early_stopping,
        keep_optimizer=True,
    )
    with closing(steps):
        for epoch, step in enumerate(steps, 1):
            yield step._replace(gap=0.0) if epoch == problem.training.max_iter else step


def _inputs(problem) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function from indices to what the network is given in float32: features where it makes none."""
    start, device, rows = problem.start, problem.device, problem.rows
    features = feature_network(start, device) if start.plain else lambda X: X / start.scale

    def prepared(X):
        return features(dense(X, device)).float()

    if rows.kind == "memory":
        return map_rows(rows, prepared, size=24 * rows.shape[1]).__getitem__
    return lambda at: prepared(taken(rows, at, device))


def fitted_model(problem: Problem, snapshot: Snapshot) -> Model:
    """Return the model of a snapshot of the training."""
    weights = {n.removeprefix(TRUNK): value for n, value in snapshot.weights.items() if n.startswith(TRUNK)}
    subspaces = orthonormal(snapshot.weights["subspaces"].double())
    return problem.start._replace(weights=as_numpy(weights), subspaces=subspaces, optimizer=snapshot.optimizer)
