"""Plain torch definitions of every operation: the contract, and the oracle for all other versions.

They keep the chip's rules (no 64-bit bulk integers, no f64, no sort, no -inf, no element scatter), so the
same text lowers for Neuron and runs in eager mode on the CPU; `neuron.py` has what the chip's compiler wants
said in another way. Comparisons are between tensors: with a Python number, torch_xla widens both sides to 64
bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from outcrop_kernels.quantised import GROUP, Quantised
from outcrop_kernels.zeros import untouched_zeros

if TYPE_CHECKING:
    from outcrop_kernels.registry import Operations

MASKED = -30000.0
"""Score of a hidden position. Finite, since -inf turns to NaN on the chip; exp of it is 0 in float32."""
TOPK_CAP = 256
"""Candidates that sampling considers: the chip's top-k has a fixed width."""
FORBIDDEN = -1.0e30
"""Logit of a token that must not be sampled: below any model's, and at no temperature likely."""
FINITE_MAX = 3.0e38
"""Largest magnitude taken for a number; comparisons with NaN are false, so NaN fails it too."""
LARGEST_CODE = 32767
"""Of a quantised activation."""
LEAST_PEAK = 1e-30
"""A group of activations that are all smaller counts as zeros: its scale's reciprocal would overflow."""


def pack(weight: Tensor | Quantised[Tensor]) -> Tensor:
    """A weight in the form in which this target's operations read it; done once, when a model is loaded.
    A matrix that stays quantised is multiplied by `linear_int8`, and has a scale for each output feature.
    Here, matrices [out, in] and vectors as they are, and the numbers of quantised ones in float32."""
    return dequantised(weight) if isinstance(weight, Quantised) else weight


def take(table: Tensor, indices: Tensor) -> Tensor:
    """Rows indices [N] int32 of table [?, F] -> [N, F]."""
    return table.index_select(0, indices)


def pick(x: Tensor, places: Tensor) -> Tensor:
    """Of x [R * Q, F], the tokens of R rows, each row's token at its place [R] int32 -> [R, F]."""
    rows = places.shape[0]
    first = torch.arange(rows, dtype=torch.int32, device=places.device) * (x.shape[0] // rows)
    return x.index_select(0, first + places)


def step_tokens(token_ids: Tensor, use_last: Tensor, kept: Tensor, slots: Tensor) -> Tensor:
    """The tokens that a step takes, int32 [R, Q]: token_ids, or where use_last [R, Q] is not 0 what
    `keep_tokens` kept for the row's slot [R]."""
    last = kept.index_select(0, slots)
    return torch.where(use_last.to(torch.bool), last[:, None], token_ids)


def keep_tokens(kept: Tensor, slots: Tensor, sampled: Tensor, tokens: Tensor) -> Tensor:
    """The table kept [slots + 1] int32 with a token [R] at the slot [R] of each row where sampled [R] is not
    0. Its last entry is nobody's. Returns the new table; an implementation may write in place."""
    nobody = torch.full_like(slots, kept.shape[0] - 1)
    return torch.index_put(kept, (torch.where(sampled.to(torch.bool), slots, nobody),), tokens)


def add(a: Tensor, b: Tensor) -> Tensor:
    """The sum of two tensors of the same shape."""
    return a + b


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [T, in] times a packed weight [out, in] transposed -> [T, out], in x's dtype."""
    return functional.linear(x, weight)


def linear_int8(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """x [T, in] times codes int8 [out, in] transposed, by scale float32 [out, 1] -> [T, out], in x's dtype.

    What a target computes that keeps weights in 8 bits and activations as they are. bfloat16 holds every code
    exactly, so that the matrix engine multiplies what is stored; the scales come after, in float32, since a
    matrix that was scaled first would be rounded to bfloat16 once more.
    """
    product = functional.linear(x, codes.to(x.dtype)).to(torch.float32)
    return (product * scale.reshape(1, -1)).to(x.dtype)


def linear_inputs_first(x: Tensor, weight: Tensor) -> Tensor:
    """`linear` of a weight [in, out]."""
    return torch.matmul(x, weight)


def linear_int8_inputs_first(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """`linear_int8` of codes [in, out]; scale is [out, 1] all the same."""
    product = torch.matmul(x, codes.to(x.dtype)).to(torch.float32)
    return (product * scale.reshape(1, -1)).to(x.dtype)


def product(ops: Operations, x: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
    """x [T, in] times a matrix, whose scale is None where it is not quantised: [T, out], in x's dtype."""
    return ops.linear(x, weight) if scale is None else ops.linear_int8(x, weight, scale)


def quantise_channels(weight: Tensor) -> Quantised[Tensor]:
    """A float32 matrix [out, in] in 8 bits, with one scale for each output feature: its largest magnitude
    is code 127. Rounds to nearest, ties to even."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    codes = torch.round(weight / torch.where(scale > 0, scale, torch.ones_like(scale)))
    return Quantised(codes.to(torch.int8), scale, None, 8)


def dequantised(weight: Quantised[Tensor]) -> Tensor:
    """The float32 matrix [out, in] that a quantised one stands for."""
    features, depth = weight.codes.shape
    codes = weight.codes.to(torch.float32).reshape(features, weight.scale.shape[1], -1)
    numbers = codes * weight.scale[:, :, None]
    if weight.minimum is not None:
        numbers = numbers + weight.minimum[:, :, None]
    return numbers.reshape(features, depth)


def quantise_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """x float32 [T, in] as codes int16 [T, in / GROUP, GROUP] and a scale float32 [T, in / GROUP], by which
    the largest magnitude of a group is code 32767 (rounded to nearest, ties to even). The scale of a group
    that holds NaN or Inf is NaN.

    16 bits lose nothing that shows in an answer. 8 bits do, and are no faster where two products of bytes
    do not fit in 16 bits (AVX2)."""
    groups = x.reshape(x.shape[0], -1, GROUP)
    peak = groups.abs().amax(dim=-1)
    peak = torch.where(peak <= FINITE_MAX, peak, torch.full_like(peak, float("nan")))
    # A number divided by a tensor would be its reciprocal times the number, which rounds twice.
    inverse = torch.full_like(peak, LARGEST_CODE) / peak
    inverse = torch.where(peak > LEAST_PEAK, inverse, torch.zeros_like(peak))
    codes = torch.round(torch.nan_to_num(groups * inverse[..., None]))
    return torch.clamp(codes, -LARGEST_CODE, LARGEST_CODE).to(torch.int16), peak / LARGEST_CODE


def linear_quantised(x: Tensor, weight: Quantised[Tensor]) -> Tensor:
    """x float32 [T, in] times a quantised weight [out, in] transposed -> float32 [T, out], by products of
    integers: what a target computes that keeps weights quantised.

    Activations are quantised too, for every number of rows alike, so that an answer does not depend on its
    company. in is a multiple of GROUP; sums within a group are exact (int32), across groups in float32.
    """
    codes, scale = quantise_activations(x)
    features, depth = weight.codes.shape
    groups = depth // GROUP
    matrix, wide = weight.codes.to(torch.float64).reshape(features, groups, GROUP), codes.to(torch.float64)
    sums = torch.einsum("tgk,ogk->tog", wide, matrix).to(torch.float32)
    total = (sums * scale[:, None, :] * weight.scale).sum(dim=-1)
    if weight.minimum is not None:
        total = total + (wide.sum(dim=-1).to(torch.float32) * scale) @ weight.minimum.T
    return total


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [T, H] scaled to unit root mean square over H in float32, then by weight [H]; x's dtype."""
    wide = x.to(torch.float32)
    # Not mean(), whose graph has a NaN in it, for an axis without elements.
    scale = torch.rsqrt((wide * wide).sum(dim=-1, keepdim=True) / x.shape[-1] + eps)
    return weight * (wide * scale).to(x.dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [T, heads, D] by each token's cos and sin [T, D/2], halves rotated against
    each other (Hugging Face's layout, not Meta's interleaved one)."""
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    cos, sin = cos[:, None, :].to(x.dtype), sin[:, None, :].to(x.dtype)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def add_rms_norm(
    ops: Operations, x: Tensor, update: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x + update [T, H], and the norm of that by weight [H]. Like all operations that take `ops`, made of
    those, where the target has nothing that does it in one."""
    total = ops.add(x, update)
    return total, ops.rms_norm(total, weight, eps)


def fused_qkv(
    ops: Operations,
    x: Tensor,
    norm: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [T, heads, D] and keys, turned by each token's cos and sin [T, D/2], and values, both [T,
    kv_heads, D], of x [T, H]: its norm by `norm` [H] times a matrix of (heads + 2 kv_heads) * D outputs, with
    a scale as in `product`."""
    count, dim = x.shape[0], 2 * cos.shape[-1]
    made = product(ops, ops.rms_norm(x, norm, eps), weight, scale)
    kv_heads = (made.shape[-1] // dim - heads) // 2
    query_end, key_end = heads * dim, (heads + kv_heads) * dim
    query = ops.rope(made[:, :query_end].reshape(count, heads, dim), cos, sin)
    key = ops.rope(made[:, query_end:key_end].reshape(count, kv_heads, dim), cos, sin)
    return query, key, made[:, key_end:].reshape(count, kv_heads, dim)


def kv_pool(blocks: int, block_size: int, kv_heads: int, dim: int, dtype: torch.dtype) -> Tensor:
    """Zeros [blocks, block_size, kv_heads, dim], in whatever order an implementation likes them in memory. A
    lightly loaded server never fills its pool, and a model that is only lowered writes none of it."""
    return untouched_zeros((blocks, block_size, kv_heads, dim), dtype)


def kv_write(pool: Tensor, slots: Tensor, values: Tensor) -> Tensor:
    """The pool [blocks + 1, block_size, kv_heads, D] with values [T, kv_heads, D] at slots [T] (int32,
    block * block_size + offset). Returns the new pool; an implementation may write in place.

    NaN and Inf are written as 0: a failed row must not poison the next owner of its blocks, whose
    masked positions are multiplied by zero, not skipped."""
    blocks, size, heads, dim = pool.shape
    finite = values.abs() <= torch.full_like(values, FINITE_MAX)
    rows = torch.where(finite, values, torch.zeros_like(values))
    flat = pool.reshape(blocks * size, heads * dim)
    flat = torch.index_put(flat, (slots,), rows.reshape(-1, heads * dim))
    return flat.reshape(blocks, size, heads, dim)


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
    """The queries of `fused_qkv`, and the pools of keys and of values with what it makes of those at slots
    [T]."""
    query, key, value = ops.fused_qkv(ops, x, norm, weight, scale, cos, sin, heads, eps)
    return query, ops.kv_write(pools[0], slots, key), ops.kv_write(pools[1], slots, value)


def paged_attention(
    query: Tensor, key_pool: Tensor, value_pool: Tensor, block_tables: Tensor, positions: Tensor
) -> Tensor:
    """Causal grouped-query attention over paged KV.

    query [R, Q, heads, D]; pools [blocks + 1, block_size, kv_heads, D]; block_tables [R, NB] int32;
    positions [R, Q] int32: a token sees its row's positions 0 .. its own. Returns [R, Q, heads, D].
    Scores and softmax in float32, or in query's dtype where that is wider.
    """
    rows, width, heads, dim = query.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    _, size, kv_heads, _ = key_pool.shape
    span = block_tables.shape[1] * size
    table = block_tables.reshape(-1)
    # [R, kv_heads, span, D]: one row of the gather is one block, a single long read.
    key = key_pool.index_select(0, table).reshape(rows, span, kv_heads, dim).transpose(1, 2)
    value = value_pool.index_select(0, table).reshape(rows, span, kv_heads, dim).transpose(1, 2)
    group = heads // kv_heads
    grouped = query.reshape(rows, width, kv_heads, group, dim).permute(0, 2, 3, 1, 4)
    grouped = grouped.reshape(rows, kv_heads, group * width, dim)
    scores = torch.matmul(grouped, key.transpose(2, 3)).to(wide) * dim**-0.5
    scores = scores.reshape(rows, kv_heads, group, width, span)
    steps = torch.arange(span, dtype=torch.int32, device=query.device)
    visible = steps[None, None, :] <= positions[:, :, None]
    masked = torch.full((), MASKED, dtype=wide, device=query.device)
    weights = torch.softmax(torch.where(visible[:, None, None], scores, masked), dim=-1)
    weights = weights.reshape(rows, kv_heads, group * width, span).to(query.dtype)
    mixed = torch.matmul(weights, value).reshape(rows, kv_heads, group, width, dim)
    return mixed.permute(0, 3, 1, 2, 4).reshape(rows, width, heads, dim)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up for gate_up [T, 2F], gate in the first half -> [T, F]."""
    half = gate_up.shape[-1] // 2
    return functional.silu(gate_up[..., :half]) * gate_up[..., half:]


def swiglu_mlp(
    ops: Operations,
    x: Tensor,
    gate_up: Tensor,
    gate_up_scale: Tensor | None,
    down: Tensor,
    down_scale: Tensor | None,
) -> Tensor:
    """The gated MLP of x [T, H]: matrices of 2F and of H outputs, gate in the first half of the former, with
    scales as in `product`. Returns [T, H], of this rank's F features."""
    hidden = ops.swiglu(product(ops, x, gate_up, gate_up_scale))
    return product(ops, hidden, down, down_scale)


def peak(x: Tensor) -> Tensor:
    """The largest magnitude of each row of x [R, F] float32 -> [R]; not finite if any value of the row is
    not."""
    return x.abs().amax(dim=-1)


def both_finite(a: Tensor, b: Tensor) -> Tensor:
    """Whether two peaks [R] float32 are, int32 [R]."""
    return (_is_number(a) & _is_number(b)).to(torch.int32)


def _is_number(peak: Tensor) -> Tensor:
    return peak <= torch.full_like(peak, FINITE_MAX)


def edit_logits(
    logits: Tensor, allowed: Tensor | None, bias: Tensor | None, repetition: Tensor | None
) -> Tensor:
    """The logits [R, V] float32 as a request wants them; what is None is not wanted by any row.

    repetition [R, V] float32 divides positive logits and multiplies the others (as Hugging Face's
    RepetitionPenaltyLogitsProcessor); bias [R, V] float32 is added then; allowed [R, ceil(V / 32)] int32
    is a bit mask, bit i of word w for token 32 w + i, and the logits it lacks become FORBIDDEN.
    """
    if repetition is not None:
        positive = logits > torch.zeros_like(logits)
        logits = torch.where(positive, logits / repetition, logits * repetition)
    if bias is not None:
        logits = logits + bias
    if allowed is not None:
        rows, vocab = logits.shape
        bit = torch.arange(32, dtype=torch.int32, device=logits.device)
        bits = torch.bitwise_and(torch.bitwise_right_shift(allowed[:, :, None], bit), 1)
        bits = bits.reshape(rows, -1)[:, :vocab]
        logits = torch.where(bits > torch.zeros_like(bits), logits, torch.full_like(logits, FORBIDDEN))
    return logits


def candidates(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of logits [R, V] float32, in descending order: values float32 and ids int32, both
    [R, count]."""
    values, ids = torch.topk(logits, count, dim=-1)
    return values, ids.to(torch.int32)


def greedy(logits: Tensor) -> Tensor:
    """The id of the largest of logits [R, V] float32, the first of equals: int32 [R]."""
    return torch.argmax(logits, dim=-1).to(torch.int32)


def log_probabilities(
    logits: Tensor, tokens: Tensor, likeliest: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits [R, V] float32: the log probability of each row's token [R], and the ids and log
    probabilities [R, count] of its likeliest tokens, as `candidates` found them."""
    total = torch.logsumexp(logits, dim=-1, keepdim=True)
    own = torch.gather(logits, 1, tokens[:, None].to(torch.int64)) - total
    values, ids = likeliest
    return own[:, 0], ids, values - total


def sample(logits: Tensor, sampling: Tensor, draws: Tensor) -> Tensor:
    """One token id per row, int32 [R], from logits [R, V] float32.

    sampling [R, 4]: temperature (0 takes the largest logit), top_k (0 means the cap), top_p, min_p.
    draws [R]: uniform in [0, 1). Considers the TOPK_CAP largest logits; keeps top_k of them, of those the
    shortest prefix whose probability reaches top_p, of those the ones with at least min_p times the
    probability of the first; takes the one at which the cumulative probability passes the draw.
    Deterministic in its inputs.
    """
    likeliest = candidates(logits, min(TOPK_CAP, logits.shape[-1]))
    return chosen(*likeliest, greedy(logits), sampling, draws)


def chosen(values: Tensor, ids: Tensor, first: Tensor, sampling: Tensor, draws: Tensor) -> Tensor:
    """`sample` once the candidates are known: values and ids as from `candidates`, first as from `greedy`."""
    cap = values.shape[-1]
    temperature, top_k, top_p, min_p = (sampling[:, column : column + 1] for column in range(4))
    rank = torch.arange(cap, dtype=torch.int32, device=values.device)[None, :]
    limit = torch.where(top_k > torch.zeros_like(top_k), top_k, torch.full_like(top_k, float(cap)))
    scaled = (values - values[:, :1]) / torch.clamp(temperature, min=1e-4)
    odds = torch.where(rank < limit, torch.exp(scaled), torch.zeros_like(scaled))
    probs = odds / odds.sum(dim=-1, keepdim=True)
    # A product with a triangle: cumsum lowers to a quadratic reduce-window on the chip.
    triangle = torch.triu(torch.ones(cap, cap, dtype=torch.float32, device=values.device))
    reached = torch.matmul(probs, triangle)
    # Odds of the first are 1. Those of 0 are out even where rounding leaves `reached` short of 1.
    nucleus = ((reached - probs) < top_p) & (odds >= torch.clamp(min_p, min=1e-38)) & (rank < limit)
    mass = torch.where(nucleus, probs, torch.zeros_like(probs)).sum(dim=-1, keepdim=True)
    passed = (reached <= draws[:, None] * mass) & nucleus
    last = nucleus.sum(dim=-1, dtype=torch.int32) - 1
    index = torch.minimum(passed.sum(dim=-1, dtype=torch.int32), torch.clamp(last, min=0))
    drawn = torch.where(rank == index[:, None], ids, torch.zeros_like(ids)).sum(dim=-1, dtype=torch.int32)
    return torch.where(temperature[:, 0] > torch.zeros_like(temperature[:, 0]), drawn, first)
