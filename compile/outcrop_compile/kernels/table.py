"""Steps of XLA's graphs beside those with kernels in them: bytes and estimated times.

Bytes of graphs are counted as they are lowered (`hlo.traffic`), of one layer and of two, and all layers
follow from the difference. With kernels, those of the graph around them, whose calls write and read buffers
there, and what the kernels move in the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import structs

from outcrop_compile.artifact.kernels import kernel_names
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.config import LlamaConfig
from outcrop_compile.graph import Graph, Variant
from outcrop_compile.hlo.environment import lower
from outcrop_compile.hlo.module import HloModule
from outcrop_compile.hlo.record import Sizes, read_record, record_path
from outcrop_compile.hlo.traffic import traffic
from outcrop_compile.hlo.worker import Request
from outcrop_compile.instances import DMA_BANDWIDTH, collective_floor
from outcrop_compile.kernels.cost import KernelCost, KernelCosts
from outcrop_compile.plan.request import Dtype
from outcrop_compile.plan.roofline import streamed_weights
from outcrop_kernels.nki.catalogue import KERNELS

ATTENTION = frozenset({"paged_decode_attention", "paged_prefill_attention", "kv_cache_write", "topk_sample"})
"""Attention's kernels and sampling's, for which no weights lie otherwise."""
KV = ("KV gathers", "attention products", "KV writes")
"""Of `Traffic.by_kind`, what attention's kernels do."""
GATHER_BANDWIDTH = 105e9
"""Bytes a second and core that XLA's gathers of pages were measured to read and write on trn1 (notes of
https://github.com/foxl-ai/kiln)."""
_BLOCK = 32


@dataclass(frozen=True, slots=True)
class WithKernels:
    """A step with some kernels. bytes: all of it. seconds: with kernels whose engines overlap perfectly, all
    else at the DMA engines' bandwidth; scheduled_seconds: with kernels whose engines wait for each other.
    costs: of the kernels."""

    bytes: int
    seconds: float
    scheduled_seconds: float
    costs: tuple[KernelCost, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A decode step of one rank.

    weights: bytes of matrices and norms, which every graph reads once, whatever computes with them. xla:
    bytes of XLA's graph. xla_seconds: at least, at the DMA engines' bandwidth; xla_gathers: if gathers
    are as slow as measured. attention, every: with the kernels of `ATTENTION`, and with all of them.
    kv: bytes of what attention's kernels do, by XLA and by them.
    """

    tp: int
    rows: int
    context: int
    weights: int
    xla: int
    xla_seconds: float
    xla_gathers: float
    attention: WithKernels
    every: WithKernels
    kv: tuple[int, int]


def rows(
    config: LlamaConfig,
    degrees: tuple[int, ...],
    batches: tuple[int, ...],
    contexts: tuple[int, ...],
    python: str,
    dtype: Dtype = "bfloat16",
) -> Iterator[Row]:
    """python: an interpreter with torch_xla. Raises LoweringFailed, ShardingError."""
    costs = KernelCosts()
    for tp in degrees:
        graphs = tuple(
            Graph(Bucket(StepKind.DECODE, batch, 1, -(-context // _BLOCK)), Variant.SAMPLED)
            for batch in batches
            for context in contexts
        )
        sizes = Sizes(
            config=config,
            dtype=dtype,
            tp=tp,
            block_size=_BLOCK,
            num_blocks=max(graph.bucket.rows * graph.bucket.blocks for graph in graphs),
            max_rows=max(batches),
            max_positions=max(graph.bucket.blocks for graph in graphs) * _BLOCK,
        )
        plain = _counted(sizes, graphs, python)
        chosen = [_with(sizes, kernels) for kernels in (ATTENTION, frozenset(KERNELS))]
        counted = [_counted(one, graphs, python) for one in chosen]
        for graph, kinds, *around in zip(graphs, plain, *counted, strict=True):
            steps = [
                _step(tp, sum(rest.values()), tuple(costs.of(one, graph)))
                for one, rest in zip(chosen, around, strict=True)
            ]
            yield _row(tp, graph.bucket, streamed_weights(config, dtype) // tp, kinds, *steps)


def _with(sizes: Sizes, kernels: frozenset[str]) -> Sizes:
    """Gathering by indices."""
    return structs.replace(sizes, kernels=kernel_names(kernels, gather=True))


def _counted(sizes: Sizes, graphs: tuple[Graph, ...], python: str) -> list[dict[str, int]]:
    """Bytes of each graph by kind."""
    one, two = (_of_layers(sizes, graphs, layers, python) for layers in (1, 2))
    more = sizes.config.num_layers - 1
    return [
        {kind: first[kind] + more * (size - first[kind]) for kind, size in second.items()}
        for first, second in zip(one, two, strict=True)
    ]


def _of_layers(sizes: Sizes, graphs: tuple[Graph, ...], layers: int, python: str) -> list[dict[str, int]]:
    few = structs.replace(sizes, config=replace(sizes.config, num_layers=layers))
    with TemporaryDirectory() as folder:
        wanted = tuple((graph.bucket, graph.variant) for graph in graphs)
        found = []
        for done in lower(Request(sizes=few, graphs=wanted, out=folder, run=False), python):
            path = Path(done.file)
            found.append(traffic(HloModule(path.read_bytes()), read_record(record_path(path))).by_kind)
    return found


def _step(tp: int, around: int, costs: tuple[KernelCost, ...]) -> WithKernels:
    """around: bytes of the graph but for the kernels'."""
    rest = around / DMA_BANDWIDTH + collective_floor(tp)
    return WithKernels(
        bytes=around + sum(cost.bytes for cost in costs),
        seconds=rest + sum(cost.seconds for cost in costs),
        scheduled_seconds=rest + sum(cost.scheduled_seconds for cost in costs),
        costs=costs,
    )


def _row(
    tp: int,
    bucket: Bucket,
    weights: int,
    kinds: dict[str, int],
    attention: WithKernels,
    every: WithKernels,
) -> Row:
    xla, gathered, floor = sum(kinds.values()), kinds.get("KV gathers", 0), collective_floor(tp)
    by_kernels = (cost.bytes for cost in attention.costs if cost.kernel != "topk_sample")
    return Row(
        tp=tp,
        rows=bucket.rows,
        context=bucket.blocks * _BLOCK,
        weights=weights,
        xla=xla,
        xla_seconds=xla / DMA_BANDWIDTH + floor,
        xla_gathers=(xla - gathered) / DMA_BANDWIDTH + gathered / GATHER_BANDWIDTH + floor,
        attention=attention,
        every=every,
        kv=(sum(kinds.get(kind, 0) for kind in KV), sum(by_kernels)),
    )
