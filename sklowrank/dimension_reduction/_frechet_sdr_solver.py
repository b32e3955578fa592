"""Fréchet dimension reduction by networks: the nets, side by side, their objective, their training, their average."""

import math
from collections.abc import Iterator
from contextlib import closing
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.blocks import in_blocks, rows_per_block
from .._core.fitted import fitted_attributes
from .._core.iterate import Step
from .._core.warn import warn
from .._core.workspace import Workspace
from .._math.linalg import signs_of_largest
from .._nets.architecture import Architecture, architecture_of, split_params
from .._nets.batches import Batches
from .._nets.ensembles import build_ensemble, ensemble_outputs, restore_ensemble
from .._nets.randomness import Randomness
from .._nets.training import Training, train
from ._ball_features import Features, FittedBalls, number_of

_RIDGE = 1e-3  # of a batch's covariance, times its mean variance
_EXACT_RIDGE = 1e-9  # of the covariance of many rows
_TINY = 1e-12  # of outputs that do not vary at all
_ROWS = 4096  # of each kind suffice to compare epochs
_OUTPUTS_OF_SHARE = 10  # of each net, where n_components is a share
_LEAST_ROWS = 10  # to hold some out
_LEAST_BATCH = 32


class Options(NamedTuple):
    """The parameters of the estimator that decide the nets and their training."""

    n_components: int | float
    hidden_layer_sizes: Any
    module: Any
    net_params: dict[str, Any] | None
    n_estimators: int
    whiten: bool
    learning_rate: float
    weight_decay: float
    batch_size: int | str
    max_iter: int
    n_iter_no_change: int
    validation_fraction: float
    verbose: int


class Split(NamedTuple):
    """The rows of each net."""

    trained: torch.Tensor  # (K, n_train)
    held_out: torch.Tensor | None  # (K, n_held)


class Problem(NamedTuple):
    """What the nets are trained on, and how."""

    rows: torch.Tensor  # (n, p), standardised, float64
    targets: torch.Tensor  # (n, r), float32
    basis: torch.Tensor  # (m t, r): features of responses from targets
    variance: float  # of all features
    split: Split
    architecture: Architecture  # of each net
    n_components: int | float
    whiten: bool
    training: Training
    randomness: Randomness


class State(NamedTuple):
    """How far a training has come."""

    weights: list[dict[str, torch.Tensor]]  # of each net, at its best epoch
    scores: torch.Tensor  # (K,) share of the held-out features' variance that it explains there


class Average(NamedTuple):
    """The principal components of the nets' mean prediction."""

    rotation: torch.Tensor  # (K d, n_components), of the outputs of all nets next to one another
    intercept: torch.Tensor  # (n_components,)
    eigenvalues: torch.Tensor  # all of them, descending
    loadings: torch.Tensor  # (n_components, r): targets predicted from components


class Model(NamedTuple):
    """Fitted nets: components are ``outputs @ rotation + intercept``, predicted features ``components @ loadings``."""

    architecture: Architecture  # of each net
    loadings: torch.Tensor  # (n_components, m t)
    weights: list[dict[str, np.ndarray]]
    rotation: torch.Tensor  # (K d, n_components)
    intercept: torch.Tensor  # (n_components,)


def network_problem(rows: torch.Tensor, features: Features, options: Options, randomness: Randomness) -> Problem:
    """Return the problem of standardised rows and of the features of their responses.

    Where there are too few rows to hold any out, the nets are trained on all of them for a quarter of the epochs.
    """
    n, n_components = len(rows), options.n_components
    n_outputs = (
        n_components if isinstance(n_components, Integral) else min(_OUTPUTS_OF_SHARE, features.targets.shape[1])
    )
    n_epochs, n_folds = options.max_iter, max(2, options.n_estimators, round(1 / options.validation_fraction))
    if n < _LEAST_ROWS or n < 2 * n_folds or n - n // n_folds <= 4 * n_outputs:
        n_epochs, n_folds = max(1, n_epochs // 4), None
        warn(
            f"n_samples={n} is too few to leave rows out: the networks are trained on all of them, for "
            f"max_iter // 4 = {n_epochs} epochs, and are likely to overfit. Add data, or lower n_components or "
            "n_estimators.",
            UserWarning,
        )
    split = split_rows(n, options.n_estimators, n_folds, randomness.generator, rows.device)
    n_rows = split.trained.shape[1]
    size = options.batch_size if options.batch_size != "auto" else min(4096, max(min(64, n_rows // 16), n_rows // 64))
    targets, basis, balls, whiten = features.targets, features.basis, features.balls, options.whiten
    variance = float((balls.weights * balls.means * (1 - balls.means)).sum())
    default = {"hidden_layer_sizes": list(options.hidden_layer_sizes), "activation": "gelu", "dropout": 0.1}
    architecture = architecture_of(options.module, options.net_params, (rows.shape[1],), n_outputs, **default)
    net_params = split_params(options.net_params)[1]
    if "optimizer" not in net_params:
        net_params = {"optimizer": torch.optim.AdamW, "optimizer__fused": True, **net_params}
    training = Training(
        max_iter=n_epochs,
        batch_size=min(n_rows, max(size, 4 * n_outputs, _LEAST_BATCH)),
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        n_iter_no_change=options.n_iter_no_change,
        net_params=net_params,
        verbose=options.verbose,
    )
    return Problem(rows, targets, basis, variance, split, architecture, n_components, whiten, training, randomness)


def split_rows(n: int, count: int, n_folds: int | None, generator, device) -> Split:
    """Return the rows of `count` nets: each leaves out another fold, or none where `n_folds` is None."""
    order = torch.randperm(n, generator=generator, device="cpu", dtype=torch.int64)
    if n_folds is None:
        return Split(order.expand(count, n).to(device), None)
    folds = torch.tensor_split(order, n_folds)[:count]
    least = n // n_folds
    others = (order[~torch.isin(order, fold)] for fold in folds)
    shuffled = [o[torch.randperm(len(o), generator=generator, device="cpu", dtype=torch.int64)] for o in others]
    trained = torch.stack([rows[: n - least - 1] for rows in shuffled])
    return Split(trained.to(device), torch.stack([fold[:least] for fold in folds]).to(device))


# Training


def training(problem: Problem) -> Iterator[Step]:
    """Train all nets, an epoch at a time; each keeps the weights of the epoch best on its held-out rows."""
    rows, targets, split, randomness = problem.rows.float(), problem.targets, problem.split, problem.randomness
    n_train = split.trained.shape[1]
    with randomness.scope():
        nets = build_ensemble(problem.architecture, len(split.trained), randomness.layers).to(rows.device)
    best = State(nets.parts(), torch.full((len(split.trained),), -math.inf, dtype=torch.float64, device="cpu"))
    curve, patience = [best.scores], problem.training.n_iter_no_change
    epochs = train(
        nets,
        Batches(
            lambda at: (rows[split.trained[:, at]], targets[split.trained[:, at]]),
            n_train,
            n_batches=n_train // problem.training.batch_size,
        ),
        lambda U, T: objective(U, T, problem.variance),
        problem.training,
        randomness=randomness,
        device=rows.device,
        keep_best=False,
    )
    with closing(epochs):
        for _, _, loss in epochs:
            best = _better(best, nets, _held_out_scores(nets, rows, targets, split))
            curve.append(best.scores)
            comparable = len(curve) > patience + 1 and split.held_out is not None
            yield Step(best, float((curve[-1] - curve[-1 - patience]).mean()) if comparable else math.inf, loss)


def objective(U: torch.Tensor, T: torch.Tensor, variance: float) -> torch.Tensor:
    """Return minus the dependence between outputs U (K, b, d) and targets T (K, b, r), the mean over the nets.

    Outputs count as if they were uncorrelated and of unit variance; `variance` is that of all features.
    """
    C, A = moments(U, T)
    return -(A * torch.linalg.solve(_ridged(C, _RIDGE), A)).sum((1, 2)).mean() / variance


def moments(U: torch.Tensor, T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the covariance of outputs, (K, d, d), and that of outputs with targets, (K, d, r)."""
    U = U - U.mean(1, keepdim=True)
    return U.mT @ U / U.shape[1], U.mT @ T / U.shape[1]


def _ridged(C, ridge):
    identity = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
    size = C.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return C + (ridge * size + _TINY) * identity


def _held_out_scores(nets, X, T, split):
    """Return the share of the held-out targets' variance that a regression on each net's outputs explains."""
    if split.held_out is None:
        return None
    rows, held = split.trained[:, :_ROWS], split.held_out[:, :_ROWS]
    nets.eval()
    with torch.inference_mode():
        U, V = (nets(X[part]).double() for part in (rows, held))
        C, A = moments(U, T[rows].double())
        wrong = T[held] - (V - U.mean(1, keepdim=True)) @ torch.linalg.solve(_ridged(C, _EXACT_RIDGE), A)
        total = T[held].double().square().sum((1, 2)).clamp(min=_TINY)
        return (1 - wrong.square().sum((1, 2)) / total).cpu()


def _better(best, nets, scores):
    """Return the better weights of each net; those of now where nothing is held out."""
    parts = nets.parts()
    if scores is None:
        return State(parts, torch.full_like(best.scores, math.nan))
    better = (scores > best.scores).tolist()
    weights = [now if is_better else before for now, before, is_better in zip(parts, best.weights, better)]
    return State(weights, torch.maximum(scores, best.scores))


# Average


def described(problem: Problem, balls: FittedBalls, public: dict[str, Any], ws: Workspace, state: State, **more):
    """Return the fitted attributes that belong to a state of the training; `public` are those that it leaves alone."""
    outputs = ensemble_outputs(restore_ensemble(problem.architecture, state.weights, problem.rows.device), problem.rows)
    found = average(outputs, problem.targets, problem.split, problem.n_components, problem.whiten)
    strongest = found.eigenvalues[: found.rotation.shape[1]]
    public = public | {
        "components_dependence_": strongest.to(ws.dtype),
        "dependence_ratio_": (strongest / found.eigenvalues.sum().clamp(min=torch.finfo(torch.float64).tiny)).to(
            ws.dtype
        ),
        "weights_": [{name: value.cpu().numpy() for name, value in net.items()} for net in state.weights],
        "rotation_": found.rotation,
        "intercept_": found.intercept,
        "validation_scores_": state.scores,
        "n_components_": len(strongest),
    }
    loadings = found.loadings @ problem.basis.T
    model = Model(problem.architecture, loadings, public["weights_"], found.rotation, found.intercept)
    return fitted_attributes(ws, model, balls, **public, **more)


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


def _regression(U, T, rows):
    """Return the coefficients (d, r) of the least squares prediction of T by U on some rows, in float64."""
    size = 8 * (T.shape[1] + U.shape[1])
    mean = U[rows].mean(0)

    def part(block):
        centred = U[rows[block]] - mean
        return centred.T @ torch.cat([centred, T[rows[block]].double()], 1)

    both = sum(in_blocks(part, len(rows), rows_per_block("auto", len(rows), size), bytes_per_row=size)) / len(rows)
    return torch.linalg.solve(_ridged(both[:, : U.shape[1]], _EXACT_RIDGE), both[:, U.shape[1] :])
