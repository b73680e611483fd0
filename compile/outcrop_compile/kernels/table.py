"""Steps of XLA's graphs beside those with kernels in them: bytes and estimated times.

Bytes without kernels are counted in the graphs as they are lowered (`hlo.traffic`), of one layer and of two,
and all layers follow from the difference. With kernels, what XLA moves to gather KV, to multiply it, to write
new KV and to find candidates is taken away, and what the kernels move in the simulator is added. What XLA's
softmax moves stays counted in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.config import LlamaConfig
from outcrop_compile.graph import Variant
from outcrop_compile.hlo.environment import lower
from outcrop_compile.hlo.module import HloModule
from outcrop_compile.hlo.record import Sizes, read_record, record_path
from outcrop_compile.hlo.traffic import traffic
from outcrop_compile.hlo.worker import Request
from outcrop_compile.instances import DMA_BANDWIDTH, collective_floor
from outcrop_compile.kernels.cost import KernelCost, KernelShapes
from outcrop_compile.tensor_parallel import divide

REPLACED = ("KV gathers", "attention products", "KV writes", "top-k")
"""Of `Traffic.by_kind`, what kernels do."""
KERNELS = ("paged_decode_attention", "kv_cache_write", "topk_sample")
"""The kernels that do it."""
GATHER_BANDWIDTH = 105e9
"""Bytes a second and core that XLA's gathers of pages were measured to read and write on trn1 (notes of
https://github.com/foxl-ai/kiln)."""
_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Row:
    """A decode step of one rank.

    xla, kernels: bytes of XLA's graph and of that with kernels. replaced: of those, what the kernels do,
    before and after. xla_seconds: at least, at the DMA engines' bandwidth; xla_gathers: if gathers are as
    slow as they were measured. kernel_seconds: with kernels whose engines overlap perfectly, all else as in
    xla_seconds; scheduled_seconds: with kernels whose engines wait for each other. costs: of each kernel.
    """

    tp: int
    rows: int
    context: int
    xla: int
    kernels: int
    replaced: tuple[int, int]
    xla_seconds: float
    xla_gathers: float
    kernel_seconds: float
    scheduled_seconds: float
    costs: tuple[KernelCost, ...]


def rows(
    config: LlamaConfig,
    degrees: tuple[int, ...],
    batches: tuple[int, ...],
    contexts: tuple[int, ...],
    python: str,
) -> Iterator[Row]:
    """python: an interpreter with torch_xla. Raises LoweringFailed, ShardingError."""
    for tp in degrees:
        buckets = tuple(
            Bucket(StepKind.DECODE, batch, 1, -(-context // _BLOCK))
            for batch in batches
            for context in contexts
        )
        one, two = (_counted(config, tp, buckets, layers, python) for layers in (1, 2))
        shapes = KernelShapes(divide(config, tp), _BLOCK, torch.bfloat16, gather=True)
        for bucket, first, second in zip(buckets, one, two, strict=True):
            kinds = {
                kind: first.get(kind, 0)
                + (config.num_layers - 1) * (second.get(kind, 0) - first.get(kind, 0))
                for kind in first | second
            }
            yield _row(tp, bucket, kinds, tuple(shapes.costs(bucket, KERNELS)))


def _counted(
    config: LlamaConfig, tp: int, buckets: tuple[Bucket, ...], layers: int, python: str
) -> list[dict[str, int]]:
    """Bytes of each bucket's graph by kind, with so many layers."""
    blocks = max(bucket.rows * bucket.blocks for bucket in buckets)
    sizes = Sizes(
        config=replace(config, num_layers=layers),
        dtype="bfloat16",
        tp=tp,
        block_size=_BLOCK,
        num_blocks=blocks,
        max_rows=max(bucket.rows for bucket in buckets),
        max_positions=max(bucket.blocks for bucket in buckets) * _BLOCK,
    )
    with TemporaryDirectory() as folder:
        graphs = tuple((bucket, Variant.SAMPLED) for bucket in buckets)
        request = Request(sizes=sizes, graphs=graphs, out=folder, run=False)
        found = []
        for done in lower(request, python):
            path = Path(done.file)
            found.append(traffic(HloModule(path.read_bytes()), read_record(record_path(path))).by_kind)
    return found


def _row(tp: int, bucket: Bucket, kinds: dict[str, int], costs: tuple[KernelCost, ...]) -> Row:
    xla = sum(kinds.values())
    before = sum(kinds.get(kind, 0) for kind in REPLACED)
    after = sum(cost.bytes for cost in costs)
    gathered = kinds.get("KV gathers", 0)
    floor = collective_floor(tp)
    rest = (xla - before) / DMA_BANDWIDTH + floor
    return Row(
        tp=tp,
        rows=bucket.rows,
        context=bucket.blocks * _BLOCK,
        xla=xla,
        kernels=xla - before + after,
        replaced=(before, after),
        xla_seconds=xla / DMA_BANDWIDTH + floor,
        xla_gathers=(xla - gathered) / DMA_BANDWIDTH + gathered / GATHER_BANDWIDTH + floor,
        kernel_seconds=rest + sum(cost.seconds for cost in costs),
        scheduled_seconds=rest + sum(cost.scheduled_seconds for cost in costs),
        costs=costs,
    )
