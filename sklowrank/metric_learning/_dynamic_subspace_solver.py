"""Training of subspace learners: which rows and columns each has, when there is one more, and what is kept."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import issparse
from sklearn.cluster import KMeans, MiniBatchKMeans

from .._core.blocks import join_blocks, rows_per_block
from .._core.iterate import Step
from .._core.rows import MappedRows, rows_of
from .._core.standardize import standardization, standardized
from .._core.workspace import Workspace
from .._nets.architecture import Architecture, architecture_of, as_numpy, build, split_params
from .._nets.randomness import Randomness
from .._nets.training import Batches, Rule, Snapshot, Training, train
from ._metric_losses import margin_loss, proxy_anchor_loss
from ._subspace_network import (
    N_POOLED,
    Embedding,
    Learners,
    Shape,
    class_weights,
    cuts_of,
    embedding_weights,
    pieces_of,
    slices_of,
    unit_slices,
)

_BETA = 1.2  # the distance between pairs of one class and of two, at the start
_CLASS_RATE = 10.0  # times the learning rate: the step of what is learned of classes
_WEIGHT_DECAY = 1e-4
_JOINT = 0.2  # share of the last epochs, in which all learners see all rows
_MANY = 10_000  # rows beyond which clusters are found in small batches of them


class Options(NamedTuple):
    """The parameters of the estimator that decide the network and its training."""

    n_components: int
    max_learners: int
    grow: str
    patience: int
    tol: float
    recluster_every: int
    attention: bool
    loss: str
    margin: float
    hidden_layer_sizes: Any
    module: Any
    net_params: dict[str, Any] | None
    image_shape: Any
    batch_size: int
    samples_per_class: int
    learning_rate: float
    max_iter: int
    verbose: int


class Problem(NamedTuple):
    """What the network is trained on, and how."""

    rows: Any  # standardised where they are taken
    codes: torch.Tensor  # (n,) on the CPU: classes
    n_classes: int
    mean: torch.Tensor  # (n_features,), float64
    scale: torch.Tensor  # (n_features,), float64
    architecture: Architecture  # of the trunk
    shape: Shape
    options: Options
    randomness: Randomness
    device: torch.device


class Model(NamedTuple):
    """A fitted network, and the columns of its learners."""

    architecture: Architecture  # of the trunk
    shape: Shape
    weights: dict[str, np.ndarray]
    mean: torch.Tensor  # (n_features,), float64
    scale: torch.Tensor  # (n_features,), float64
    learner_slices: list[slice]


def metric_problem(X: Any, codes: np.ndarray, options: Options, ws: Workspace, randomness: Randomness) -> Problem:
    """Return the problem of rows X, dense or sparse, of the classes `codes`."""
    rows = MappedRows(rows_of(X, ws), partial(_dense, ws.exact()), X.shape[1]) if issparse(X) else rows_of(X, ws)
    mean, scale = standardization(rows, "global")
    if not issparse(X):
        rows = rows_of(standardized(ws.load(X), mean, scale))
    else:
        rows = MappedRows(rows, partial(standardized, mean=mean, scale=scale), X.shape[1])
    image, own = options.image_shape, options.module is not None
    shape = Shape(X.shape[1], options.n_components, options.attention, image, image is not None and not own)
    n_in = (N_POOLED,) if shape.convolutions else (X.shape[1],) if image is None else (image[2], *image[:2])
    default = {"hidden_layer_sizes": [int(size) for size in options.hidden_layer_sizes], "activation": "relu"}
    return Problem(
        rows=rows,
        codes=torch.from_numpy(codes),
        n_classes=int(codes.max()) + 1,
        mean=mean,
        scale=scale,
        architecture=architecture_of(options.module, options.net_params, n_in, **default, dropout=0.0),
        shape=shape,
        options=options,
        randomness=randomness,
        device=ws.device,
    )


def _dense(ws, block):
    return ws.load(block.toarray())


# Training


def training(problem: Problem) -> Iterator[Step]:
    """Train an epoch at a time."""
    options, randomness = problem.options, problem.randomness
    with randomness.scope():
        net = build(problem.architecture, randomness.layers, partial(_learners, problem)).to(problem.device)
    rule = Division(problem)

    def make(drawn):
        rows, learners = drawn
        draws = torch.rand(len(rows), 2, generator=randomness.generator, device="cpu", dtype=torch.float32)
        target = (problem.codes[rows], draws)
        target = tuple(part.to(problem.device) for part in target)
        return problem.rows.take(rows.to(problem.device)), (*target, learners)

    skorch = {**split_params(options.net_params)[1]}
    classes = ("classes*", {"lr": _CLASS_RATE * options.learning_rate, "weight_decay": 0.0})
    skorch["optimizer__param_groups"] = [*skorch.get("optimizer__param_groups", []), classes]
    plan = Training(
        max_iter=options.max_iter,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=_WEIGHT_DECAY,
        net_params=skorch,
        verbose=options.verbose,
    )
    batches = Batches(make, len(problem.codes), drawn=rule.batches)
    loss = partial(batch_loss, name=options.loss, margin=options.margin)
    yield from train(
        net, batches, loss, plan, randomness=randomness, device=problem.device, rule=rule, keep_best=False
    )


def _learners(problem, trunk, width, generator):
    """Return the network with a trunk, and what it learns of classes at the start."""
    options, shape = problem.options, problem.shape
    cuts = cuts_of(shape.n_components, numbers_of_learners(options))
    if options.loss == "margin":
        classes = [torch.full((problem.n_classes,), _BETA, dtype=torch.float32, device="cpu")]
    else:
        size = (problem.n_classes, shape.n_components)
        proxies = torch.randn(size, generator=problem.randomness.layers, dtype=torch.float32, device="cpu")
        classes = [proxies[:, a:b].clone() for a, b in zip(cuts, cuts[1:])]
    return Learners(Embedding(trunk, width, generator, shape=shape), cuts, classes)


def numbers_of_learners(options: Options) -> range:
    """Return how many learners there may be: at most as many as columns."""
    most = min(options.max_learners, options.n_components)
    return range(most if options.grow == "fixed" else 1, most + 1)


def batch_loss(outputs, target, *, name: str, margin: float) -> torch.Tensor:
    """Return the mean loss of the learners that a batch is for."""
    codes, draws, learners = target
    losses = []
    for pieces in learners:
        Z = outputs.of(pieces)
        if name == "margin":
            losses.append(margin_loss(Z, codes, outputs.classes[0], margin, draws))
        else:
            losses.append(proxy_anchor_loss(Z, codes, outputs.proxies_of(pieces), margin))
    return torch.stack(losses).mean()


class Division(Rule):
    """Rows and columns shared out among learners, and one learner more where training no longer helps.

    It draws the batches of an epoch, and looks at the loss and at the embedding after each.
    """

    def __init__(self, problem: Problem):
        self.problem = problem

    def convert(self, module):
        """Begin with the least number of learners; layers stay as they are."""
        self.numbers_ = numbers_of_learners(self.problem.options)
        self.cuts_ = cuts_of(self.problem.options.n_components, self.numbers_)
        self.n_learners_, self.growth_epochs_, self.losses_ = self.numbers_[0], list[int](), list[float]()
        self.joint_ = self.problem.options.max_iter - round(_JOINT * self.problem.options.max_iter)
        self.clusters_ = np.zeros(len(self.problem.codes), dtype=np.int64)
        self.epoch_ = 0
        self._divide(module)
        return []

    def on_epoch_end(self, net, **kwargs):
        """Add a learner after a plateau; find clusters again from time to time."""
        options = self.problem.options
        epoch = self.epoch_ = len(net.history)
        self.losses_.append(net.history[-1, "train_loss"])
        if epoch >= self.joint_:
            return
        may_grow = self.n_learners_ < self.numbers_[-1]
        if may_grow and has_plateau(self.losses_, options.patience, options.tol):
            self.n_learners_ += 1
            self.growth_epochs_.append(epoch)
            self.losses_ = []
            self._divide(net.module_)
        elif epoch % options.recluster_every == 0:
            self._divide(net.module_)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, list[range]]]:
        """Yield the rows of each batch of an epoch, and the pieces of the learners that it is for."""
        options, codes = self.problem.options, self.problem.codes
        pieces = [pieces_of(columns, self.cuts_) for columns in self._slices()]
        size = options.batch_size, options.samples_per_class
        if self.epoch_ >= self.joint_:
            yield from ((rows, pieces) for rows in class_batches(codes, np.arange(len(codes)), *size, generator))
            return
        drawn = []
        for k in range(self.n_learners_):
            rows = np.flatnonzero(self.clusters_ == k)
            drawn += [(batch, [pieces[k]]) for batch in class_batches(codes, rows, *size, generator)]
        order = torch.randperm(len(drawn), generator=generator, device="cpu")
        yield from (drawn[i] for i in order.tolist())

    def report(self) -> dict[str, Any]:
        """Return the columns of the learners, and after which epochs there was one more."""
        return {"learner_slices": self._slices(), "growth_epochs": list(self.growth_epochs_)}

    def _slices(self):
        return slices_of(self.problem.options.n_components, self.n_learners_)

    def _divide(self, net):
        """Share the rows out by clusters of their embedding."""
        if self.n_learners_ > 1:
            Z = unit_slices(embedded(net.project, self.problem.rows, net), self._slices()).cpu().numpy()
            found = clusters_of(Z, self.n_learners_, self.generator_)
            self.clusters_ = matched_clusters(self.clusters_, found, self.n_learners_)


def embedded(compute, rows: Any, net, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return what a network in eval mode computes of all rows, in blocks."""
    was_training, size = net.training, 8 * (rows.shape[1] + sum(len(p) for p in net.parameters() if p.ndim))
    net.eval()
    with torch.inference_mode():
        step = rows_per_block("auto", len(rows), size)
        found = join_blocks(lambda at: compute(rows.take(at).to(dtype)), len(rows), step, bytes_per_row=size)
    net.train(was_training)
    return found


def has_plateau(losses: list[float], patience: int, tol: float) -> bool:
    """True where none of the last epochs was better by a share of `tol` than those before; never at a loss of zero."""
    if len(losses) <= patience:
        return False
    before, now = min(losses[:-patience]), min(losses[-patience:])
    return now > 0 and now > (1 - tol) * before


def clusters_of(Z: np.ndarray, n_clusters: int, generator: torch.Generator) -> np.ndarray:
    """Return the cluster of each row, by k-means."""
    seed = int(torch.randint(1 << 31, (), generator=generator, device="cpu", dtype=torch.int64))
    method = KMeans if len(Z) <= _MANY else MiniBatchKMeans
    return method(min(n_clusters, len(Z)), n_init=1, random_state=seed).fit_predict(Z)


def matched_clusters(former: np.ndarray, found: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return new clusters in the numbers of the former ones, so that as many rows as possible keep theirs."""
    shared = np.zeros((n_clusters, n_clusters), dtype=np.int64)
    np.add.at(shared, (found, former), 1)
    return linear_sum_assignment(shared, maximize=True)[1][found]


def class_batches(
    codes: torch.Tensor, rows: np.ndarray, batch_size: int, per_class: int, generator: torch.Generator
) -> list[torch.Tensor]:
    """Return random batches of some rows, made of groups of `per_class` rows of a class; smaller ones of the rest.

    Batches are of about equal size. One with less than two rows is left out.
    """
    rows = torch.from_numpy(rows)
    rows = rows[torch.randperm(len(rows), generator=generator, device="cpu")]
    rows = rows[codes[rows].argsort(stable=True)]
    _, place, counts = codes[rows].unique_consecutive(return_inverse=True, return_counts=True)
    within = torch.arange(len(rows), device="cpu") - (counts.cumsum(0) - counts)[place]
    group = (within % per_class == 0).cumsum(0) - 1
    if len(group):
        group = torch.randperm(int(group[-1]) + 1, generator=generator, device="cpu")[group]
    batches = rows[group.argsort(stable=True)].tensor_split(max(1, round(len(rows) / batch_size)))
    return [batch for batch in batches if len(batch) > 1]


# What is kept


def described(problem: Problem, snapshot: Snapshot) -> tuple[Model, dict[str, Any]]:
    """Return the model and the public attributes that belong to an epoch of the training."""
    slices, growth = snapshot.report["learner_slices"], snapshot.report["growth_epochs"]
    weights = as_numpy(embedding_weights(snapshot.weights))
    model = Model(problem.architecture, problem.shape, weights, problem.mean, problem.scale, slices)
    classes = class_weights(snapshot.weights)
    learned = {"beta_": classes[0]} if problem.options.loss == "margin" else {"proxies_": torch.cat(classes, 1)}
    public = {f"{name}_": getattr(model, name) for name in ("weights", "mean", "scale", "learner_slices")}
    return model, public | learned | {"n_learners_": len(slices), "growth_epochs_": growth}


def restored(model: Model, device: torch.device | str = "cpu") -> Embedding:
    """Return the network with its weights, for standardised rows."""
    from .._nets.architecture import restore

    return restore(model.architecture, model.weights, device, head=partial(Embedding, shape=model.shape))


def embedding(X: Any, model: Model, ws: Workspace) -> torch.Tensor:
    """Return the unit slices of rows."""
    rows = MappedRows(rows_of(X, ws), partial(_dense, ws.exact()), X.shape[1]) if issparse(X) else rows_of(X, ws)
    rows = MappedRows(rows, partial(standardized, mean=model.mean, scale=model.scale), X.shape[1])
    net = restored(model, ws.device)
    return unit_slices(embedded(net, rows, net), model.learner_slices)
