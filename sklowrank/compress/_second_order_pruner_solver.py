"""Weights removed by saliency, the others changed so that the loss grows least, and training that keeps zeros."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from .._nets.batches import Batches
from .._nets.found import Found
from .._nets.randomness import Randomness
from .._nets.training import Rule, Training, train
from ..optim._inverse_fisher import damped_cholesky

_ROWS = 128  # whose gradients are computed at once
_NUMBERS = 1 << 22  # of blocks of the matrix that are computed with at once


class PruningOptions(NamedTuple):
    """Parameters that the solver reads, by the names of the estimator."""

    n_grads: int
    damp: float
    block_size: int | None
    n_recompute: int
    scope: Literal["global", "layer"]
    criterion: Literal["mfac", "magnitude"]
    finetune_epochs: int = 0
    learning_rate: float = 1e-3
    batch_size: int = 64


class Weights(NamedTuple):
    """The weight matrices of a module, and which of their entries are kept, as one vector each."""

    names: list[str]
    sizes: list[int]
    values: torch.Tensor  # (d,)
    kept: torch.Tensor  # (d,), bool


def sparsities_of(schedule: Iterable[float] | None, last: float) -> list[float]:
    """Return the sparsities that are reached one after another.

    Raises
    ------
    ValueError
        If they are no numbers that increase.
    """
    given = [] if schedule is None else list(schedule)
    are_numbers = all(isinstance(sparsity, Real) for sparsity in given)
    if not are_numbers or any(not 0 <= a < b for a, b in pairwise([*given, last])):
        raise ValueError(f"schedule={schedule!r} has to increase, in numbers from at least 0 to below sparsity={last}.")
    return [*map(float, given), last]


def prune_network(
    found: Found, X: Any, y: Any, sparsities: Iterable[float], o: PruningOptions, generator: torch.Generator
) -> Weights:
    """Prune the module of a found network in place, to one sparsity after another; return its weights."""
    rows = found.prepare(X)
    target = found.encode(y).to(rows.device)

    def gradients(weights):
        put(weights, found.module)
        at = _drawn(len(rows), o.n_grads, generator).to(rows.device)
        return row_gradients(found.module, weights.names, found.loss, rows[at], target[at])

    weights = weights_of_module(found.module)
    for sparsity in sparsities:
        weights = pruned(weights, sparsity, gradients, o)
        put(weights, found.module)
        if o.finetune_epochs:
            _train(found, rows, target, by_name(weights, weights.kept, found.module), o, generator)
            weights = weights_of_module(found.module)._replace(kept=weights.kept)
    return weights


def _drawn(n_rows, count, generator):
    """Return positions of rows, drawn without replacement where there are as many."""
    if count > n_rows:
        return torch.randint(n_rows, (count,), generator=generator, device="cpu", dtype=torch.int64)
    return torch.randperm(n_rows, generator=generator, device="cpu", dtype=torch.int64)[:count]


def weights_of_module(module: nn.Module) -> Weights:
    """Return the parameters with two or more axes, all of them kept.

    Raises
    ------
    ValueError
        If there is none.
    """
    matrices = {name: p.detach() for name, p in module.named_parameters() if p.ndim > 1 and p.is_floating_point()}
    if not matrices:
        raise ValueError("The network in estimator has no weight matrix that could be pruned.")
    values = torch.cat([value.reshape(-1) for value in matrices.values()])
    sizes = [value.numel() for value in matrices.values()]
    return Weights(list(matrices), sizes, values, torch.ones_like(values, dtype=torch.bool))


def by_name(weights: Weights, vector: torch.Tensor, module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parts of a vector in the shapes of the weight matrices."""
    shapes = [module.get_parameter(name).shape for name in weights.names]
    return {name: part.reshape(s) for name, s, part in zip(weights.names, shapes, vector.split(weights.sizes))}


def put(weights: Weights, module: nn.Module) -> None:
    """Give a module its weights."""
    with torch.no_grad():
        for name, value in by_name(weights, weights.values, module).items():
            module.get_parameter(name).copy_(value)


def row_gradients(
    module: nn.Module, names: list[str], loss: Callable, rows: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Return the gradients (n, d) of the losses of rows in the weights of these names; the module is in eval mode."""
    every = {name: value.detach() for name, value in (*module.named_parameters(), *module.named_buffers())}
    wanted = {name: every.pop(name) for name in names}

    def loss_of_row(weights, row, label):
        outputs = functional_call(module, {**every, **weights}, (row[None],))
        return loss(outputs[0] if isinstance(outputs, tuple) else outputs, label[None])[0]

    of_rows = vmap(grad(loss_of_row), in_dims=(None, 0, 0))
    first = next(iter(wanted.values()))
    found = first.new_empty(len(rows), sum(value.numel() for value in wanted.values()))
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        grads = of_rows(wanted, rows[part], target[part])
        torch.cat([grads[name].flatten(1) for name in names], 1, out=found[part])
    return found


def pruned(
    weights: Weights, sparsity: float, gradients: Callable[[Weights], torch.Tensor], o: PruningOptions
) -> Weights:
    """Return weights of which a share is removed, in `n_recompute` steps that keep equal shares of what is there.

    `gradients` gives those of rows (m, d) at some weights.
    """
    before = float(weights.kept.double().mean())
    if 1 - sparsity >= before:
        return weights
    for step in range(1, o.n_recompute + 1):
        share = 1 - before * ((1 - sparsity) / before) ** (step / o.n_recompute)
        if o.criterion == "magnitude":
            kept = _most_salient(weights, weights.values.abs(), share, o.scope)
            values = weights.values
        else:
            G = gradients(weights).mul_(weights.kept)  # what is removed does not come back
            kept = _most_salient(weights, saliencies(weights.values, G, o.damp, o.block_size), share, o.scope)
            values = weights.values + compensation(weights.values, G, kept, o.damp, o.block_size)
        weights = weights._replace(values=values * kept, kept=kept)
    return weights


def saliencies(w: torch.Tensor, G: torch.Tensor, damp: float, block_size: int | None) -> torch.Tensor:
    """Return by how much the loss grows where one weight is removed and all others follow: w^2 / (2 [F^-1]_qq)."""
    if block_size is None or block_size >= len(w):
        factor, damp = damped_cholesky((G @ G.T).double(), len(G), damp)
        leverage = torch.linalg.solve_triangular(factor.to(G), G, upper=False).square_().sum(0)
        return w.double().square() * damp / (2 * (1 - leverage.double()).clamp_min(torch.finfo(G.dtype).eps))
    diagonal = torch.empty(len(w), dtype=torch.float64, device=w.device)
    for part, blocks in _in_blocks(G, block_size):
        dense = blocks.shape[2] <= blocks.shape[1]
        inner = blocks.mT @ blocks if dense else blocks @ blocks.mT
        factor, used = damped_cholesky(inner, len(G), damp)
        if dense:
            found = len(G) * torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
        else:
            found = (1 - torch.linalg.solve_triangular(factor, blocks, upper=False).square().sum(1)) / used
        diagonal[part] = found.reshape(-1)[: len(diagonal[part])]
    return w.double().square() / (2 * diagonal)


def compensation(
    w: torch.Tensor, G: torch.Tensor, kept: torch.Tensor, damp: float, block_size: int | None
) -> torch.Tensor:
    """Return the change of the kept weights for which the loss grows least where all others become zero at once.

    With G_K and G_Q the columns of weights that are kept and that are removed it is
    ``G_K' (m damp I + G_K G_K')^-1 G_Q w_Q``, the exact minimum of ``delta' F delta / 2`` with ``delta_Q = -w_Q``.
    """
    removed = torch.where(kept, 0, w)
    K = G * kept
    if block_size is None or block_size >= len(w):
        factor, _ = damped_cholesky((K @ K.T).double(), len(G), damp)
        pull = torch.cholesky_solve((G @ removed).double()[:, None], factor)[:, 0]
        return K.T @ pull.to(K)
    change = torch.zeros_like(w)
    pairs = zip(_in_blocks(K, block_size), _in_blocks(G, block_size))
    for (part, columns), (_, blocks) in pairs:
        lost = nn.functional.pad(removed[part], (0, blocks.shape[0] * blocks.shape[2] - len(removed[part])))
        lost = blocks @ lost.double().reshape(len(blocks), -1, 1)
        if columns.shape[2] <= columns.shape[1]:
            factor, _ = damped_cholesky(columns.mT @ columns, len(G), damp)
            found = torch.cholesky_solve(columns.mT @ lost, factor)
        else:
            factor, _ = damped_cholesky(columns @ columns.mT, len(G), damp)
            found = columns.mT @ torch.cholesky_solve(lost, factor)
        change[part] = found.reshape(-1)[: len(change[part])].to(change)
    return change


def _in_blocks(G: torch.Tensor, size: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield slices of columns, and these columns in float64 as blocks (c, m, size), the last with zeros."""
    count = max(1, _NUMBERS // (size * max(size, len(G))))
    for start in range(0, G.shape[1], count * size):
        part = slice(start, min(start + count * size, G.shape[1]))
        columns = nn.functional.pad(G[:, part].double(), (0, -(part.stop - start) % size))
        yield part, columns.reshape(len(G), -1, size).transpose(0, 1)


def _most_salient(weights, saliency, share, scope):
    """Return which weights are kept where a share of all, or of each matrix, is removed; never one that is gone."""
    saliency = torch.where(weights.kept, saliency.double(), -1.0)
    if scope == "global":
        return _all_but_lowest(saliency, share)
    return torch.cat([_all_but_lowest(part, share) for part in saliency.split(weights.sizes)])


def _all_but_lowest(saliency, share):
    kept = torch.ones_like(saliency, dtype=torch.bool)
    kept[saliency.argsort(stable=True)[: round(share * len(saliency))]] = False
    return kept


def _train(found, rows, target, kept, o, generator):
    """Train the weights that are kept, with the loss that the network has."""

    def loss(outputs, labels):
        return found.loss(outputs[0] if isinstance(outputs, tuple) else outputs, labels).mean()

    rule = _KeptZeros()
    rule.kept_ = kept
    steps = train(
        found.module,
        Batches(lambda at: (rows[at], target[at]), len(rows)),
        loss,
        Training(o.finetune_epochs, o.batch_size, o.learning_rate),
        randomness=Randomness(generator, rows.device, seeds_global=True),
        device=rows.device,
        rule=rule,
        keep_best=False,
    )
    deque(steps, maxlen=0)
    found.module.eval()


class _KeptZeros(Rule):
    """Training in which removed weights stay zero; `kept_` says by the names of parameters which are not."""

    kept_: dict[str, torch.Tensor]

    def on_grad_computed(self, net, named_parameters, X=None, y=None, training=False, **kwargs):
        for name, parameter in named_parameters:
            if name in self.kept_ and parameter.grad is not None:
                parameter.grad.mul_(self.kept_[name].to(parameter.grad))

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        if training:
            with torch.no_grad():
                for name, kept in self.kept_.items():
                    parameter = net.module_.get_parameter(name)
                    parameter.mul_(kept.to(parameter))
