"""Attention of projected queries, keys and values, as torch's MultiheadAttention computes it."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor,
           key: Tensor,
           value: Tensor,
           num_heads: int,
           mask: Tensor | None = None,
           dropout: float = 0.0,
           need_weights: bool = True) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K^T / sqrt(d)) V in each head.

    Args:
        query: (B, L, E), projected; d = E / num_heads.
        key, value: (B, S, E), projected.
        num_heads: Number of heads, a divisor of E.
        mask: Added to the scores, broadcastable to (B, num_heads, L, S).
        dropout: Probability with which a weight becomes zero.
        need_weights: Whether the weights of the attention are returned, too. Without them torch
            may compute it in one operator.

    Returns:
        (B, L, E), and None or the weights, (B, num_heads, L, S).
    """
    q, k, v = (_heads(each, num_heads) for each in (query, key, value))
    weights = None
    if need_weights:
        scores = (q * math.sqrt(1.0 / q.shape[-1])) @ k.transpose(-2, -1)
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        weights = F.dropout(weights, dropout) if dropout > 0 else weights
        attended = weights @ v
    else:
        if mask is not None and mask.dtype != q.dtype:
            mask = mask.to(q.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
    return attended.transpose(1, 2).reshape(query.shape), weights


def attention_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, num_heads: int,
                   dtype: torch.dtype) -> Tensor | None:
    """The two masks of torch's MultiheadAttention as one that is added to the scores.

    Args:
        attn_mask: (L, S) or (B num_heads, L, S); True, or -inf, where nothing is attended to.
        key_padding_mask: (B, S), likewise.
        num_heads: Number of heads.
        dtype: That of the queries.

    Returns:
        (B or 1, num_heads or 1, L or 1, S), or None without masks.

    Raises:
        ValueError: A mask has another number of dimensions.
    """
    masks = []
    if attn_mask is not None:
        if attn_mask.dim() not in (2, 3):
            raise ValueError('attn_mask must be (L, S) or (B num_heads, L, S), but got the shape '
                             f'{tuple(attn_mask.shape)}.')
        shape = (-1, num_heads) if attn_mask.dim() == 3 else (1, 1)
        masks.append(_added(attn_mask, dtype).view(*shape, *attn_mask.shape[-2:]))
    if key_padding_mask is not None:
        if key_padding_mask.dim() != 2:
            raise ValueError('key_padding_mask must be (B, S), but got the shape '
                             f'{tuple(key_padding_mask.shape)}.')
        masks.append(_added(key_padding_mask, dtype)[:, None, None])
    return sum(masks[1:], masks[0]) if masks else None


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers that are added."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, L, E) as (B, num_heads, L, E / num_heads)."""
    return x.view(*x.shape[:2], num_heads, -1).transpose(1, 2)
