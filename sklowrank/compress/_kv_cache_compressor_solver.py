"""Keys and values of attention in fewer dimensions: what is seen of them, ranks by budget, and closed forms."""

import inspect
from collections.abc import Sequence
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import nn

from .._nets.calls import outputs_of
from .._nets.holding import Held
from .._nets.passes import calls_of
from .._nets.recording import LayerReport, Moments, merged, merged_by_name, moments_of, run, select_layers, watching
from .._nets.wrapping import relative_error
from ._compact_attention import CompactAttention, HeadMaps, heads_of
from ._low_rank_compressor_solver import check_finite

_FLOOR = 1e-10  # relative size of eigenvalues below which moments are taken for larger: roots are divided by
_ARGUMENTS = inspect.signature(nn.MultiheadAttention.forward)


class CacheOptions(NamedTuple):
    """What :func:`compress_caches` reads of the parameters."""

    n_components: Any  # int or float
    group_ranks: str
    init: str
    batch_size: int
    modules: str | Sequence[str] | None
    exclude: str | Sequence[str] | None


class Seen(NamedTuple):
    """The moments of what an attention layer gets."""

    query: Moments
    key: Moments
    value: Moments


class Head(NamedTuple):
    """What is left of one head at any rank: of full width are the maps, descending the squares that they keep."""

    maps: HeadMaps
    keys: torch.Tensor  # (w,)
    values: torch.Tensor  # (w,)


class CompressedCaches(NamedTuple):
    """What was done to a network."""

    report: LayerReport
    ratio: float
    error: float  # relative, of the outputs


def compress_caches(held: Held, X: Any, options: CacheOptions, device: torch.device) -> CompressedCaches:
    """Replace the attention layers of a held network in place.

    Raises
    ------
    ValueError
        If outputs are not finite, there is no such layer, or `n_components` is above the width of a head.
    """
    calls, module = calls_of(held, X), held.module.to(device)
    outputs = outputs_of(module, calls, options.batch_size, device)
    check_finite(outputs)
    types = ("MultiheadAttention",)
    names = select_layers(module, calls, types=types, modules=options.modules, exclude=options.exclude).names
    seen = seen_of(module, calls, names, options.batch_size)
    report = LayerReport()
    for name in names:
        layer: Any = module.get_submodule(name)
        heads = principal_heads(layer, seen[name]) if options.init == "pca" else bilinear_heads(layer, seen[name])
        ranks = ranks_of(heads, options, name)
        module.set_submodule(name, CompactAttention(layer, [cut(*parts) for parts in zip(heads, *ranks)]))
        report.append(_reported(name, layer, *ranks))
    numbers = [sum(row[key] for row in report) for key in ("numbers_per_token", "numbers_per_token_before")]
    error = relative_error(outputs_of(module, calls, options.batch_size, device), outputs)
    return CompressedCaches(report, numbers[0] / numbers[1], error)


def _reported(name, layer, key_ranks, value_ranks):
    return {
        "name": name,
        "key_ranks": key_ranks,
        "value_ranks": value_ranks,
        "numbers_per_token_before": 2 * layer.embed_dim,
        "numbers_per_token": sum(key_ranks) + sum(value_ranks),
    }


# What is seen


def seen_of(module: nn.Module, calls: Any, names: Sequence[str], size: int) -> dict[str, Seen]:
    """Return the moments of the tokens that attention layers get; keys that are padding do not count."""
    return calls.gather(module, partial(_seen_of_calls, list(names), size), partial(merged_by_name, _merged_sights))


def _merged_sights(a, b):
    return Seen(*(merged(x, y) for x, y in zip(a, b)))


def _seen_of_calls(names, size, module, calls):
    found: dict[str, Seen] = {}

    def hook(name):
        def see(layer, args, kwargs, out):
            now = Seen(*(moments_of(rows) for rows in _tokens(layer, args, kwargs)))
            found[name] = _merged_sights(found[name], now) if name in found else now

        return module.get_submodule(name).register_forward_hook(see, with_kwargs=True)

    hooks = [hook(name) for name in names]
    try:
        with watching(module, names, lambda *_: None):
            run(module, calls, size)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def _tokens(layer, args, kwargs):
    """Return the queries, keys and values of a call as rows (n, embed_dim)."""
    given = _ARGUMENTS.bind(layer, *args, **kwargs).arguments
    query, key, value = given["query"], given["key"], given["value"]
    padding = given.get("key_padding_mask")
    if key.ndim == 3 and not layer.batch_first:
        key, value = key.transpose(0, 1), value.transpose(0, 1)
    key, value = key.reshape(-1, key.shape[-1]), value.reshape(-1, value.shape[-1])
    if padding is not None:
        real = ~padding.flatten() if padding.dtype == torch.bool else padding.flatten().isfinite()
        key, value = key[real], value[real]
    return query.reshape(-1, query.shape[-1]), key, value


# Closed forms


def bilinear_heads(layer: nn.MultiheadAttention, seen: Seen) -> list[Head]:
    """Return what keeps scores and outputs: the best bilinear form of each rank, and the best values for the output.

    Scores need ``q' k`` alone, of which softmax ignores what all keys share: of the roots Q and K of the uncentred
    moment of queries and the covariance of keys, the SVD of ``Q K`` gives both maps. Values are mapped by the SVD of
    the head's block of the output layer times the root of their covariance; their mean is kept.
    """
    found = []
    q, k, v = heads_of(layer)
    blocks = layer.out_proj.weight.detach().double().unflatten(1, (layer.num_heads, -1)).unbind(1)
    for Wq, bq, Wk, Wv, bv, out in zip(*q, k[0], *v, blocks):
        mean = Wq @ seen.query.mean + bq
        Q, Q_inverse = _roots(Wq @ seen.query.covariance @ Wq.T + torch.outer(mean, mean))
        K, K_inverse = _roots(Wk @ seen.key.covariance @ Wk.T)
        U, s, Vh = torch.linalg.svd(Q @ K)
        root = s.clamp(min=0).sqrt()[:, None]
        R, R_inverse = _roots(Wv @ seen.value.covariance @ Wv.T)
        _, t, Wh = torch.linalg.svd(out @ R, full_matrices=False)
        back = R @ Wh.T  # out @ back has the leading directions of out @ R
        maps = HeadMaps(root * U.T @ Q_inverse, root * Vh @ K_inverse, Wh @ R_inverse, back, Wv @ seen.value.mean + bv)
        found.append(Head(maps, s.square(), t.square()))
    return found


def principal_heads(layer: nn.MultiheadAttention, seen: Seen) -> list[Head]:
    """Return the principal components of the keys and of the values of each head."""
    found = []
    _, k, v = heads_of(layer)
    for Wk, Wv, bv in zip(k[0], *v):
        keys, E = _eigen(Wk @ seen.key.covariance @ Wk.T)
        values, F = _eigen(Wv @ seen.value.covariance @ Wv.T)
        found.append(Head(HeadMaps(E.T, E.T, F.T, F, Wv @ seen.value.mean + bv), keys, values))
    return found


def cut(head: Head, key_rank: int, value_rank: int) -> HeadMaps:
    """Return the maps of a head at some ranks; of full width nothing is changed."""
    query, key, value, out, mean = head.maps
    w = key.shape[1]
    eye = torch.eye(w, dtype=key.dtype, device=key.device)
    if key_rank == w:
        query, key = eye, eye
    if value_rank == w:
        value, out, mean = eye, eye, torch.zeros_like(mean)
    return HeadMaps(query[:key_rank], key[:key_rank], value[:value_rank], out[:, :value_rank], mean)


def _eigen(S):
    """Return eigenvalues, descending, and eigenvectors of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(S)
    return values.flip(0).clamp(min=0), vectors.flip(1)


def _roots(S):
    """Return the symmetric root of a positive semi-definite matrix and its inverse, small eigenvalues raised."""
    values, vectors = _eigen(S)
    values = values.clamp(min=max(_FLOOR * float(values[0]), torch.finfo(S.dtype).tiny)).sqrt()
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


# Ranks


def ranks_of(heads: Sequence[Head], options: CacheOptions, name: str) -> tuple[list[int], list[int]]:
    """Return the ranks of the keys and of the values of the heads.

    "adaptive" spreads what "uniform" takes in all: the largest squares first, each as a share of those of all keys, or
    of all values; at least one for each.
    """
    width, given = len(heads[0].keys), options.n_components
    if isinstance(given, Integral) and given > width:
        raise ValueError(
            f"n_components={given} is above the width {width} of the heads of {name}. Pass at most {width}."
        )
    each = given if isinstance(given, Integral) else max(1, int(given * width + 1e-9))
    if options.group_ranks == "uniform":
        return [each] * len(heads), [each] * len(heads)
    n_numbers = 2 * len(heads) * (each if isinstance(given, Integral) else max(1.0, given * width)) + 1e-9
    keys, values = (torch.stack(part).cpu() for part in ([h.keys for h in heads], [h.values for h in heads]))
    shares = torch.cat([part / part.sum().clamp(min=torch.finfo(part.dtype).tiny) for part in (keys, values)])
    shares[:, 0] = torch.inf
    taken = shares.flatten().argsort(descending=True, stable=True)[: int(n_numbers)] // width
    ranks = torch.bincount(taken, minlength=len(shares)).tolist()
    return ranks[: len(heads)], ranks[len(heads) :]
