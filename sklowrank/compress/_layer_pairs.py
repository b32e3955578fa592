"""Layers replaced by two layers of low rank: closed forms, and the pass through a network.

A layer is a product ``x @ weight.T`` with rows x, and a bias: a convolution of patches, an embedding of one-hot rows.
Of rank r it is ``x @ first.T @ second.T`` with the orthonormal columns of ``second`` (out, r), and ``first = second.T
@ weight``: methods differ in these columns alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from .._nets.calls import Calls
from .._nets.pairs import Pair, multiply_pairs
from .._nets.recording import (
    LayerReport,
    Moments,
    device_of,
    input_rows,
    keep_sizes,
    layer_type,
    merged,
    merged_by_name,
    moments_of,
    output_rows,
    select_layers,
    watching,
)
from ._rank_budgets import Ladder

_TYPES = ("linear", "conv1d", "conv2d", "conv3d", "embedding", "transposed")
_BLOCK = 1 << 16  # columns of a weight that are projected at once: tables may have millions
_PRIOR = 1e-10  # share of the second moments that inputs have equally in all directions, so that none is arbitrary


class Directions(NamedTuple):
    """Orthonormal directions of the outputs of a layer, and the sum of squares along each, in descending order."""

    vectors: torch.Tensor  # (out, k), float64
    values: torch.Tensor  # (k,), float64

    @property
    def lost(self) -> torch.Tensor:
        """The share (k + 1,) of the sum of squares that is lost at ranks 0 to k; 0 where there is none."""
        left = self.values.flip(0).cumsum(0).flip(0)
        total = left[:1] if len(left) and left[0] > 0 else left.new_ones(1)
        return torch.cat([left, left.new_zeros(1)]) / total


class Factors(NamedTuple):
    """A layer of rank r: ``x @ first.T @ second.T + bias``."""

    first: torch.Tensor  # (r, in), float64
    second: torch.Tensor  # (out, r), float64
    bias: torch.Tensor | None  # (out,), float64


class Seen(NamedTuple):
    """What was seen of a layer: moments of its products, outputs without bias, or of its inputs."""

    moments: Moments
    of_inputs: bool = False
    n_calls: int = 1  # in a pass


# Closed forms


def output_pca(rows: Moments, weight: torch.Tensor, *, of_inputs: bool = False) -> Directions:
    """Return the principal directions of products with a weight (out, in): those of least error with a free bias.

    `rows` are the moments of the products ``x @ weight.T``, or of the inputs x.
    """
    return _directions(rows.covariance, weight, of_inputs)


def input_whitened(rows: Moments, weight: torch.Tensor, *, of_inputs: bool = False) -> Directions:
    """Return the directions of the SVD of a weight times the root of the second moment of x.

    They are those of least error with the bias as it is. `rows` are those of :func:`output_pca`.
    """
    return _directions(rows.second, weight, of_inputs)


def weight_svd(weight: torch.Tensor) -> Directions:
    """Return the left singular vectors of a weight (out, in), whatever the inputs are."""
    if weight.shape[1] > 8 * len(weight):  # tables
        values, vectors = torch.linalg.eigh(_gram(weight))
        return Directions(vectors.flip(1), values.clamp(min=0).flip(0))
    U, s, _ = torch.linalg.svd(weight.double(), full_matrices=False)
    return Directions(U, s.square())


def _directions(second, weight, of_inputs):
    """Return the directions of products by the second moments of them or of inputs.

    Where rows say nothing, as with fewer of them than directions, the weight alone decides.
    """
    if of_inputs:
        values, vectors = torch.linalg.eigh(second)
        values = values.clamp(min=_PRIOR * float(values[-1].clamp(min=0)) or _PRIOR)
        U = torch.linalg.svd(weight.double() @ (vectors * values.sqrt()), full_matrices=False).U
        along = weight.double().T @ U
        return _sorted(U, (along * (second @ along)).sum(0))
    gram = _gram(weight)
    share = _PRIOR * second.trace() / gram.trace().clamp(min=torch.finfo(gram.dtype).tiny)
    vectors = torch.linalg.eigh(second + torch.where(share > 0, share, _PRIOR) * gram).eigenvectors.flip(1)
    return _sorted(vectors, (vectors * (second @ vectors)).sum(0))


def _sorted(vectors, values):
    """Return directions whose values are not negative, nor larger than those before."""
    return Directions(vectors, values.clamp(min=0).cummin(0).values)


def _gram(weight):
    """Return ``weight @ weight.T`` in float64, by blocks."""
    return sum(part.double() @ part.double().T for part in weight.split(_BLOCK, dim=1))


def projected(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    vectors: torch.Tensor,
    mean: torch.Tensor | None = None,
) -> Factors:
    """Return the layer that projects products on orthonormal directions (out, r), about their mean if there is one."""
    first = torch.cat([vectors.T @ part.double() for part in weight.split(_BLOCK, dim=1)], 1)
    bias = None if bias is None else bias.detach().double()
    if mean is not None:
        kept = mean - vectors @ (vectors.T @ mean)
        bias = kept if bias is None else bias + kept
    return Factors(first, vectors, bias)


# Layers


def taken_layers(
    module: nn.Module,
    calls: Calls,
    *,
    types: Sequence[str] = _TYPES,
    modules: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
) -> list[str]:
    """Return the names of the layers that pairs can replace, in the order of a pass: see :func:`select_layers`.

    Raises
    ------
    ValueError
        If there is none, as in a network that is one layer, whose place has no name.
    """
    names = select_layers(module, calls, types=types, modules=modules, exclude=exclude).names
    if names == [""]:
        raise ValueError(f"The network is a single {type(module).__name__} layer. Pass it within torch.nn.Sequential.")
    return names


def taken_with_products(module: nn.Module, taken: Callable[[], list[str]]) -> tuple[list[str], dict[str, Pair]]:
    """Return the names that `taken` gives, and the pairs of linear layers among them, in whose places products are put.

    A layer that has a low rank already gets a lower one by its outputs as a whole, not by those of its two parts. Other
    pairs stay.
    """
    pairs = multiply_pairs(module)
    names = taken()
    for name in pairs.keys() - set(names):
        module.set_submodule(name, pairs.pop(name))
    return names, pairs


def left_layers(module: nn.Module, names: Sequence[str]) -> str:
    """Return the three largest parts with parameters that are not among the named layers, in words."""
    sizes = {
        name or "the network itself": (sum(p.numel() for p in part.parameters(recurse=False)), type(part).__name__)
        for name, part in module.named_modules()
        if name not in names
    }
    largest = sorted(sizes, key=lambda name: -sizes[name][0])[:3]
    return ", ".join(f"{name} ({sizes[name][1]}, {sizes[name][0]} parameters)" for name in largest if sizes[name][0])


def product_weight(layer: Any) -> torch.Tensor:
    """Return the weight (out, in) of the product that a layer is, in its precision; it may be a view."""
    weight = layer.weight.detach()
    return weight.T if layer_type(layer) in ("transposed", "embedding") else weight.flatten(1)


def n_parameters(module: nn.Module) -> int:
    """Return the number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


class _Enough(BaseException):
    """Ends a pass behind the last call of the layers that are looked at."""


def seen_of(
    module: nn.Module, calls: Calls, names: Sequence[str], size: int, n_calls: int | None = None
) -> dict[str, Seen]:
    """Return what the rows of some calls show of the named layers, in one pass.

    Inputs are recorded where they are the narrower side, else outputs. Of an embedding look-ups are counted. Layers
    that no row reaches are left out. A pass is left after `n_calls` calls of the layers.
    """
    collect = partial(_seen_of_calls, list(names), size, n_calls)
    rows, lookups, most = calls.gather(module, collect, _merged_sights)
    return {
        name: _seen(module.get_submodule(name), rows.get(name), lookups.get(name), most[name])
        for name in names
        if name in rows or name in lookups
    }


def _seen_of_calls(names, size, n_calls, module, calls):
    """Return moments of rows, look-ups and numbers of calls in a pass, each by the names of layers."""
    rows: dict[str, Moments] = {}
    lookups: dict[str, torch.Tensor] = {}
    counts: Counter[str] = Counter()

    def see(name, layer, args, out):
        counts[name] += 1
        if layer_type(layer) == "embedding":
            count = torch.bincount(args[0].reshape(-1), minlength=layer.num_embeddings)
            lookups[name] = lookups[name] + count if name in lookups else count
        elif out.numel():
            now = moments_of((input_rows if inputs_are_narrow(layer) else output_rows)(layer, args, out))
            rows[name] = merged(rows[name], now) if name in rows else now
        if counts.total() == n_calls:
            raise _Enough

    most: Counter[str] = Counter()
    with watching(module, names, see), torch.inference_mode():
        for args, kwargs in calls.batches(size, device_of(module)):
            with suppress(_Enough):
                module(*args, **kwargs)
            most |= counts
            counts.clear()
    return rows, lookups, dict(most)


def _merged_sights(a, b):
    return tuple(merged_by_name(merge, x, y) for merge, x, y in zip((merged, torch.add, max), a, b))


def _seen(layer, rows, lookups, n_calls):
    if lookups is not None:
        return Seen(table_moments(layer.weight, lookups), n_calls=n_calls)
    of_inputs = inputs_are_narrow(layer)
    if not of_inputs and layer.bias is not None:
        rows = rows._replace(mean=rows.mean - layer.bias.detach().double())
    return Seen(rows, of_inputs, n_calls)


def inputs_are_narrow(layer: nn.Module) -> bool:
    """Return whether the inputs of a layer have fewer columns than its outputs."""
    n_out, n_in = product_weight(layer).shape
    return n_in < n_out


def table_moments(table: torch.Tensor, counts: torch.Tensor) -> Moments:
    """Return the moments of the rows of a table (n, width), each as often as it counts."""
    at = counts.nonzero()[:, 0]
    total = int(counts.sum())
    mean, scatter = (
        torch.zeros(s, dtype=torch.float64, device=table.device) for s in ((table.shape[1],), 2 * table.shape[1:])
    )
    for part in at.split(_BLOCK):
        mean += counts[part].double() @ table.detach()[part].double() / max(1, total)
    for part in at.split(_BLOCK):
        centred = table.detach()[part].double() - mean
        scatter += (centred * counts[part, None]).T @ centred
    return Moments(total, mean, scatter)


def keeps_zero(layer: nn.Module) -> bool:
    """Return whether a layer has to map a row to zero, so that its pair has no bias."""
    return getattr(layer, "padding_idx", None) is not None


def directions_of(layer: nn.Module, seen: Seen, method: str) -> tuple[Directions, torch.Tensor | None]:
    """Return the directions of a layer by a method, and the mean of its products where they are about it."""
    weight = product_weight(layer)
    if method == "weight_svd":
        return weight_svd(weight), None
    if method == "input_whitened" or keeps_zero(layer):
        return input_whitened(seen.moments, weight, of_inputs=seen.of_inputs), None
    mean = weight.double() @ seen.moments.mean if seen.of_inputs else seen.moments.mean
    return output_pca(seen.moments, weight, of_inputs=seen.of_inputs), mean


def ladder_of(layer: nn.Module, seen: Seen, method: str) -> Ladder:
    """Return what the ranks of a layer cost and lose."""
    directions, mean = directions_of(layer, seen, method)
    n_out, n_in = product_weight(layer).shape
    has_bias = mean is not None or getattr(layer, "bias", None) is not None
    return Ladder(n_parameters(layer), n_in + n_out, n_out * has_bias, directions.lost.cpu())


def pair_of(layer: Any, found: Factors) -> Pair:
    """Return the two layers of low rank that replace one, on its device, in its precision and mode."""
    kind, like, rank = layer_type(layer), layer.weight, len(found.first)
    first: Any
    second: Any
    if kind == "embedding":  # given its weight, it draws none
        kept = {name: getattr(layer, name) for name in ("padding_idx", "scale_grad_by_freq", "sparse")}
        first = nn.Embedding.from_pretrained(found.first.T.to(like, copy=True).contiguous(), freeze=False, **kept)
    elif kind in ("linear", "transposed"):
        first = nn.Linear(found.first.shape[1], rank, bias=False, device="meta")
    else:
        kept = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
        first = type(layer)(layer.in_channels, rank, layer.kernel_size, bias=False, **kept, device="meta")
    how: dict[str, Any] = {"bias": found.bias is not None, "device": "meta"}
    is_convolution = isinstance(first, nn.modules.conv._ConvNd)
    second = (
        type(layer)(rank, len(found.second), 1, **how) if is_convolution else nn.Linear(rank, len(found.second), **how)
    )
    for part, weights in ((first, {"weight": found.first}), (second, {"weight": found.second, "bias": found.bias})):
        for name, value in weights.items():
            if value is not None and getattr(part, name).is_meta:
                value = value.reshape(getattr(part, name).shape).to(like.dtype, copy=True).contiguous()
                part.register_parameter(name, nn.Parameter(value))
    pair = Pair(first, second).train(layer.training).requires_grad_(like.requires_grad)
    pair.kind = str(kind)
    keep_sizes(pair, layer)
    return pair


# The pass


def replace_layers(
    module: nn.Module,
    calls: Calls,
    ranks: Mapping[str, int | None],
    seen: Mapping[str, Seen],
    *,
    method: str,
    size: int,
    sequential: bool = True,
    then: Callable[[str], None] | None = None,
) -> LayerReport:
    """Replace layers by pairs of some ranks, in their order, and return what was done; None keeps a layer.

    `seen` is that of the module before. If `sequential`, each pair is fitted to what the layer gives for inputs that
    have passed the pairs before it. `then` is called with the name of each pair once it is in its place. Call
    :func:`leave_fast_paths` at the end.
    """
    report = LayerReport()
    for name, rank in ranks.items():
        layer: Any = module.get_submodule(name)
        row: dict[str, Any] = {
            "name": name,
            "type": type(layer).__name__,
            "shape": tuple(layer.weight.shape),
            "rank": rank,
        }
        row |= {"n_parameters_before": n_parameters(layer), "n_parameters": n_parameters(layer), "explained": 1.0}
        if rank is not None:
            now = seen[name]
            follows = any(done["rank"] is not None for done in report) and layer_type(layer) != "embedding"
            if sequential and follows and method != "weight_svd":
                now = seen_of(module, calls, [name], size, now.n_calls).get(name, now)
            directions, mean = directions_of(layer, now, method)
            bias = getattr(layer, "bias", None)
            found = projected(product_weight(layer), bias, directions.vectors[:, :rank], mean)
            pair = pair_of(layer, found)
            module.set_submodule(name, pair)
            if then is not None:
                then(name)
            row |= {
                "n_parameters": n_parameters(module.get_submodule(name)),
                "explained": float(1 - directions.lost[rank]),
            }
        report.append(row)
    return report


def leave_fast_paths(module: nn.Module, kinds: tuple[type, ...] = ()) -> None:
    """Let torch's transformer layers call the pairs in them, and layers of other kinds.

    In eval mode they would multiply them out at each call.
    """
    changed = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.TransformerEncoderLayer)
        and any(isinstance(part, (Pair, *kinds)) for part in layer.modules())
    ]
    for layer in changed:
        layer.activation_relu_or_gelu = 0
    for encoder in module.modules():
        if isinstance(encoder, nn.TransformerEncoder) and any(layer in changed for layer in encoder.layers):
            encoder.use_nested_tensor = False
