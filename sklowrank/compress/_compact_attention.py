"""Multi-head attention with fewer numbers per token and head in its keys and values."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from ._split_attention import joined_mask


class HeadMaps(NamedTuple):
    """What is done to the queries, keys and values of one head, whose width is w; all in float64.

    Scores are those of ``query @ q`` and ``key @ k``; values are near ``out @ value @ (v - mean) + mean``.
    """

    query: torch.Tensor  # (r, w)
    key: torch.Tensor  # (r, w)
    value: torch.Tensor  # (s, w)
    out: torch.Tensor  # (w, s)
    mean: torch.Tensor  # (w,)


class CompactAttention(nn.Module):
    """What :class:`torch.nn.MultiheadAttention` computes, with narrower keys and values, which can be stored.

    Parameters
    ----------
    attention : torch.nn.MultiheadAttention
        The layer whose place it takes.
    maps : list of HeadMaps
        What is done to each head.
    """

    in_proj_bias = None  # torch's transformer layers take this for a reason to call their parts
    _qkv_same_embed_dim = False

    def __init__(self, attention: nn.MultiheadAttention, maps: Sequence[HeadMaps]):
        super().__init__()
        self.embed_dim, self.num_heads = attention.embed_dim, attention.num_heads
        self.head_dim = attention.embed_dim // attention.num_heads
        self.dropout, self.batch_first = attention.dropout, attention.batch_first
        self.key_ranks = [len(head.key) for head in maps]
        self.value_ranks = [len(head.value) for head in maps]

        q, k, v = heads_of(attention)
        mean = [head.mean for head in maps]
        self.query = _stacked([head.query for head in maps], q, attention)
        self.key = _stacked([head.key for head in maps], k, attention)
        self.value = _stacked([head.value for head in maps], v, attention, mean)
        self.out = _out([head.out for head in maps], attention, mean)
        self.train(attention.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the outputs and, where they are needed, the weights of the attention."""
        if is_causal and attn_mask is None:
            raise ValueError("is_causal=True needs attn_mask, as in torch.nn.MultiheadAttention. Pass the mask.")
        is_batch, at = query.ndim == 3, 0 if self.batch_first else 1
        if not is_batch:
            query, key, value = query.unsqueeze(at), key.unsqueeze(at), value.unsqueeze(at)
        cache, weights = self.cache(key, value), None
        if need_weights:
            out, weights = self.attend(query, cache, attn_mask, key_padding_mask)
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if is_batch else weights[0]
        else:
            out = self._fused(query, cache, attn_mask, key_padding_mask)
        return (out if is_batch else out.squeeze(at)), weights

    def cache(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is stored of tokens: (batch, tokens, sum of key_ranks) and (batch, tokens, sum of value_ranks).

        Tokens come as the layer takes them: with `batch_first` as (batch, tokens, embed_dim).
        """
        k, v = self.key(key), self.value(value)
        return (k, v) if self.batch_first else (k.transpose(0, 1), v.transpose(0, 1))

    def attend(
        self,
        query: torch.Tensor,
        cache: tuple[torch.Tensor, torch.Tensor],
        attn_mask: torch.Tensor | None = None,
        key_padding_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs for queries on stored tokens, and the weights (batch, heads, queries, tokens)."""
        q, k, v, mask = self._seen(query, cache, attn_mask, key_padding_mask)
        scores = q @ k.transpose(2, 3) * self.head_dim**-0.5
        weights = torch.softmax(scores if mask is None else scores + mask, 3)
        weights = nn.functional.dropout(weights, self.dropout) if self.training and self.dropout else weights
        return self._mapped_out(weights @ v), weights

    def _fused(self, query, cache, attn_mask, key_padding_mask):
        """Return the outputs alone, by torch's fused function."""
        q, k, v, mask = self._seen(query, cache, attn_mask, key_padding_mask)
        dropout = self.dropout if self.training else 0.0
        scale = self.head_dim**-0.5
        return self._mapped_out(nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale))

    def _seen(self, query, cache, attn_mask, key_padding_mask):
        """Return queries, keys and values of heads (batch, heads, tokens, rank), and what is added to their scores."""
        q = self.query(query)
        q = q if self.batch_first else q.transpose(0, 1)
        q, k, v = _by_head(q, self.key_ranks), _by_head(cache[0], self.key_ranks), _by_head(cache[1], self.value_ranks)
        return q, k, v, joined_mask(attn_mask, key_padding_mask, len(q), self.num_heads, q)

    def _mapped_out(self, mixed):
        """Return the outputs of what heads have mixed."""
        out = self.out(torch.cat([part[..., :rank] for part, rank in zip(mixed.unbind(1), self.value_ranks)], 2))
        return out if self.batch_first else out.transpose(0, 1)


def heads_of(attention: nn.MultiheadAttention) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return weights (heads, w, embed_dim) and biases (heads, w) of queries, keys and values, in float64."""
    weight, bias = attention.in_proj_weight.detach().double(), attention.in_proj_bias
    biases = weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
    parts = zip(weight.chunk(3), biases.chunk(3))
    return [tuple(t.unflatten(0, (attention.num_heads, -1)) for t in part) for part in parts]


def _by_head(x, ranks):
    """Return (n, tokens, sum of ranks) as (n, heads, tokens, largest rank), zeros behind lower ranks."""
    if len(set(ranks)) == 1:
        return x.unflatten(2, (len(ranks), -1)).transpose(1, 2)
    widest = max(ranks)
    return torch.stack([nn.functional.pad(part, (0, widest - part.shape[2])) for part in x.split(ranks, 2)], 1)


def _stacked(maps, heads, attention, mean=None):
    """Return a linear layer that makes what maps make of the heads, less `mean`."""
    weights, biases = heads
    weight = torch.cat([M @ W for M, W in zip(maps, weights)])
    shifted = biases if mean is None else [b - m for b, m in zip(biases, mean)]
    bias = torch.cat([M @ b for M, b in zip(maps, shifted)])
    return _linear(weight, bias, attention)


def _out(maps, attention, mean):
    """Return a linear layer of the outputs, with the means of values, whose weights add up to one, in its bias."""
    layer = attention.out_proj
    blocks = layer.weight.detach().double().unflatten(1, (len(maps), -1)).unbind(1)  # (embed_dim, w) of each head
    bias = torch.stack([O @ m for O, m in zip(blocks, mean)]).sum(0)
    bias = bias if layer.bias is None else bias + layer.bias.detach().double()
    return _linear(torch.cat([O @ M for O, M in zip(blocks, maps)], 1), bias, attention)


def _linear(weight, bias, attention):
    """Return a layer in the precision of the attention; without a bias of zeros."""
    like = attention.in_proj_weight
    has_bias = bool((bias != 0).any())
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias, device="meta")
    layer.weight = nn.Parameter(weight.to(like), requires_grad=like.requires_grad)
    if has_bias:
        layer.bias = nn.Parameter(bias.to(like), requires_grad=like.requires_grad)
    return layer
