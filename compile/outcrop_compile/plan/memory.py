"""What a core's HBM holds.

Weights and KV are exact. Activations are what one layer makes at the same time, if the compiler keeps nothing
of it on chip; models of one core share the space (model_shared_scratchpad in neuron-monitor). Code, rings and
the runtime's own are estimates, for which no measurement is published: together they come to the 2.5 to 4 GB
that deployments of Llama 3 8B leave. Not yet run on a device: compare with `neuron-monitor`, and pass what it
says as the reserve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.config import LlamaConfig
from outcrop_compile.graph import graphs_of
from outcrop_compile.instances import HBM_PER_CORE
from outcrop_compile.plan.request import Dtype, plain_bytes
from outcrop_compile.tensor_parallel import Layout
from outcrop_compile.weights import is_multiplied, parameter_shapes

GRAPH = 24 << 20
"""Bytes of instructions and DMA rings that a loaded graph takes on each core; an estimate."""
RUNTIME = 1 << 30
"""Bytes of the runtime, collectives and notifications on each core; an estimate."""


@dataclass(frozen=True, slots=True)
class CoreMemory:
    """Bytes on each core. graphs: instructions and rings of all graphs. free: what no block fits into."""

    weights: int
    kv: int
    activations: int
    graphs: int
    runtime: int
    free: int

    @property
    def total(self) -> int:
        return HBM_PER_CORE


def weight_bytes(config: LlamaConfig, tp: int, dtype: Dtype, max_model_len: int) -> int:
    """Of one rank: its shard with padding and copies, and the rotary tables. Raises ShardingError."""
    return _parameter_bytes(config, tp, dtype) + 2 * max_model_len * (config.head_dim // 2) * 4


@lru_cache(64)
def _parameter_bytes(config: LlamaConfig, tp: int, dtype: Dtype) -> int:
    item, total = plain_bytes(dtype), 0
    for name, shape in parameter_shapes(config, tp, own_head=True).items():
        quantised = dtype == "int8" and is_multiplied(name, shape)
        # A float32 scale for each output feature.
        total += math.prod(shape) + 4 * shape[0] if quantised else math.prod(shape) * item
    return total


def kv_bytes_per_token(layout: Layout, itemsize: int) -> int:
    """Of one rank."""
    config = layout.config
    return 2 * config.num_layers * layout.kv_heads * config.head_dim * itemsize


def graph_count(buckets: Iterable[Bucket]) -> int:
    return sum(1 for _ in graphs_of(buckets))


def activation_bytes(layout: Layout, bucket: Bucket, block_size: int, itemsize: int) -> int:
    """Of one rank in a step: the residual stream, and the largest of attention, MLP and logits."""
    config = layout.config
    tokens, span = bucket.rows * bucket.width, bucket.blocks * block_size
    queries = layout.heads * config.head_dim
    keys = layout.kv_heads * config.head_dim
    scores = bucket.rows * layout.heads * bucket.width * span
    attention = (
        (2 * queries + 2 * keys) * tokens * itemsize  # qkv, and what is mixed of it
        + 2 * bucket.rows * span * keys * itemsize  # keys and values gathered from their blocks
        + scores * (4 + itemsize)  # and their softmax
    )
    mlp = 3 * tokens * layout.intermediate_size * itemsize
    sampled = tokens if bucket.kind is StepKind.VERIFY else bucket.rows
    logits = sampled * (layout.vocab_size + 3 * config.vocab_size) * 4  # edits are as large as all logits
    return 3 * tokens * config.hidden_size * itemsize + max(attention, mlp, logits)
