"""Manifold linearizing and clustering: the network, its two objectives, the views of rows, the training."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

from .._core.blocks import in_blocks, rows_per_block
from .._core.iterate import Step
from .._core.nets import linear, train, weights_of
from .._math.coding_rates import clustered_rate, coding_rate
from .._math.distinct import distinct_rows
from ._membership import balanced_eta, kernel_of, project

_NEIGHBOR_ROWS = 5000  # of more rows, neighbours are sought within random parts of this size: else views are too near
_MASKED = 0.3  # share of cells that view "mask" takes from other rows


class Length(NamedTuple):
    """How long a stage trains where the user leaves it to us."""

    epochs: int
    least: int  # steps at least, of fewer than 2000 rows
    most: int  # steps at most


_WINDOW = 50  # steps, whose mean loss has to be better than that of those before
_GAIN = 0.005  # by this share at least, else features are learned

STAGES = Length(40, 300, 3000), Length(10, 80, 100)  # in more steps memberships break into pieces


class Plan(NamedTuple):
    """What the training is told, the same in both stages."""

    n_clusters: int
    precision: float
    invariance: float
    kernel: str
    eta: float | str
    n_sweeps: int
    membership_penalty: float
    batch_size: int
    epochs: tuple[tuple[int, int], tuple[int, int]]  # of each stage: their number, and batches in one at most
    learning_rates: tuple[float, float]
    weight_decay: float
    net_params: dict[str, Any]
    verbose: int
    stop_early: bool  # end the first stage where features no longer get better
    sample: torch.Tensor  # indices of a batch, on which eta is chosen


class Trained(NamedTuple):
    """How far a training has come."""

    weights: dict[str, torch.Tensor]
    eta: float | None  # None as long as only features are trained: the codes of clusters are those of the features
    rates: torch.Tensor  # (steps of stage two, 2): the rates of the batch and of its clusters
    n_steps_init: int


class TwoHeads(nn.Module):
    """A trunk and two linear heads: unit features of rows, and unit codes whose products say who belongs together."""

    def __init__(self, trunk: nn.Module, width: int, n_components: int, generator):
        super().__init__()
        self.trunk = trunk
        self.features = linear(width, n_components, generator, bias=False)
        self.clusters = linear(width, n_components, None, bias=False)
        self.clusters.load_state_dict(self.features.state_dict())

    def forward(self, x):
        h = self.trunk(x)
        return unit(self.features(h)), unit(self.clusters(h))


def unit(A: torch.Tensor) -> torch.Tensor:
    """Return rows of length one; zero rows stay zero."""
    return nn.functional.normalize(A, dim=1, eps=torch.finfo(A.dtype).tiny ** 0.5)


# Objectives of a batch: two views of each row, above one another


def feature_objective(Z: torch.Tensor, precision: float, invariance: float) -> torch.Tensor:
    """Return minus the rate of the views' means, minus `invariance` times the mean agreement of the two views."""
    first, second = Z.chunk(2)
    return -coding_rate((first + second) / 2, precision) - invariance * (first * second).sum(1).mean()


def rate_objective(Z, C, eta: float, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Return minus the rate reduction, the penalty of the membership added, and both rates."""
    Z = unit(sum(Z.chunk(2)))
    G = sum(project(kernel_of(c, c, eta, plan.kernel), plan.n_sweeps)[0] for c in C.chunk(2)) / 2
    R, R_c = rates(Z, G, plan.precision)
    return R_c - R + plan.membership_penalty / 2 * G.square().sum(), torch.stack([R, R_c]).detach()


def rates(Z: torch.Tensor, G: torch.Tensor, precision: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coding rate of rows Z, and the rate that is left when the membership G is known."""
    shares = torch.full((len(Z),), 1 / len(Z), dtype=Z.dtype, device=Z.device)
    return coding_rate(Z, precision), clustered_rate(Z, G, shares, precision)


# Training


def training(net, X, views, plan: Plan, randomness, eta=None) -> Iterator[Step]:
    """Train features, then features and memberships, an epoch at a time; with `eta` given the second stage alone."""
    history, steps = [], [0]

    def features_alone(outputs, _):
        steps[0] += net.training
        return feature_objective(outputs[0], plan.precision, plan.invariance)

    def rate_reduction(outputs, _):
        loss, both = rate_objective(*outputs, state.eta, plan)
        if net.training:
            history.append(both)
        return loss

    def stage(number, objective):
        n_epochs, n_batches = plan.epochs[number]
        epochs = train(
            net,
            objective=objective,
            make_batch=lambda rows: (views(rows), rows[:1]),  # skorch wants a target; there is none
            n_rows=len(X),
            n_epochs=n_epochs,
            n_batches=n_batches,
            batch_size=plan.batch_size,
            learning_rate=plan.learning_rates[number],
            weight_decay=plan.weight_decay,
            randomness=randomness,
            device=X.device,
            net_params=plan.net_params,
            verbose=plan.verbose,
        )
        return closing(epochs)

    state = Trained(weights_of(net), eta, torch.zeros(0, 2, dtype=torch.float32, device="cpu"), 0)
    (n_first, per_epoch), (n_second, _) = plan.epochs
    losses: list[float] = []
    if eta is None and n_first:
        with stage(0, features_alone) as epochs:
            for loss, weights, last in epochs:
                losses.append(loss)
                state = state._replace(weights=weights, n_steps_init=steps[0])
                last = last or (plan.stop_early and settled(losses, per_epoch))
                yield Step(state, 0.0 if last and not n_second else math.inf, loss)
                if last:
                    break
    if eta is None:
        state = with_memberships(net, state, X, plan)
    if n_second:
        with stage(1, rate_reduction) as epochs:
            for loss, weights, last in epochs:
                state = state._replace(weights=weights, rates=torch.stack(history).cpu())
                yield Step(state, 0.0 if last else math.inf, loss)
    elif not losses:
        yield Step(state, 0.0)


def settled(losses: list[float], n_batches: int) -> bool:
    """True where the losses of the last 50 steps were hardly better than those of the 50 steps before."""
    window = -(-_WINDOW // n_batches)
    if len(losses) < 2 * window or len(losses) % window:
        return False
    now, before = (sum(part) / window for part in (losses[-window:], losses[-2 * window : -window]))
    return before - now < _GAIN * abs(now)


def with_memberships(net, state: Trained, X, plan: Plan) -> Trained:
    """Load the state into the network; return it as stage two begins: the head copied, eta chosen on a batch."""
    net.load_state_dict(state.weights)
    if state.eta is not None:
        return state
    net.clusters.load_state_dict(net.features.state_dict())
    eta = plan.eta
    if eta == "auto":
        eta = balanced_eta(codes_of(net, X[plan.sample])[1], plan.n_clusters, plan.kernel)
    return state._replace(weights=weights_of(net), eta=float(eta))


def codes_of(net: TwoHeads, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features and the codes of all rows, as the network gives them when it is not training.

    Equal rows get equal codes: each is computed once, since a product may round a row as its place in a block has it.
    """
    was_training = net.training
    net.eval()
    first, kind = distinct_rows(X)
    size = 4 * 4 * (X.shape[1] + 2 * net.features.in_features)
    step = rows_per_block("auto", len(first), size)
    with torch.inference_mode():
        parts = list(in_blocks(lambda rows: net(X[first[rows]]), len(first), step, bytes_per_row=size))
    net.train(was_training)
    Z, C = (torch.cat(part)[kind] for part in zip(*parts))
    return Z, C


def some_rows(n_rows: int, count: int, generator) -> torch.Tensor:
    """Return the indices of `count` random rows."""
    return torch.randperm(n_rows, generator=generator, device="cpu", dtype=torch.int64)[:count]


def planned(n_epochs: int | str, n_rows: int, batch_size: int, stage: Length) -> tuple[int, int]:
    """Return the epochs of a stage, and the batches of an epoch at most.

    "auto" lets few rows pass more often, so that there are enough steps, and many rows less often, or only some of
    them, so that there are not too many.
    """
    per_epoch = max(1, n_rows // batch_size)
    if n_epochs != "auto":
        return n_epochs, per_epoch
    n_epochs = stage.epochs
    if n_rows < 2000:
        n_epochs = max(n_epochs, -(-stage.least // per_epoch))
    else:
        n_epochs = max(1, min(n_epochs, stage.most // per_epoch))
    return n_epochs, min(per_epoch, stage.most)


# Views of rows


def make_views(X, positives, n_neighbors: int, noise: float, generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from indices of rows to two views of them, (2 n_rows, n_features), above one another.

    The first view is the row with noise, the second, with noise too, is what `positives` names: a near row, the row
    itself, the row with some cells from others, or what the user's function makes of it. All draws come from
    `generator`.
    """
    n, D = X.shape
    near = _neighbors(X, n_neighbors, generator) if positives == "neighbors" else None

    def noisy(A):
        draws = torch.randn(A.shape, generator=generator, device="cpu", dtype=torch.float32)
        return A + noise * draws.to(A.device)

    def second(rows, batch):
        if callable(positives):
            return torch.as_tensor(positives(batch, rows, generator), device=X.device).to(torch.float32)
        if positives == "neighbors":
            pick = torch.randint(near.shape[1], (len(rows), 1), generator=generator, device="cpu", dtype=torch.int64)
            return X[near[rows].gather(1, pick)[:, 0].to(X.device)]
        if positives == "mask":
            donors = torch.randint(n, (len(rows), D), generator=generator, device="cpu", dtype=torch.int64)
            hidden = torch.rand(len(rows), D, generator=generator, device="cpu", dtype=torch.float32) < _MASKED
            return torch.where(hidden.to(X.device), X.gather(0, donors.to(X.device)), batch)
        return batch

    def views(rows):
        batch = X[rows.to(X.device)]
        other = second(rows, batch)
        if other.shape != batch.shape:
            raise ValueError(f"positives gave shape {tuple(other.shape)} for a batch of shape {tuple(batch.shape)}.")
        return noisy(torch.cat([batch, other]))

    return views


def _neighbors(X, n_neighbors, generator):
    """Return the indices (n, n_neighbors) of the nearest other rows, of those in the same random part of the rows."""
    n = len(X)
    k = max(1, min(n_neighbors, n - 1))
    order = some_rows(n, n, generator) if n > _NEIGHBOR_ROWS else torch.arange(n, device="cpu", dtype=torch.int64)
    near = torch.zeros(n, k, dtype=torch.int64, device="cpu")
    for part in order.tensor_split(-(-n // _NEIGHBOR_ROWS)):
        rows = X[part.to(X.device)].cpu().numpy()
        found = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors(return_distance=False)
        near[part] = part[torch.from_numpy(found.astype(np.int64))]
    return near
