"""Multi-head attention by four linear layers, which can be replaced one by one."""

from typing import Any

import torch
from torch import nn


class SplitAttention(nn.Module):
    """What :class:`torch.nn.MultiheadAttention` computes, with linear layers that are called."""

    in_proj_bias = None  # torch's transformer layers take this for a reason to call their parts
    _qkv_same_embed_dim = False

    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        self.embed_dim, self.num_heads = attention.embed_dim, attention.num_heads
        self.dropout, self.batch_first = attention.dropout, attention.batch_first
        weights: Any = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        if attention.in_proj_weight is not None:
            weights = attention.in_proj_weight.chunk(3)
        biases: Any = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        self.query, self.key, self.value = (_linear(*parts) for parts in zip(weights, biases))
        self.out = _linear(attention.out_proj.weight, attention.out_proj.bias)
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
        is_batch = query.ndim == 3
        q, k, v = self.query(query), self.key(key), self.value(value)
        if not is_batch:
            q, k, v = q[None], k[None], v[None]
        elif not self.batch_first:
            q, k, v = (part.transpose(0, 1) for part in (q, k, v))
        n, length = q.shape[:2]
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
        mask = joined_mask(attn_mask, key_padding_mask, n, self.num_heads, q)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
            weights = torch.softmax(scores if mask is None else scores + mask, 3)
            weights = nn.functional.dropout(weights, dropout) if dropout else weights
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if is_batch else weights[0]
        else:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        mixed = mixed.transpose(1, 2).reshape(n, length, self.embed_dim)
        if not is_batch:
            mixed = mixed[0]
        elif not self.batch_first:
            mixed = mixed.transpose(0, 1)
        return self.out(mixed), weights


def _linear(weight, bias):
    """Return a layer with weights of its own."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return layer


def joined_mask(
    attn_mask: torch.Tensor | None, key_padding_mask: torch.Tensor | None, n: int, n_heads: int, like: torch.Tensor
) -> torch.Tensor | None:
    """Return both masks as what is added to scores (n, heads, queries, keys); True forbids."""
    mask = None
    if attn_mask is not None:
        mask = _added(attn_mask, like)
        mask = mask.unflatten(0, (n, n_heads)) if mask.ndim == 3 else mask
    if key_padding_mask is not None:
        padding = _added(key_padding_mask, like).reshape(n, 1, 1, -1)
        mask = padding if mask is None else mask + padding
    return mask


def _added(mask, like):
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)


def split_attention(module: nn.Module) -> None:
    """Replace the attention layers in a module, but for those that add keys and values of their own."""
    for name, layer in list(module.named_modules()):
        plain = type(layer) is nn.MultiheadAttention and layer.bias_k is None and not layer.add_zero_attn
        if name and plain:
            module.set_submodule(name, SplitAttention(layer))
