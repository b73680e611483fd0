"""Operations that are worth a version of their own on the CPU, in torch eager mode.

What makes a graph good for the chip (no branches on data, functional updates) costs an eager CPU dearly:
a copy of the KV pool per layer, a top-k nobody needs. Parity with the reference is tested for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from outcrop_kernels import reference

_HIDDEN = torch.where((torch.arange(256)[:, None] >> torch.arange(8)) & 1 == 1, 0.0, reference.FORBIDDEN)
"""float32 [256, 8]: what a byte of a token mask adds to the logits of its tokens."""


def kv_write(pool: Tensor, slots: Tensor, values: Tensor) -> Tensor:
    """Writes in place: a functional update would copy the pool in every layer of every step."""
    size = pool.shape[1]
    rows = torch.where(values.abs() <= reference.FINITE_MAX, values, 0.0)
    return pool.index_put_((slots // size, slots % size), rows.to(pool.dtype))


def paged_attention(
    query: Tensor, key_pool: Tensor, value_pool: Tensor, block_tables: Tensor, positions: Tensor
) -> Tensor:
    """Through torch's fused attention, which never materialises the scores."""
    rows, _, heads, dim = query.shape
    _, size, kv_heads, _ = key_pool.shape
    span = block_tables.shape[1] * size
    table = block_tables.reshape(-1)
    key = key_pool.index_select(0, table).view(rows, span, kv_heads, dim).transpose(1, 2)
    value = value_pool.index_select(0, table).view(rows, span, kv_heads, dim).transpose(1, 2)
    visible = torch.arange(span, dtype=torch.int32) <= positions[:, None, :, None]
    mixed = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key, value, attn_mask=visible, enable_gqa=heads != kv_heads
    )
    return mixed.transpose(1, 2)


def edit_logits(
    logits: Tensor, allowed: Tensor | None, bias: Tensor | None, repetition: Tensor | None
) -> Tensor:
    """In place, and only where something changes: few tokens of a row are penalised, few rows masked. A
    byte of the mask becomes eight logits through a table, and adding FORBIDDEN leaves nothing of what was
    there."""
    if repetition is not None:
        rows, tokens = (repetition != 1).nonzero(as_tuple=True)
        values, factors = logits[rows, tokens], repetition[rows, tokens]
        logits[rows, tokens] = torch.where(values > 0, values / factors, values * factors)
    if bias is not None:
        logits += bias
    if allowed is not None:
        masked = (allowed != -1).any(dim=1).nonzero()[:, 0]
        packed = allowed[masked].view(torch.uint8).to(torch.int32).reshape(-1)
        hidden = _HIDDEN.index_select(0, packed).reshape(len(masked), 32 * allowed.shape[1])
        logits[masked] += hidden[:, : logits.shape[1]]
    return logits


def sample(logits: Tensor, sampling: Tensor, draws: Tensor) -> Tensor:
    """Top-k only for the rows that draw: it costs more than all else for a batch of greedy ones."""
    tokens = torch.argmax(logits, dim=-1).to(torch.int32)
    drawing = (sampling[:, 0] > 0).nonzero()[:, 0]
    if len(drawing):
        tokens[drawing] = reference.sample(logits[drawing], sampling[drawing], draws[drawing])
    return tokens


IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "kv_write": kv_write,
    "paged_attention": paged_attention,
    "edit_logits": edit_logits,
    "sample": sample,
}
