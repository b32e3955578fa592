"""Fréchet dimension reduction by networks: the nets, side by side, their objective, their training, their average."""

import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import nn

from .._core.blocks import in_blocks, rows_per_block
from .._core.iterate import Step
from .._core.nets import linear, train
from .._math.linalg import signs_of_largest
from ._ball_features import number_of

_RIDGE = 1e-3  # of a batch's covariance, times its mean variance
_EXACT_RIDGE = 1e-9  # of the covariance of many rows
_TINY = 1e-12  # of outputs that do not vary at all
_ROWS = 4096  # at most at once; so many rows of each kind suffice to compare epochs
ACTIVATIONS = {"gelu": nn.functional.gelu, "relu": nn.functional.relu, "tanh": torch.tanh}


class Plan(NamedTuple):
    """What the training is told."""

    constraint: str
    alpha: float
    variance: float  # of all features, the unit in which alpha counts
    batch_size: int
    max_iter: int
    patience: int
    learning_rate: float
    weight_decay: float
    net_params: dict[str, Any]
    verbose: int


class Split(NamedTuple):
    """The rows of each net."""

    trained: torch.Tensor  # (K, n_train)
    held_out: torch.Tensor | None  # (K, n_held)


class Trained(NamedTuple):
    """How far a training has come."""

    weights: list[dict[str, torch.Tensor]]  # of each net, at its best epoch
    scores: torch.Tensor  # (K,) share of the held-out features' variance that it explains there


class Average(NamedTuple):
    """The principal components of the nets' mean prediction."""

    rotation: torch.Tensor  # (K d, n_components), of the outputs of all nets next to one another
    intercept: torch.Tensor  # (n_components,)
    eigenvalues: torch.Tensor  # all of them, descending
    loadings: torch.Tensor  # (n_components, r): targets predicted from components


# Networks


class SideBySide(nn.Module):
    """K multilayer perceptrons of one shape, computed at once: (K, b, n_features) to (K, b, n_outputs).

    A linear map beside the layers leaves these what is not linear. Weights and dropout are drawn from `generator`, on
    the CPU, so that a seed means the same on every device; without one the weights are to be loaded.
    """

    def __init__(self, count: int, n_features: int, sizes, n_outputs: int, activation: str, dropout: float, generator):
        super().__init__()
        place: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
        self.activation, self.dropout, self.generator = ACTIVATIONS[activation], dropout, generator

        def drawn(n_in, *shape):
            weights = torch.empty(count, *shape, **place)
            if generator is not None:
                weights.uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
            return nn.Parameter(weights)

        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in zip([n_features, *sizes], [*sizes, n_outputs]):
            self.weights.append(drawn(n_in, n_in, n_out))
            self.biases.append(drawn(n_in, 1, n_out))
        self.straight = drawn(n_features, n_features, n_outputs)

    def forward(self, x):
        last, straight = len(self.weights) - 1, torch.bmm(x, self.straight)
        for i, (W, b) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(b, x, W)
            if i < last:
                x = self._dropped_out(self.activation(x))
        return x + straight

    def _dropped_out(self, x):
        if not self.training or not self.dropout:
            return x
        draws = torch.rand(x.shape, generator=self.generator, device="cpu", dtype=torch.float32)
        return x * ((draws >= self.dropout).to(x) / (1 - self.dropout))

    @property
    def count(self) -> int:
        """Number of nets."""
        return len(self.weights[0])

    def parts(self) -> list[dict[str, torch.Tensor]]:
        """Return a copy of each net's weights."""
        state = self.state_dict()
        return [{name: value[k].clone() for name, value in state.items()} for k in range(self.count)]

    def load_parts(self, parts) -> None:
        """Take weights as `parts` returns them."""
        self.load_state_dict({name: torch.stack([part[name] for part in parts]) for name in parts[0]})


class OneByOne(nn.Module):
    """K networks of the user's own, each with a linear layer behind it: same shapes as `SideBySide`."""

    def __init__(self, trunks, width: int, n_outputs: int, generator):
        super().__init__()
        heads = [linear(width, n_outputs, generator) for _ in trunks]
        self.nets = nn.ModuleList(nn.Sequential(*pair) for pair in zip(trunks, heads))

    def forward(self, x):
        return torch.stack([net(rows) for net, rows in zip(self.nets, x)])

    @property
    def count(self) -> int:
        """Number of nets."""
        return len(self.nets)

    def parts(self) -> list[dict[str, torch.Tensor]]:
        """Return a copy of each net's weights."""
        return [{name: value.detach().clone() for name, value in net.state_dict().items()} for net in self.nets]

    def load_parts(self, parts) -> None:
        """Take weights as `parts` returns them."""
        for net, part in zip(self.nets, parts):
            net.load_state_dict(part)


# Objective


def objective(U: torch.Tensor, T: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return minus the dependence between outputs U (K, b, d) and targets T (K, b, r), the mean over the nets.

    With the constraint "whiten" outputs count as if they were uncorrelated and of unit variance. With "frobenius" the
    dependence, as a share of the targets' variance, is penalised by the distance of their covariance from the identity.
    """
    C, A = moments(U, T)
    identity = torch.eye(U.shape[2], dtype=U.dtype, device=U.device)
    if plan.constraint == "whiten":
        return -(A * torch.linalg.solve(_ridged(C, _RIDGE, identity), A)).sum((1, 2)).mean() / plan.variance
    penalty = (C - identity).square().sum((1, 2))
    return (plan.alpha * penalty - A.square().sum((1, 2)) / plan.variance).mean()


def moments(U: torch.Tensor, T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the covariance of outputs, (K, d, d), and that of outputs with targets, (K, d, r)."""
    U = U - U.mean(1, keepdim=True)
    return U.mT @ U / U.shape[1], U.mT @ T / U.shape[1]


def _ridged(C, ridge, identity):
    size = C.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return C + (ridge * size + _TINY) * identity


def _coefficients(C, A):
    identity = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
    return torch.linalg.solve(_ridged(C, _EXACT_RIDGE, identity), A)


# Training


def split_rows(n: int, count: int, n_folds: int | None, generator, device) -> Split:
    """Return the rows of `count` nets: each leaves out another fold, or none where `n_folds` is None."""
    order = torch.randperm(n, generator=generator, device="cpu", dtype=torch.int64)
    if n_folds is None:
        return Split(order.expand(count, n).to(device), None)
    folds = torch.tensor_split(order, n_folds)[:count]
    least = n // n_folds
    trained = torch.stack([_without(order, fold, generator)[: n - least - 1] for fold in folds])
    return Split(trained.to(device), torch.stack([fold[:least] for fold in folds]).to(device))


def _without(order, fold, generator):
    others = order[~torch.isin(order, fold)]
    return others[torch.randperm(len(others), generator=generator, device="cpu", dtype=torch.int64)]


def training(nets, X, T, split: Split, plan: Plan, randomness) -> Iterator[Step]:
    """Train all nets, an epoch at a time; each keeps the weights of the epoch best on its held-out rows."""
    n_train = split.trained.shape[1]
    best = Trained(nets.parts(), torch.full((len(split.trained),), -math.inf, dtype=torch.float64, device="cpu"))
    curve = [best.scores]
    epochs = train(
        nets,
        objective=lambda U, T: objective(U, T, plan),
        make_batch=lambda rows: (X[split.trained[:, rows]], T[split.trained[:, rows]]),
        n_rows=n_train,
        n_epochs=plan.max_iter,
        n_batches=n_train // plan.batch_size,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        weight_decay=plan.weight_decay,
        randomness=randomness,
        device=X.device,
        net_params=plan.net_params,
        verbose=plan.verbose,
    )
    with closing(epochs):
        for loss, _, _ in epochs:
            best = _best(best, nets, _scores(nets, X, T, split))
            curve.append(best.scores)
            yield Step(best, _gain(curve, plan.patience), loss)


def _best(best, nets, scores):
    """Return the better weights of each net; those of now where nothing is held out."""
    parts = nets.parts()
    if scores is None:
        return Trained(parts, torch.full_like(best.scores, math.nan))
    better = (scores > best.scores).tolist()
    weights = [now if is_better else before for now, before, is_better in zip(parts, best.weights, better)]
    return Trained(weights, torch.maximum(scores, best.scores))


def _gain(curve, patience):
    """Return how much the nets' scores have gained in the last epochs, on average."""
    if len(curve) <= patience + 1 or curve[-1].isnan().any():
        return math.inf
    return float((curve[-1] - curve[-1 - patience]).mean())


def _scores(nets, X, T, split):
    """Return the share of the held-out targets' variance that a regression on each net's outputs explains."""
    if split.held_out is None:
        return None
    rows, held = split.trained[:, :_ROWS], split.held_out[:, :_ROWS]
    nets.eval()
    with torch.inference_mode():
        U, V = (nets(X[part]).double() for part in (rows, held))
        B = _coefficients(*moments(U, T[rows].double()))
        wrong = T[held] - (V - U.mean(1, keepdim=True)) @ B
        total = T[held].double().square().sum((1, 2)).clamp(min=_TINY)
        return (1 - wrong.square().sum((1, 2)) / total).cpu()


# Average


def outputs_of(nets, X: torch.Tensor) -> torch.Tensor:
    """Return the outputs of all nets next to one another, (n, K d), in float64.

    The default nets are computed in float64, too: an output must not depend on the rows beside it. A user's module may
    know float32 only.
    """
    nets.eval()
    if isinstance(nets, SideBySide):
        nets.double()
    X = X.to(next(nets.parameters()).dtype)
    size = 4 * nets.count * sum(p.shape[-1] for p in nets.parameters())
    step = min(_ROWS, rows_per_block("auto", len(X), size))

    def of(rows):
        return nets(X[rows].expand(nets.count, -1, -1)).double().transpose(0, 1).flatten(1)

    with torch.inference_mode():
        return torch.cat(list(in_blocks(of, len(X), step, bytes_per_row=size)))


def _regression(U, T, rows):
    """Return the coefficients (d, r) of the least squares prediction of T by U on some rows, in float64."""
    size = 8 * (T.shape[1] + U.shape[1])
    mean = U[rows].mean(0)

    def part(block):
        centred = U[rows[block]] - mean
        return centred.T @ torch.cat([centred, T[rows[block]].double()], 1)

    both = sum(in_blocks(part, len(rows), rows_per_block("auto", len(rows), size), bytes_per_row=size)) / len(rows)
    return _coefficients(both[:, : U.shape[1]], both[:, U.shape[1] :])


def average(outputs: torch.Tensor, T: torch.Tensor, split: Split, n_components: int | float, whiten: bool) -> Average:
    """Return the principal components of the mean of all nets' predictions of the targets.

    Each net predicts by the regression of the targets on its outputs over the rows that it was trained on.
    """
    K, n = len(split.trained), len(outputs)
    U = outputs.reshape(n, K, -1)
    B = torch.cat([_regression(U[:, k], T, rows) for k, rows in enumerate(split.trained)]) / K
    mean = outputs.mean(0)
    centred = outputs - mean
    e, Q = torch.linalg.eigh(centred.T @ centred / n)
    root = (Q * e.clamp(min=0).sqrt()) @ Q.T
    _, s, Vh = torch.linalg.svd(root @ B, full_matrices=False)
    count = number_of(s.square(), n_components)
    rotation = B @ Vh[:count].T
    unit = torch.where(s > 0, s, 1.0)
    scale = (unit[:count] if whiten else unit[0].expand(count)) * signs_of_largest(rotation.T)
    rotation = rotation / scale
    return Average(rotation, -mean @ rotation, s.square(), Vh[:count] * scale[:, None])
