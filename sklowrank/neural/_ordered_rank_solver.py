"""Factors whose components are ordered: prefixes of them, their importances, and how they are cut."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from .._core.validation import is_integer
from .._nets.architecture import Edit, edited
from .._nets.layers import ThinLinear, linear_layers

_SMOOTH = 1e-12  # under the root of a tail norm, whose gradient at zero is not defined


class PrefixLinear(ThinLinear):
    """A thin layer that can be computed with its first components only: what takes its place while it is trained."""

    prefix: int | None = None  # None: all components

    @classmethod
    def of(cls, layer: ThinLinear) -> "PrefixLinear":
        """Return a layer with the very parameters of another one."""
        n_in, n_out, _, bias = layer.shape
        new = cls(n_in, n_out, 0, bias)
        new.down, new.up, new.bias = layer.down, layer.up, layer.bias
        return new

    def forward(self, x):
        down, up = self.down[: self.prefix], self.up[:, : self.prefix]
        return nn.functional.linear(nn.functional.linear(x, down), up, self.bias)

    def plain(self) -> ThinLinear:
        """Return a thin layer with the very parameters of this one."""
        n_in, n_out, _, bias = self.shape
        new = ThinLinear(n_in, n_out, 0, bias)
        new.down, new.up, new.bias = self.down, self.up, self.bias
        return new


def factors_of(layer: nn.Linear, init: str, generator: torch.Generator) -> ThinLinear:
    """Return factors of full rank in the place of a linear layer: of its weight, or drawn like those of new layers."""
    thin = ThinLinear.nearest_to(layer, min(layer.weight.shape))
    if init == "default":
        for factor in (thin.down, thin.up):
            bound = factor.shape[1] ** -0.5
            nn.init.uniform_(factor, -bound, bound, generator=generator)
    return thin


# Importances


def tail_norms(squares: torch.Tensor) -> torch.Tensor:
    """Return the norm of all components from each one to the last, of the squared norms of components (r,)."""
    return (squares.flip(0).cumsum(0).flip(0) + _SMOOTH).sqrt()


def component_squares(layer: ThinLinear) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the squared norms (r,) of the columns of `up` and of the rows of `down`."""
    return layer.up.detach().square().sum(0), layer.down.detach().square().sum(1)


def add_penalty_gradient(layer: ThinLinear, strength: float) -> None:
    """Add the gradient of the hierarchical penalty, the sum of the tail norms of both factors.

    A component is in the tails that begin with it or before: its gradient is the component times the sum over these of
    one over their norms.
    """
    of_up, of_down = (tail_norms(squares).reciprocal().cumsum(0) for squares in component_squares(layer))
    for factor, scale in ((layer.up, of_up), (layer.down, of_down[:, None])):
        gradient = factor.detach() * (strength * scale)
        factor.grad = gradient if factor.grad is None else factor.grad.add_(gradient)


def importances(layer: ThinLinear) -> np.ndarray:
    """Return the product of the tail norms of both factors for each component, float64, non-increasing."""
    up, down = component_squares(layer)
    tails = [squares.double().flip(0).cumsum(0).flip(0).sqrt() for squares in (up, down)]
    return (tails[0] * tails[1]).cpu().numpy()


def rank_by_importance(values: np.ndarray, threshold: float) -> int:
    """Return how many importances are positive and at least a share of the first one."""
    if not len(values) or not np.isfinite(values[0]):  # the training says that it has diverged
        return len(values)
    return int(((values >= threshold * values[0]) & (values > 0)).sum())


# Cutting


def shorten(layer: ThinLinear, rank: int) -> dict[nn.Parameter, tuple[nn.Parameter, int]]:
    """Keep the first components of a layer; return by which parameter each one was replaced, and along which axis."""
    replaced = {}
    for name, axis in (("down", 0), ("up", 1)):
        former = getattr(layer, name)
        kept = former.detach().narrow(axis, 0, rank).clone(memory_format=torch.contiguous_format)
        new = nn.Parameter(kept, former.requires_grad)
        layer.register_parameter(name, new)
        replaced[former] = new, axis
    return replaced


def shortened_state(state: Mapping[str, Any], former: torch.Tensor, length: int, axis: int) -> dict[str, Any]:
    """Return the state of an optimizer for the first entries of a parameter along an axis; {} if it cannot be cut."""
    kept = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.ndim:
            if value.shape != former.shape:
                return {}
            value = value.narrow(axis, 0, length).clone(memory_format=torch.contiguous_format)
        kept[name] = value
    return kept


def cut(module: nn.Module, size: float | Mapping[str, int], paths: list[str] | None = None) -> list[Edit]:
    """Cut thin layers with ordered components to their first ones, in place: no decomposition, no training.

    Parameters
    ----------
    module : torch.nn.Module
        A network trained by :class:`OrderedRank`.
    size : float in (0, 1] or dict of ints
        The number of parameters at most, as a share of those of the same network with dense layers; a layer whose
        factors have more numbers than their product is counted as multiplied out. Components are kept across layers by
        their importance relative to the first one of their layer, and at least one of each layer. Or ranks by the path
        of the layer; others stay as they are.
    paths : list of str or None, default=None
        Layers that are cut; None is all thin ones.

    Returns
    -------
    edits : list of Edit

    Raises
    ------
    ValueError
        If `size` is not a share or a dict of ranks, is below the smallest size, or names layers or ranks that are not
        there, or if there is no thin layer.
    """
    thin = {path: layer for path, layer in linear_layers(module) if isinstance(layer, ThinLinear)}
    if not thin:
        raise ValueError(
            "The network has no layers in factors that could be cut: a compressor or an adapter has replaced them. Cut "
            "the network first, and compress or adapt what resized returns."
        )
    if paths is not None:
        thin = {path: thin[path] for path in paths if path in thin}
    ranks = _given_ranks(thin, size) if isinstance(size, Mapping) else _ranks_of_share(module, thin, size)
    edits = []
    for path, rank in ranks.items():
        if rank < thin[path].rank:
            layer = thin[path] if type(thin[path]) is ThinLinear else thin[path].plain()
            shorten(layer, rank)
            edits.append(edited(module, path, layer))
    return edits


def _given_ranks(thin, size):
    for path, rank in size.items():
        if path not in thin:
            raise ValueError(f"size has no layer {path!r} to cut. Use paths of {list(thin)}.")
        if not is_integer(rank, 0) or rank > thin[path].rank:
            raise ValueError(f"size[{path!r}]={rank!r} has to be an int from 0 to the rank {thin[path].rank}.")
    return {path: int(rank) for path, rank in size.items()}


def _ranks_of_share(module, thin, size):
    """Return the ranks by the least threshold on relative importance with which the network is small enough."""
    if not isinstance(size, Real) or isinstance(size, bool) or not 0 < size <= 1:
        raise ValueError(f"size={size!r} has to be a float in (0, 1], or a dict of ranks by the paths of layers.")
    dense = {path: layer.up.shape[0] * layer.down.shape[1] for path, layer in thin.items()}
    factors = {id(p) for layer in thin.values() for p in (layer.up, layer.down)}
    others = sum(p.numel() for p in module.parameters() if id(p) not in factors)
    total = others + sum(dense.values())
    order = []
    for path, layer in thin.items():
        values = importances(layer)
        relative = values / values[0] if len(values) and values[0] > 0 else np.zeros(len(values))
        order += [(j > 0, -share, path) for j, share in enumerate(relative)]  # the first component of each layer first
    ranks, best, count = dict.fromkeys(thin, 0), None, others
    for later, _, path in sorted(order):
        if later and best is None:
            best = _affordable(ranks, count, size, total)
        before = _numbers(thin[path], ranks[path], dense[path])
        ranks[path] += 1
        count += _numbers(thin[path], ranks[path], dense[path]) - before
        if later:
            if count > size * total:
                return best
            best = dict(ranks)
    return best or _affordable(ranks, count, size, total)


def _affordable(ranks, count, size, total):
    if count > size * total:
        raise ValueError(
            f"size={size} is below the smallest network, which has {count / total:.4f} of the {total} parameters. Pass "
            f"at least {count / total:.4f}, or a dict of ranks."
        )
    return dict(ranks)


def _numbers(layer, rank, dense):
    """Return how many numbers the weight has at some rank, multiplied out where that is less."""
    return min(rank * (layer.up.shape[0] + layer.down.shape[1]), dense)


def account(module: nn.Module, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return ranks and importances of thin layers by their paths: what the rule reports."""
    layers = {path: module.get_submodule(path) for path in paths}
    return {
        "ranks": {path: layer.rank for path, layer in layers.items()},  # type: ignore[dict-item]
        "importances": {path: importances(layer) for path, layer in layers.items()},  # type: ignore[arg-type]
    }
