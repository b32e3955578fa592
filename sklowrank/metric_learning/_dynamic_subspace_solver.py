"""Training of subspace learners: which rows and columns each has, when there is one more, and what is kept."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse

from .._core.blocks import join_blocks, rows_per_block
from .._core.iterate import Step
from .._core.rows import MappedRows, rows_of
from .._core.standardize import standardization, standardized
from .._core.workspace import Workspace
from .._math.linalg import signs_of_largest, stable_svd
from .._nets.architecture import Architecture, architecture_of, as_numpy, build, restore, split_params
from .._nets.batches import Batches
from .._nets.images import N_POOLED, image_shape_of
from .._nets.layers import layer_sizes
from .._nets.randomness import Randomness
from .._nets.training import Rule, Snapshot, Training, train
from ._learner_rows import class_batches, clusters_of, has_plateau, matched_clusters, permutation, rows_of_learners
from ._metric_losses import margin_loss, proxy_anchor_loss
from ._subspace_network import (
    Embedding,
    Learners,
    Shape,
    bytes_per_row,
    class_weights,
    cuts_of,
    embedding_weights,
    pieces_of,
    slices_of,
    unit_slices,
)

_BETA = 1.2  # the distance that separates pairs of one class from pairs of two, at the start
_CLASS_RATE = 10.0  # times the learning rate: the step of what is learned of classes
_WEIGHT_DECAY = 1e-4
_DROPOUT = 0.25  # of the default network: without it wrong labels are fitted, too
_JOINT = 0.2  # share of the epochs, the last ones, in which all learners see all rows


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

    rows: Any  # (n, n_features), standardised; those of a sparse matrix where they are taken
    codes: torch.Tensor  # (n,), classes, on the CPU
    n_classes: int
    mean: torch.Tensor  # (n_features,), float64
    scale: torch.Tensor  # (n_features,), float64
    architecture: Architecture  # of the trunk
    shape: Shape
    numbers: range  # of learners that there may be
    cuts: list[int]  # places at which their columns are cut
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
    """Return the problem of rows X, dense or sparse, of the classes `codes`.

    Raises
    ------
    ValueError
        If `batch_size` or `image_shape` does not suit the others or the data.
    """
    least, n_features = 2 * options.samples_per_class, X.shape[1]
    if options.batch_size < least:
        raise ValueError(
            f"batch_size={options.batch_size} holds no two classes of samples_per_class={options.samples_per_class} "
            f"rows. Pass at least {least}, or lower samples_per_class."
        )
    image = None if options.image_shape is None else image_shape_of(options.image_shape, n_features)
    shape = Shape(
        n_features, options.n_components, options.attention, image, image is not None and options.module is None
    )
    n_in = (N_POOLED,) if shape.convolutions else (n_features,) if image is None else (image[2], *image[:2])
    default = {"hidden_layer_sizes": layer_sizes(options.hidden_layer_sizes), "activation": "relu"}
    default |= {"dropout": _DROPOUT, "batch_norm": False}
    numbers = _numbers_of_learners(options)
    mean, scale = standardization(_raw_rows(X, ws), "global")
    return Problem(
        rows=_standard_rows(X, mean, scale, ws) if issparse(X) else rows_of(standardized(ws.load(X), mean, scale)),
        codes=torch.from_numpy(codes),
        n_classes=int(codes.max()) + 1,
        mean=mean,
        scale=scale,
        architecture=architecture_of(options.module, options.net_params, n_in, **default),
        shape=shape,
        numbers=numbers,
        cuts=cuts_of(options.n_components, numbers),
        options=options,
        randomness=randomness,
        device=ws.device,
    )


def _numbers_of_learners(options):
    """Return the numbers of learners that there may be; growth leaves each two columns, with one it cannot learn."""
    if options.grow == "fixed":
        most = min(options.max_learners, options.n_components)
        return range(most, most + 1)
    return range(1, min(options.max_learners, max(1, options.n_components // 2)) + 1)


def _raw_rows(X, ws):
    """Return rows that are read as dense tensors."""
    return MappedRows(rows_of(X, ws), partial(_dense, ws.exact()), X.shape[1]) if issparse(X) else rows_of(X, ws)


def _dense(ws, block):
    return ws.load(block.toarray())


def _standard_rows(X, mean, scale, ws, dtype=torch.float32):
    """Return rows that are standardised where they are taken."""
    return MappedRows(_raw_rows(X, ws), partial(standardized, mean=mean, scale=scale, dtype=dtype), X.shape[1])


# Training


def training(problem: Problem) -> Iterator[Step]:
    """Train an epoch at a time; each yields a Step with a snapshot."""
    options, randomness, device = problem.options, problem.randomness, problem.device
    with randomness.scope():
        net = build(problem.architecture, randomness.layers, partial(learners_at_start, problem)).to(device)
    division = Division(problem)

    def batch(drawn):
        rows, learners = drawn
        pairs = torch.rand(len(rows), 2, generator=randomness.generator, device="cpu", dtype=torch.float32)
        return problem.rows.take(rows.to(device)), (problem.codes[rows].to(device), pairs.to(device), learners)

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
    batches = Batches(batch, len(problem.codes), drawn=division.batches)
    loss = partial(batch_loss, name=options.loss, margin=options.margin)
    yield from train(net, batches, loss, plan, randomness=randomness, device=device, rule=division, keep_best=False)


def learners_at_start(problem: Problem, trunk, width: int, generator) -> Learners:
    """Return the network around a trunk, with what it learns of the classes: thresholds or proxies."""
    cuts, sizes = problem.cuts, (problem.n_classes, problem.shape.n_components)
    if problem.options.loss == "margin":
        classes = [torch.full(sizes[:1], _BETA, dtype=torch.float32, device="cpu")]
    else:
        proxies = torch.randn(sizes, generator=generator, dtype=torch.float32, device="cpu")
        classes = [proxies[:, a:b].clone() for a, b in pairwise(cuts)]
    return Learners(Embedding(trunk, width, generator, shape=problem.shape), cuts, classes)


def batch_loss(outputs, target, *, name: str, margin: float) -> torch.Tensor:
    """Return the mean loss of the learners that a batch is for, each on its own columns."""
    codes, pairs, learners = target
    losses = []
    for pieces in learners:
        Z = outputs.of(pieces)
        if name == "margin":
            losses.append(margin_loss(Z, codes, outputs.classes[0], margin, pairs))
        else:
            losses.append(proxy_anchor_loss(Z, codes, outputs.proxies_of(pieces), margin))
    return torch.stack(losses).mean()


class Division(Rule):
    """Rows and columns divided among learners; one learner more where training no longer helps.

    It draws the batches of an epoch, and looks at loss and embedding after it. Layers stay as they are.
    """

    def __init__(self, problem: Problem):
        self.problem = problem

    def convert(self, module):
        """Begin with the least number of learners."""
        options = self.problem.options
        self.n_learners_, self.growth_epochs_, self.losses_ = self.problem.numbers[0], list[int](), list[float]()
        self.epoch_, self.n_apart_ = 0, options.max_iter - round(_JOINT * options.max_iter)
        self.clusters_ = np.zeros(len(self.problem.codes), dtype=np.int64)
        self._share_out(module)
        return []

    def batches(self, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, list[range]]]:
        """Yield the rows of each batch of an epoch, and the pieces of the learners that it is for."""
        options, codes = self.problem.options, self.problem.codes
        pieces = [pieces_of(columns, self.problem.cuts) for columns in self._slices()]
        shares = [(torch.arange(len(codes), device="cpu"), pieces)]
        if self.epoch_ < self.n_apart_ and self.n_learners_ > 1:
            rows = rows_of_learners(self.clusters_, codes, self.n_learners_, generator)
            shares = [(own, [piece]) for own, piece in zip(rows, pieces)]
        drawn = []
        for rows, learners in shares:
            batches = class_batches(codes, rows, options.batch_size, options.samples_per_class, generator)
            drawn += [(batch, learners) for batch in batches]
        yield from (drawn[i] for i in permutation(len(drawn), generator).tolist())

    def on_epoch_end(self, net, **kwargs):
        """Add a learner after a plateau; from time to time find clusters again."""
        options = self.problem.options
        self.epoch_ += 1
        self.losses_.append(net.history[-1, "train_loss"])
        if self.epoch_ >= self.n_apart_:
            return
        may_grow = self.n_learners_ < self.problem.numbers[-1]
        if may_grow and has_plateau(self.losses_, options.patience, options.tol):
            self.n_learners_ += 1
            self.growth_epochs_.append(self.epoch_)
            self.losses_.clear()
            self._share_out(net.module_)
        elif self.epoch_ % options.recluster_every == 0:
            self._share_out(net.module_)

    def report(self) -> dict[str, Any]:
        """Return the columns of the learners, and the epochs after which there was one more."""
        return {"learner_slices": self._slices(), "growth_epochs": list(self.growth_epochs_)}

    def _slices(self):
        return slices_of(self.problem.shape.n_components, self.n_learners_)

    def _share_out(self, net):
        if self.n_learners_ > 1:
            Z = unit_slices(of_all_rows(net.embedded, self.problem.rows, net), self._slices())
            found = clusters_of(Z.cpu().numpy(), self.n_learners_, self.generator_)
            self.clusters_ = matched_clusters(self.clusters_, found, self.n_learners_)


# What is kept


def described(problem: Problem, snapshot: Snapshot) -> tuple[Model, dict[str, Any]]:
    """Return the model and the public attributes that belong to an epoch of the training."""
    classes = class_weights(snapshot.weights)
    learned = {"beta_": classes[0]} if problem.options.loss == "margin" else {"proxies_": torch.cat(classes, 1)}
    weights = as_numpy(embedding_weights(snapshot.weights))
    model = Model(
        problem.architecture,
        problem.shape,
        weights,
        problem.mean,
        problem.scale,
        snapshot.report["learner_slices"],
    )
    return model, _public(model, snapshot.report["growth_epochs"]) | learned


def _public(model, growth_epochs):
    public = {f"{name}_": getattr(model, name) for name in ("weights", "mean", "scale", "learner_slices")}
    return public | {"n_learners_": len(model.learner_slices), "growth_epochs_": growth_epochs}


def projected(problem: Problem) -> tuple[Model, dict[str, Any]]:
    """Return the model of rows of a single class, the projection on their principal axes, and the public attributes."""
    width, n_features = problem.shape.n_components, problem.shape.n_features
    _, s, Vh = stable_svd(problem.rows.take(slice(0, len(problem.codes))).double())
    there = s > s[0] * max(problem.rows.shape) * torch.finfo(s.dtype).eps
    axes = (Vh * signs_of_largest(Vh)[:, None])[there][:width]
    shape = problem.shape._replace(image=None, convolutions=False)
    trunk = architecture_of(None, None, (n_features,), hidden_layer_sizes=[], activation="relu", dropout=0.0)
    net = build(trunk, problem.randomness.layers, partial(Embedding, shape=shape))
    weights = net.state_dict() | {"project.weight": torch.cat([axes, axes.new_zeros(width - len(axes), n_features)])}
    model = Model(trunk, shape, as_numpy(weights), problem.mean, problem.scale, slices_of(width, 1))
    learned = {"beta_": axes.new_full((1,), _BETA)} if problem.options.loss == "margin" else {}
    return model, _public(model, []) | learned | {"loss_curve_": [], "n_iter_": 0}


# New rows


def embedding(X: Any, model: Model, ws: Workspace) -> torch.Tensor:
    """Return the embedding of rows with slices of length one."""
    return unit_slices(_of_new_rows(Embedding.__call__, X, model, ws), model.learner_slices)


def attention_of(X: Any, model: Model, ws: Workspace) -> torch.Tensor:
    """Return the factors of the gate for each cell of X."""
    return _of_new_rows(Embedding.attention_map, X, model, ws)


def _of_new_rows(method, X, model, ws):
    """Return what a method of the network makes of rows, in float64; a user's trunk may take float32 alone."""
    dtype = torch.float64 if model.architecture.module is None else torch.float32
    net = restored(model, ws.device).to(dtype)
    return of_all_rows(partial(method, net), _standard_rows(X, model.mean, model.scale, ws, dtype), net)


def restored(model: Model, device: torch.device | str = "cpu") -> Embedding:
    """Return the network with its weights, for standardised rows."""
    return restore(model.architecture, model.weights, device, head=partial(Embedding, shape=model.shape))


def of_all_rows(compute: Callable, rows: Any, net) -> torch.Tensor:
    """Return what a network in eval mode computes of all rows, in blocks."""
    was_training, size = net.training, bytes_per_row(net)
    net.eval()
    with torch.inference_mode():
        step = rows_per_block("auto", len(rows), size)
        found = join_blocks(lambda at: compute(rows.take(at)), len(rows), step, bytes_per_row=size)
    net.train(was_training)
    return found
