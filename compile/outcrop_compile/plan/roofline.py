"""How long a step takes at least.

A decode step reads every matrix once and each row's keys and values. Two ceilings are known for that: the
HBM's bandwidth, and that of the DMA engines, which is lower. To either comes a floor for collectives. Prefill
computes more than it reads. None of it is a measurement; not yet run on a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.checkpoint.names import canonical_shapes
from outcrop_compile.config import LlamaConfig
from outcrop_compile.instances import DMA_BANDWIDTH, HBM_BANDWIDTH, PEAK_FLOPS, collective_floor
from outcrop_compile.plan.memory import kv_bytes_per_token, weight_bytes
from outcrop_compile.plan.request import Dtype, plain_bytes
from outcrop_compile.tensor_parallel import Layout


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds. hbm: the roofline, of the model's own weights and the keys and values that ranks keep. dma:
    the same by the DMA engines. expected: by those, with padding, copies and collectives, and so the best to
    be hoped for."""

    hbm: float
    dma: float
    expected: float


@lru_cache(64)
def streamed_weights(config: LlamaConfig, dtype: Dtype) -> int:
    """Bytes of the model that every step reads: all matrices but embed, of which it looks up rows, and the
    vectors. A tied embed is read as the head."""
    item = plain_bytes(dtype)
    shapes = dict(canonical_shapes(config))
    shapes["lm_head"] = shapes.pop("embed")
    return sum(
        math.prod(shape) + 4 * shape[0] if dtype == "int8" and len(shape) == 2 else math.prod(shape) * item
        for shape in shapes.values()
    )


def padding_bytes(layout: Layout, dtype: Dtype) -> int:
    """Bytes that every rank reads for padding and for copies of key-value heads."""
    whole = weight_bytes(layout.config, layout.world, dtype, 0)
    item = plain_bytes(dtype)
    embed = layout.config.vocab_size * layout.embed_size * item
    return max(0, whole - embed - streamed_weights(layout.config, dtype) // layout.world)


def read_bytes(layout: Layout, bucket: Bucket, block_size: int, dtype: Dtype) -> int:
    """Bytes that one rank reads in a step of a bucket whose rows are all as long as it allows, at least:
    weights and KV. What a lowered graph moves is compared with this."""
    item = plain_bytes(dtype)
    kv = bucket.rows * bucket.blocks * block_size * kv_bytes_per_token(layout, item)
    return streamed_weights(layout.config, dtype) // layout.world + kv


def step_time(layout: Layout, bucket: Bucket, block_size: int, dtype: Dtype) -> StepTime:
    read = read_bytes(layout, bucket, block_size, dtype)
    compute = flops(layout, bucket, block_size) / (PEAK_FLOPS / 4 if dtype == "float32" else PEAK_FLOPS)
    dma = (read + padding_bytes(layout, dtype)) / DMA_BANDWIDTH
    return StepTime(
        hbm=max(read / HBM_BANDWIDTH, compute),
        dma=max(read / DMA_BANDWIDTH, compute),
        expected=max(dma, compute) + collective_floor(layout.world),
    )


def flops(layout: Layout, bucket: Bucket, block_size: int) -> float:
    """Of one rank. Masked scores are computed too."""
    config, tokens = layout.config, bucket.rows * bucket.width
    head = config.vocab_size * config.hidden_size
    layers = streamed_weights(config, "bfloat16") // 2 - head  # vectors among it, a millionth
    sampled = tokens if bucket.kind is StepKind.VERIFY else bucket.rows
    span = bucket.blocks * block_size
    attention = 4 * tokens * span * layout.heads * config.head_dim * config.num_layers
    return 2 * (layers * tokens + head * sampled) / layout.world + attention
