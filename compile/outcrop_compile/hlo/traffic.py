"""HBM bytes of a step: counted from its HLO, and the least that it could do with."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from outcrop_compile.bucket import StepKind
from outcrop_compile.hlo.fusion import Fused
from outcrop_compile.hlo.module import HloModule, Instruction
from outcrop_compile.hlo.record import GraphRecord
from outcrop_compile.plan.memory import kv_bytes_per_token
from outcrop_compile.plan.request import plain_bytes
from outcrop_compile.plan.roofline import read_bytes
from outcrop_compile.tensor_parallel import divide
from outcrop_compile.weights import parameter_shapes


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one rank in one step. counted: by `Fused`, but for those of NKI kernels, which a graph does
    not show. read: weights and KV, `plan.roofline.read_bytes`. activations: what must be moved beside those.
    by_kind: the counted bytes, by what moves them. kernels: calls of NKI kernels."""

    counted: int
    read: int
    activations: int
    by_kind: dict[str, int]
    kernels: int

    @property
    def roofline(self) -> int:
        return self.read + self.activations

    @property
    def ratio(self) -> float:
        return self.counted / self.roofline


def traffic(module: HloModule, record: GraphRecord) -> Traffic:
    """activations: the KV and rows of the embedding of the step's tokens, inputs and outputs of the matrix
    products, and the step's own inputs."""
    sizes = record.sizes
    layout, bucket = divide(sizes.config, sizes.tp), record.bucket
    itemsize = plain_bytes(sizes.dtype)
    tokens = bucket.rows * bucket.width
    sampled = tokens if bucket.kind is StepKind.VERIFY else bucket.rows
    products = sum(
        rows + columns
        for name, (rows, *rest) in parameter_shapes(sizes.config, sizes.tp).items()
        for columns in rest
        if name not in ("embed", "lm_head")
    )
    activations = tokens * (products + sizes.config.hidden_size) * itemsize
    activations += tokens * kv_bytes_per_token(layout, itemsize)
    activations += sampled * (sizes.config.hidden_size + layout.vocab_size) * itemsize
    activations += sum(4 * math.prod(one.shape) for one in record.graph.inputs(sizes.config.vocab_size))
    fused, by_kind = Fused(module), Counter[str]()
    for number, (read, written) in fused.traffic().items():
        if not (one := module.entry.by_id[number]).is_kernel:
            by_kind[_kind(fused, one)] += read + written
    kernels = sum(one.is_kernel for one in module.entry.instructions)
    read = read_bytes(layout, bucket, sizes.block_size, sizes.dtype)
    return Traffic(sum(by_kind.values()), read, activations, dict(by_kind), kernels)


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
