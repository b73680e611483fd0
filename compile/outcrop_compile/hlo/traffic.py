"""HBM bytes of a step: counted from its HLO, and the least that it could do with."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from outcrop_compile.hlo.fusion import Fused
from outcrop_compile.hlo.module import HloModule, Instruction
from outcrop_compile.hlo.record import GraphRecord
from outcrop_compile.signature import graph_inputs
from outcrop_compile.weights import parameter_shapes


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one rank in one step. counted: by `Fused`. weights, kv and activations: what a step must move.
    by_kind: the counted bytes, by what moves them."""

    counted: int
    weights: int
    kv: int
    activations: int
    by_kind: dict[str, int]

    @property
    def roofline(self) -> int:
        return self.weights + self.kv + self.activations

    @property
    def ratio(self) -> float:
        return self.counted / self.roofline


def traffic(module: HloModule, record: GraphRecord) -> Traffic:
    """weights: every matrix once, of the embedding the tokens' rows. kv: all that the bucket's tables reach, read
    once, and the tokens' own written. activations: inputs and outputs of the matrix products, the inputs of the
    step and its result."""
    sizes = record.sizes
    itemsize = 2 if sizes.dtype == "bfloat16" else 4
    config, bucket = sizes.config, record.bucket
    tokens = bucket.rows * bucket.width
    shapes = parameter_shapes(config, sizes.tp)
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2 and name != "embed"}
    if config.tie_embeddings:
        matrices["lm_head"] = (config.vocab_size // sizes.tp, config.hidden_size)
    weights = sum(rows * columns for rows, columns in matrices.values()) * itemsize
    weights += tokens * config.hidden_size * itemsize
    pool = next(one for one in record.parameters if one.name.endswith("key_pool"))
    token_bytes = 2 * config.num_layers * pool.shape[2] * pool.shape[3] * itemsize
    kv = (bucket.rows * bucket.blocks * sizes.block_size + tokens) * token_bytes
    sampled = tokens if bucket.kind == "verify" else bucket.rows
    activations = sum(
        (sampled if name == "lm_head" else tokens) * (rows + columns) * itemsize
        for name, (rows, columns) in matrices.items()
    )
    activations += sum(
        4 * math.prod(one.shape) for one in graph_inputs(bucket, record.choice, config.vocab_size)
    )
    fused, by_kind = Fused(module), Counter[str]()
    for number, (read, written) in fused.traffic().items():
        by_kind[_kind(fused, module.entry.by_id[number])] += read + written
    return Traffic(sum(by_kind.values()), weights, kv, activations, dict(by_kind))


def _kind(fused: Fused, one: Instruction) -> str:
    """What an instruction's bytes are for, in words for people."""
    if one.opcode == "dot":
        batched = one.message.message(30).integers(3)
        return "attention products" if batched else "matrix products"
    if one.opcode in ("gather", "scatter"):
        pool = len(fused.entry.operand(one, 0).shape.dimensions)
        if one.opcode == "gather":
            return "KV gathers" if pool == 4 else "other gathers"
        return "KV writes" if pool == 2 else "token table"
    if one.opcode in ("custom-call", "all-reduce", "all-gather"):
        return {"custom-call": "top-k"}.get(one.opcode, "collectives")
    return "reductions and element-wise"
