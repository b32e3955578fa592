"""Manifold linearizing and clustering: the network, its two objectives, the views of rows, the training."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._core.iterate import Step
from .._core.standardize import standardized
from .._core.validation import is_integer
from .._math.coding_rates import coding_rate, rates_of_membership
from .._math.linalg import unit_rows
from .._nets.architecture import Architecture, architecture_of, as_numpy, build, restore, split_params
from .._nets.batches import Batches
from .._nets.estimating import distinct_outputs
from .._nets.layers import layer_sizes, linear
from .._nets.randomness import Randomness
from .._nets.training import Training, train, weights_of
from ._membership import (
    ClusteringOptions,
    StoredCodes,
    assign_rows,
    balanced_eta,
    find_clusters,
    kernel_of,
    log_masses,
    main_directions,
    membership,
    project,
)
from ._positive_pairs import make_views, some_rows

CLUSTERS_OF_AUTO = 10  # with n_clusters="auto" the network is trained for this number
CANDIDATES = range(2, 21)
_INVARIANCE = 20.0  # weight of the agreement of the two views in the first stage
_SWEEPS = 10  # of the projection of memberships in training
_WEIGHT_DECAY = 1e-4
_WINDOW = 50  # steps, whose mean loss has to be better than that of those before
_GAIN = 0.005  # by this share at least, else features are learned
# By default: epochs of a stage, least steps for fewer than 2000 rows, most steps (with more, memberships break up)
STAGES = (40, 300, 3000), (10, 80, 100)


class Options(NamedTuple):
    """The parameters of the estimator that decide the network and its training."""

    n_clusters: int | str
    n_components: int | str
    hidden_layer_sizes: Any
    module: Any
    net_params: dict[str, Any] | None
    precision: float
    eta: float | str
    kernel: str
    positives: Any
    n_neighbors: int | str
    view_noise: float
    n_epochs: Any
    batch_size: int
    learning_rate: Any
    membership_penalty: float
    assign_labels: str
    verbose: int


class Problem(NamedTuple):
    """What the network is trained on, and how."""

    rows: torch.Tensor  # (n, p), standardised, float32
    mean: torch.Tensor  # (p,), float64
    scale: torch.Tensor  # (p,), float64
    architecture: Architecture  # of the trunk
    n_components: int
    n_clusters: int  # for which eta is chosen
    candidates: list[int]  # numbers of clusters to choose from
    options: Options
    stages: tuple[Training, Training]
    n_batches: tuple[int, int]  # in an epoch of each stage, at most
    sample: torch.Tensor  # indices of a batch, on which eta is chosen
    views: Callable[[torch.Tensor], torch.Tensor]
    seed: int  # of the k-means of the last step
    randomness: Randomness
    start: Any = None  # a former Model, whose second stage goes on and whose clusters keep their numbers


class State(NamedTuple):
    """How far a training has come."""

    weights: dict[str, torch.Tensor]
    eta: float | None  # None as long as only features are trained: the codes of clusters are those of the features
    rates: torch.Tensor  # (steps of stage two, 2): the rates of the batch and of its clusters
    n_steps_init: int


class Model(NamedTuple):
    """The fitted network, and codes whose clusters are known."""

    architecture: Architecture  # of the trunk
    weights: dict[str, np.ndarray]
    mean: torch.Tensor  # (p,), float64
    scale: torch.Tensor  # (p,), float64
    n_components: int
    n_clusters: int
    batch_size: int
    clustering: ClusteringOptions
    codes: StoredCodes

    def clusters(self) -> tuple[StoredCodes, int, ClusteringOptions]:
        """Return what :func:`log_masses` needs, codes in the network's precision."""
        codes = StoredCodes(*(part.float() if part.is_floating_point() else part for part in self.codes))
        return codes, self.n_clusters, self.clustering


def clustering_problem(X: torch.Tensor, mean, scale, options: Options, randomness: Randomness) -> Problem:
    """Return the problem of rows X, with the mean and scale of their columns.

    Raises
    ------
    ValueError
        If there are fewer rows than clusters, or a parameter of the two stages is no pair.
    """
    n_rows, n_clusters, sizes = len(X), options.n_clusters, layer_sizes(options.hidden_layer_sizes)
    candidates = [n_clusters]
    if n_clusters == "auto":
        n_clusters, candidates = CLUSTERS_OF_AUTO, list(CANDIDATES)
    elif n_rows < n_clusters:
        raise ValueError(f"n_samples={n_rows} should be >= n_clusters={n_clusters}. Lower n_clusters or add data.")
    if options.module is None and not sizes:
        raise ValueError("hidden_layer_sizes=() has no layer. Name at least one.")
    n_components = options.n_components
    if n_components == "auto":  # so that subspaces of all clusters can be orthogonal
        n_components = next((d for most, d in ((5, 16), (20, 32), (60, 64)) if n_clusters <= most), 128)
    default = {"hidden_layer_sizes": sizes, "activation": "relu", "dropout": 0.0, "batch_norm": True}
    rows, generator = standardized(X, mean, scale), randomness.generator
    batch_size = min(n_rows, max(options.batch_size, 4 * n_clusters))
    stages, n_batches = _stages(options, n_rows, batch_size)
    n_neighbors = options.n_neighbors
    if n_neighbors == "auto":
        n_neighbors = 3 if n_clusters > 5 and n_rows < 100 * n_clusters else 5
    return Problem(
        rows=rows,
        mean=mean,
        scale=scale,
        architecture=architecture_of(options.module, options.net_params, (X.shape[1],), **default),
        n_components=n_components,
        n_clusters=n_clusters,
        candidates=candidates,
        options=options,
        stages=stages,
        n_batches=n_batches,
        sample=some_rows(n_rows, batch_size, generator).to(X.device),
        views=make_views(rows, options.positives, n_neighbors, options.view_noise, generator),
        seed=int(torch.randint(1 << 31, (), generator=generator, device="cpu", dtype=torch.int64)),
        randomness=randomness,
    )


def _stages(options, n_rows, batch_size):
    """Return the training of each stage, and the batches of an epoch at most."""
    lengths = ("auto", "auto") if options.n_epochs == "auto" else options.n_epochs
    if len(lengths) != 2 or not all(n == "auto" or is_integer(n, 0) for n in lengths):
        raise ValueError(
            f"n_epochs={options.n_epochs!r} has to be 'auto', or a pair for the two stages, each an int >= 0 or 'auto'."
        )
    rates = [options.learning_rate] * 2 if isinstance(options.learning_rate, Real) else options.learning_rate
    if len(rates) != 2 or not all(isinstance(rate, Real) and rate > 0 for rate in rates):
        raise ValueError(
            f"learning_rate={options.learning_rate!r} has to be a positive number, or a pair of them, one per stage."
        )
    planned = [planned_epochs(n, n_rows, batch_size, stage) for n, stage in zip(lengths, STAGES)]
    net_params = split_params(options.net_params)[1]
    stages = [
        Training(n_epochs, batch_size, rate, _WEIGHT_DECAY, net_params=net_params, verbose=options.verbose)
        for (n_epochs, _), rate in zip(planned, rates)
    ]
    return tuple(stages), tuple(n_batches for _, n_batches in planned)


def planned_epochs(n_epochs: int | str, n_rows: int, batch_size: int, stage: tuple[int, int, int]) -> tuple[int, int]:
    """Return the epochs of a stage, and the batches of an epoch at most.

    "auto" gives more epochs to few rows, so that there are enough steps, and fewer epochs, or only some of the rows, to
    many, so that there are not too many.
    """
    per_epoch = max(1, n_rows // batch_size)
    if n_epochs != "auto":
        return n_epochs, per_epoch
    n_epochs, least, most = stage
    if n_rows < 2000:
        return max(n_epochs, -(-least // per_epoch)), min(per_epoch, most)
    return max(1, min(n_epochs, most // per_epoch)), min(per_epoch, most)


class TwoHeads(nn.Module):
    """A trunk and two linear heads: unit features of rows, and unit codes whose products are memberships."""

    def __init__(self, trunk: nn.Module, width: int, generator, *, n_components: int):
        super().__init__()
        self.trunk = trunk
        self.features = linear(width, n_components, generator, bias=False)
        self.clusters = linear(width, n_components, None, bias=False)
        self.clusters.load_state_dict(self.features.state_dict())

    def forward(self, x):
        h = self.trunk(x)
        return unit_rows(self.features(h)), unit_rows(self.clusters(h))


def restored(fitted: Model | Problem, weights, device, generator=None) -> TwoHeads:
    """Return the network with its weights; with a generator it can be trained on."""
    return restore(fitted.architecture, weights, device, generator, partial(TwoHeads, n_components=fitted.n_components))


# Objectives of a batch: two views of each row, above one another


def feature_objective(Z: torch.Tensor, precision: float) -> torch.Tensor:
    """Return minus the rate of the views' means, minus 20 times the mean agreement of the two views."""
    first, second = Z.chunk(2)
    return -coding_rate((first + second) / 2, precision) - _INVARIANCE * (first * second).sum(1).mean()


def rate_objective(Z, C, eta: float, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
    """Return minus the rate reduction, the penalty of the membership added, and both rates."""
    Z = unit_rows(sum(Z.chunk(2)))
    G = sum(project(kernel_of(c, eta, options.kernel), _SWEEPS)[0] for c in C.chunk(2)) / 2
    R, R_c = rates_of_membership(Z, G, options.precision)
    return R_c - R + options.membership_penalty / 2 * G.square().sum(), torch.stack([R, R_c]).detach()


def mean_rate_reduction(Z: torch.Tensor, C: torch.Tensor, model: Model) -> float:
    """Return the mean rate reduction of batches of features and codes, which are the same in every call."""
    size, (eta, kernel, _, precision) = min(model.batch_size, len(Z)), model.clustering
    order = some_rows(len(Z), len(Z), torch.Generator("cpu").manual_seed(0)).to(Z.device)
    reductions = []
    for batch in order[: len(Z) // size * size].split(size):
        R, R_c = rates_of_membership(Z[batch], membership(C[batch], eta, kernel)[0], precision)
        reductions.append(R - R_c)
    return float(torch.stack(reductions).mean())


# Training


def training(problem: Problem) -> Iterator[Step]:
    """Train features, then features and memberships, an epoch at a time; from a former model the second stage alone."""
    history, steps, options, randomness = [], [0], problem.options, problem.randomness
    device, eta = problem.rows.device, None if problem.start is None else problem.start.clustering.eta
    if problem.start is None:
        with randomness.scope():
            head = partial(TwoHeads, n_components=problem.n_components)
            net = build(problem.architecture, randomness.layers, head).to(device)
    else:
        net = restored(problem.start, problem.start.weights, device, randomness.layers)

    def features_alone(outputs, _):
        steps[0] += net.training
        return feature_objective(outputs[0], options.precision)

    def rate_reduction(outputs, _):
        loss, both = rate_objective(*outputs, state.eta, options)
        if net.training:
            history.append(both)
        return loss

    def stage(number, objective):
        def make(rows):
            return problem.views(rows), rows[:1]  # skorch wants a target; there is none

        batches = Batches(make, len(problem.rows), n_batches=problem.n_batches[number])
        return closing(train(net, batches, objective, problem.stages[number], randomness=randomness, device=device))

    n_first, n_second = (stage.max_iter for stage in problem.stages)
    state = State(weights_of(net), eta, torch.zeros(0, 2, dtype=torch.float32, device="cpu"), 0)
    losses: list[float] = []
    if eta is None and n_first:
        early = options.n_epochs == "auto" or options.n_epochs[0] == "auto"
        with stage(0, features_alone) as epochs:
            for snapshot, gap, loss in epochs:
                losses.append(loss)
                state = state._replace(weights=snapshot.weights, n_steps_init=steps[0])
                last = early and no_longer_better(losses, problem.n_batches[0])
                yield Step(state, (0.0 if last else gap) if not n_second else math.inf, loss)
                if last:
                    break
    if eta is None:
        state = with_memberships(net, state, problem)
    if n_second:
        with stage(1, rate_reduction) as epochs:
            for snapshot, gap, loss in epochs:
                state = state._replace(weights=snapshot.weights, rates=torch.stack(history).cpu())
                yield Step(state, gap, loss)
    elif not losses:
        yield Step(state, 0.0)


def no_longer_better(losses: list[float], n_batches: int) -> bool:
    """True where the losses of the last 50 steps were hardly better than those of the 50 steps before."""
    window = -(-_WINDOW // n_batches)
    if len(losses) < 2 * window or len(losses) % window:
        return False
    now, before = (sum(part) / window for part in (losses[-window:], losses[-2 * window : -window]))
    return before - now < _GAIN * abs(now)


def with_memberships(net, state: State, problem: Problem) -> State:
    """Load the state into the network; return it as stage two begins: the head copied, eta chosen on a batch."""
    net.load_state_dict(state.weights)
    if state.eta is not None:
        return state
    net.clusters.load_state_dict(net.features.state_dict())
    eta = problem.options.eta
    if eta == "auto":
        eta = balanced_eta(codes_of(net, problem.rows[problem.sample])[1], problem.n_clusters, problem.options.kernel)
    return state._replace(weights=weights_of(net), eta=float(eta))


def described(problem: Problem, state: State) -> tuple[Model, dict[str, Any]]:
    """Return the model and the public attributes that belong to a state of the training."""
    net, options = restored(problem, state.weights, problem.rows.device), problem.options
    state = with_memberships(net, state, problem)
    Z, C = codes_of(net, problem.rows)
    clustering = ClusteringOptions(state.eta, options.kernel, options.assign_labels, options.precision)
    codes, n_clusters = find_clusters(Z, C, problem.candidates, clustering, np.random.RandomState(problem.seed))
    former = None
    if problem.start is not None:
        before = restored(problem.start, problem.start.weights, problem.rows.device)
        former = log_masses(codes_of(before, problem.rows)[1], *problem.start.clusters()).argmax(1).cpu().numpy()
    labels, codes, n_clusters = assign_rows(C, codes, n_clusters, clustering, former)
    model = Model(
        architecture=problem.architecture,
        weights=as_numpy(state.weights),
        mean=problem.mean,
        scale=problem.scale,
        n_components=problem.n_components,
        n_clusters=n_clusters,
        batch_size=max(options.batch_size, 4 * n_clusters),
        clustering=clustering,
        codes=codes,
    )
    public = {f"{name}_": getattr(model, name) for name in ("weights", "mean", "scale", "n_components")}
    return model, public | {
        "labels_": labels,
        "cluster_centers_": unit_rows(torch.stack([C[labels == k].mean(0) for k in range(n_clusters)])),
        "bases_": main_directions(Z, labels, n_clusters),
        "eta_": state.eta,
        "coding_rates_": state.rates,
        "n_steps_init_": state.n_steps_init,
    }


def codes_of(net: TwoHeads, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features and the codes of all rows, as the network gives them when it is not training."""
    Z, C = distinct_outputs(net, X, size=4 * 4 * (X.shape[1] + 2 * net.features.in_features))
    return Z, C
