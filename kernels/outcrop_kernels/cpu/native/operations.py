"""The native kernels as operations of the registry.

Activations are float32; weights and KV are float32 or bfloat16, in which a weight takes half the time to
read. Outputs come from `recording.empty`, so that a sequence of operations can be recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from outcrop_kernels import reference
from outcrop_kernels.cpu.native import quantised
from outcrop_kernels.cpu.native.library import library
from outcrop_kernels.cpu.native.quantised import PANEL
from outcrop_kernels.cpu.native.recording import contiguous, empty
from outcrop_kernels.quantised import Quantised

if TYPE_CHECKING:
    from outcrop_kernels.registry import Operations

_FORMATS = {torch.float32: 0, torch.bfloat16: 1}


def pack(weight: Tensor | Quantised[Tensor]) -> Tensor:
    """Vectors in float32. A matrix [out, in] in panels: [out / 16, in, 16], or [out / 16, in / 2, 16, 2] in
    bfloat16, or as `quantised.pack` has them. One that does not divide into panels is plain float32."""
    if isinstance(weight, Quantised):
        return quantised.pack(weight) if quantised.fits(weight) else reference.dequantised(weight)
    features, depth = weight.shape if weight.dim() == 2 else (1, 1)
    if features % PANEL or depth % 2:
        return weight.to(torch.float32)
    shape = (depth, PANEL) if weight.dtype is torch.float32 else (depth // 2, PANEL, 2)
    weight = weight.contiguous()
    packed = torch.empty(features // PANEL, *shape, dtype=weight.dtype)
    library().outcrop_pack(weight.data_ptr(), packed.data_ptr(), features, depth, _FORMATS[weight.dtype])
    return packed


def take(table: Tensor, indices: Tensor) -> Tensor:
    """Rows of a float32 or bfloat16 table, in float32."""
    return _rows(table, indices, 0)


def pick(x: Tensor, places: Tensor) -> Tensor:
    return _rows(_floats(x), places, x.shape[0] // places.shape[0])


def _rows(table: Tensor, indices: Tensor, apart: int) -> Tensor:
    """Row indices[i] + i * apart of a table for each i."""
    (count,), features = indices.shape, table.shape[1]
    y = empty(count, features)
    library().outcrop_take(
        table.data_ptr(), indices.data_ptr(), y.data_ptr(), count, features, apart, _FORMATS[table.dtype]
    )
    return y


def step_tokens(token_ids: Tensor, use_last: Tensor, kept: Tensor, slots: Tensor) -> Tensor:
    rows, width = token_ids.shape
    tokens = empty(rows, width, dtype=torch.int32)
    library().outcrop_step_tokens(
        token_ids.data_ptr(),
        use_last.data_ptr(),
        kept.data_ptr(),
        slots.data_ptr(),
        tokens.data_ptr(),
        rows,
        width,
    )
    return tokens


def keep_tokens(kept: Tensor, slots: Tensor, sampled: Tensor, tokens: Tensor) -> Tensor:
    """Writes in place."""
    library().outcrop_keep_tokens(
        kept.data_ptr(), slots.data_ptr(), sampled.data_ptr(), tokens.data_ptr(), slots.numel()
    )
    return kept


def add(a: Tensor, b: Tensor) -> Tensor:
    a, b = _floats(a), _floats(b)
    y = empty(*a.shape)
    library().outcrop_add(a.data_ptr(), b.data_ptr(), y.data_ptr(), a.numel())
    return y


def linear(x: Tensor, weight: Tensor) -> Tensor:
    x = _floats(x)
    if weight.dtype in (torch.int8, torch.uint8):
        return quantised.linear(x, weight)
    if weight.dim() == 2:
        return functional.linear(x, weight)
    rows, depth = x.shape
    features = weight.shape[0] * PANEL
    if weight.dtype is torch.bfloat16 and library().outcrop_narrows():
        narrowed = empty(rows, depth // 2)
        library().outcrop_narrow(x.data_ptr(), narrowed.data_ptr(), rows * depth)
        x = narrowed
    y = empty(rows, features)
    library().outcrop_linear(
        x.data_ptr(), weight.data_ptr(), y.data_ptr(), rows, features, depth, _FORMATS[weight.dtype]
    )
    return y


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = _floats(x)
    y = empty(*x.shape)
    library().outcrop_rms_norm(x.data_ptr(), None, weight.data_ptr(), None, y.data_ptr(), *x.shape, eps)
    return y


def add_rms_norm(
    ops: Operations, x: Tensor, update: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    x, update = _floats(x), _floats(update)
    total, y = empty(*x.shape), empty(*x.shape)
    library().outcrop_rms_norm(
        x.data_ptr(),
        update.data_ptr(),
        weight.data_ptr(),
        total.data_ptr(),
        y.data_ptr(),
        *x.shape,
        eps,
    )
    return total, y


def cached_qkv(
    ops: Operations,
    x: Tensor,
    norm: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    eps: float,
    pools: tuple[Tensor, Tensor],
    slots: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Writes in place."""
    made, (keys, values) = linear(rms_norm(x, norm, eps), weight), pools
    tokens, (kv_heads, dim) = made.shape[0], keys.shape[2:]
    query = empty(tokens, heads, dim)
    library().outcrop_rope_cache(
        made.data_ptr(),
        cos.data_ptr(),
        sin.data_ptr(),
        slots.data_ptr(),
        query.data_ptr(),
        keys.data_ptr(),
        values.data_ptr(),
        tokens,
        heads,
        kv_heads,
        dim,
        *_pages(keys, values),
    )
    return query, keys, values


def kv_pool(blocks: int, block_size: int, kv_heads: int, dim: int, dtype: torch.dtype) -> Tensor:
    """Within a block the tokens of one head lie side by side: attention reads the keys of one head at a time,
    and memory is quick where what is read next follows."""
    return reference.kv_pool(blocks, kv_heads, block_size, dim, dtype).transpose(1, 2)


def paged_attention(
    query: Tensor, key_pool: Tensor, value_pool: Tensor, block_tables: Tensor, positions: Tensor
) -> Tensor:
    query = _floats(query)
    rows, width, heads, dim = query.shape
    out, (size, kv_heads), table_width = empty(*query.shape), key_pool.shape[1:3], block_tables.shape[1]
    stretches = library().outcrop_stretches(width, heads, kv_heads, dim, table_width * size)
    found = empty(rows * width * heads * stretches * (dim + 2))
    library().outcrop_attention(
        query.data_ptr(),
        key_pool.data_ptr(),
        value_pool.data_ptr(),
        block_tables.data_ptr(),
        positions.data_ptr(),
        found.data_ptr(),
        out.data_ptr(),
        rows,
        width,
        heads,
        kv_heads,
        dim,
        table_width,
        stretches,
        *_pages(key_pool, value_pool),
    )
    return out


def swiglu(gate_up: Tensor) -> Tensor:
    gate_up = _floats(gate_up)
    tokens, both = gate_up.shape
    y = empty(tokens, both // 2)
    library().outcrop_swiglu(gate_up.data_ptr(), y.data_ptr(), tokens, both // 2)
    return y


def peak(x: Tensor) -> Tensor:
    x = _floats(x)
    rows, features = x.shape
    y = empty(rows)
    library().outcrop_peak(x.data_ptr(), y.data_ptr(), rows, features)
    return y


def both_finite(a: Tensor, b: Tensor) -> Tensor:
    a, b = _floats(a), _floats(b)
    finite = empty(a.numel(), dtype=torch.int32)
    library().outcrop_both_finite(a.data_ptr(), b.data_ptr(), finite.data_ptr(), a.numel())
    return finite


def sample(logits: Tensor, sampling: Tensor, draws: Tensor) -> Tensor:
    logits, sampling, draws = _floats(logits), _floats(sampling), _floats(draws)
    rows, vocab = logits.shape
    tokens = empty(rows, dtype=torch.int32)
    library().outcrop_sample(
        logits.data_ptr(), sampling.data_ptr(), draws.data_ptr(), tokens.data_ptr(), rows, vocab
    )
    return tokens


def _floats(x: Tensor) -> Tensor:
    if x.dtype is not torch.float32:
        raise TypeError(f"native operations take float32 activations, not {x.dtype}")
    return contiguous(x)


def _pages(keys: Tensor, values: Tensor) -> tuple[int, int, int, int, int]:
    """Where things lie in the pools of keys and of values, as Pages in kernels.h: block size, elements
    between blocks, tokens and heads, and the format."""
    if keys.stride() != values.stride():
        raise ValueError("keys and values must lie in the same order")
    block, token, head, one = keys.stride()
    if one != 1:
        raise ValueError("the numbers of one head of a KV pool must lie side by side")
    return keys.shape[1], block, token, head, _FORMATS[keys.dtype]


IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "pack": pack,
    "take": take,
    "pick": pick,
    "step_tokens": step_tokens,
    "keep_tokens": keep_tokens,
    "add": add,
    "linear": linear,
    "rms_norm": rms_norm,
    "add_rms_norm": add_rms_norm,
    "cached_qkv": cached_qkv,
    "kv_pool": kv_pool,
    "paged_attention": paged_attention,
    "swiglu": swiglu,
    "peak": peak,
    "both_finite": both_finite,
    "sample": sample,
}
