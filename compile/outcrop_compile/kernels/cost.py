"""The cost of each kernel in one rank's step of a bucket, counted in the simulator at the model's own shapes.

A kernel does the same whatever its numbers are, and the same again for each group of rows: so it runs on
zeros, attention over a few blocks of KV that stand for all, and rows beyond two groups are added by what the
second took. Not yet run on a device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outcrop_compile.bucket import Bucket
from outcrop_compile.tensor_parallel import Layout
from outcrop_kernels.nki.catalogue import KERNELS
from outcrop_kernels.nki.operations import simulated
from outcrop_kernels.nki.paged_decode_attention import rows_together
from outcrop_kernels.nki.simulator import DmaWork, EngineWork, Report
from outcrop_kernels.reference import FINITE_MAX, TOPK_CAP

_BLOCKS = 2
"""Of KV, that stand for all."""


@dataclass(frozen=True, slots=True)
class KernelCost:
    """kernel: its name. calls: in a step. report: of one call."""

    kernel: str
    calls: int
    report: Report

    @property
    def bytes(self) -> int:
        """Through HBM, in a step."""
        return self.calls * (self.report.dma.hbm_read + self.report.dma.hbm_written)

    @property
    def seconds(self) -> float:
        """Of a step, with all engines overlapping perfectly within a call."""
        return self.calls * self.report.seconds

    @property
    def scheduled_seconds(self) -> float:
        """Of a step, with each engine's instructions in the kernel's order, waiting for what they read."""
        return self.calls * self.report.scheduled_seconds


class KernelShapes:
    """What kernels are called with in steps of one model."""

    def __init__(self, layout: Layout, block_size: int, dtype: torch.dtype, *, gather: bool) -> None:
        self.layout, self.block_size, self.dtype, self.gather = layout, block_size, dtype, gather
        self.makers: dict[str, Callable[[Bucket], tuple[int, Report]]] = {
            "kv_cache_write": self._write,
            "paged_decode_attention": self._decode,
            "paged_prefill_attention": self._prefill,
            "topk_sample": self._topk,
            "rmsnorm": self._norm,
            "rope": self._rope,
            "fused_qkv": self._qkv,
            "swiglu_mlp": self._mlp,
            "int8_dequant_matmul": self._int8,
        }

    def costs(self, bucket: Bucket, kernels: Iterable[str]) -> Iterator[KernelCost]:
        """Of those kernels whose contract takes the bucket's shapes."""
        for name in kernels:
            try:
                calls, report = self.makers[name](bucket)
            except _NotTaken:
                continue
            yield KernelCost(name, calls, report)

    def _write(self, bucket: Bucket) -> tuple[int, Report]:
        tokens, row = bucket.rows * bucket.width, self.layout.kv_heads * self.layout.config.head_dim
        slots = torch.arange(tokens, dtype=torch.int32)
        report = self._run(
            "kv_cache_write", 0, self._zeros(tokens, row), slots, self._zeros(tokens, row), FINITE_MAX
        )
        return 2 * self.layout.config.num_layers, report

    def _decode(self, bucket: Bucket) -> tuple[int, Report]:
        pool = (1, self.block_size, self.layout.kv_heads, self.layout.config.head_dim)
        query = (bucket.rows, bucket.width, self.layout.heads, self.layout.config.head_dim)
        return self._grouped("paged_decode_attention", bucket, rows_together(query, pool, bucket.blocks))

    def _prefill(self, bucket: Bucket) -> tuple[int, Report]:
        if bucket.width * self.layout.heads // self.layout.kv_heads <= 128:
            raise _NotTaken
        return self._grouped("paged_prefill_attention", bucket, 1)

    def _grouped(self, name: str, bucket: Bucket, together: int) -> tuple[int, Report]:
        """Attention of all rows, of which the kernel takes so many at a time."""
        calls, groups = self.layout.config.num_layers, -(-bucket.rows // together)
        report = self._attention(name, min(together, bucket.rows), bucket)
        if groups > 1:
            second = self._attention(name, min(2 * together, bucket.rows), bucket)
            report = _continued(report, second, groups)
        return calls, report

    def _attention(self, name: str, rows: int, bucket: Bucket) -> Report:
        layout = self.layout
        pools = (
            self._zeros(_BLOCKS, self.block_size, layout.kv_heads, layout.config.head_dim) for _ in range(2)
        )
        return self._run(
            name,
            0,
            self._zeros(rows, bucket.width, layout.heads, layout.config.head_dim),
            *pools,
            torch.zeros(rows, bucket.blocks, dtype=torch.int32),
            torch.zeros(rows, bucket.width, dtype=torch.int32),
        )

    def _topk(self, bucket: Bucket) -> tuple[int, Report]:
        """The candidates, which cost hundreds of times what the largest alone does."""
        logits = torch.arange(self.layout.vocab_size, dtype=torch.float32).expand(bucket.rows, -1)
        return 1, self._run("topk_sample", 0, logits, min(TOPK_CAP, self.layout.vocab_size))

    def _norm(self, bucket: Bucket) -> tuple[int, Report]:
        width = self.layout.config.hidden_size
        tokens = self._zeros(bucket.rows * bucket.width, width)
        return 2 * self.layout.config.num_layers + 1, self._run(
            "rmsnorm", 0, tokens, self._zeros(width), self.layout.config.rms_norm_eps
        )

    def _rope(self, bucket: Bucket) -> tuple[int, Report]:
        tokens, dim = bucket.rows * bucket.width, self.layout.config.head_dim
        report = self._run("rope", 0, self._zeros(tokens, self.layout.heads, dim), *_angles(tokens, dim))
        return self.layout.config.num_layers, report

    def _qkv(self, bucket: Bucket) -> tuple[int, Report]:
        layout, tokens = self.layout, bucket.rows * bucket.width
        width, dim = layout.config.hidden_size, layout.config.head_dim
        outputs = (layout.heads + 2 * layout.kv_heads) * dim
        tensors = (self._zeros(tokens, width), self._zeros(width), self._zeros(width, outputs))
        return layout.config.num_layers, self._run(
            "fused_qkv", 0, *tensors, *_angles(tokens, dim), layout.heads, layout.config.rms_norm_eps
        )

    def _mlp(self, bucket: Bucket) -> tuple[int, Report]:
        width, features = self.layout.config.hidden_size, self.layout.intermediate_size
        return self.layout.config.num_layers, self._run(
            "swiglu_mlp",
            0,
            self._zeros(bucket.rows * bucket.width, width),
            self._zeros(width, 2 * features),
            self._zeros(features, width),
        )

    def _int8(self, bucket: Bucket) -> tuple[int, Report]:
        """The projection back to the residual, as one of four matrices of a layer."""
        width, features = self.layout.config.hidden_size, self.layout.intermediate_size
        return self.layout.config.num_layers, self._run(
            "int8_dequant_matmul",
            0,
            self._zeros(bucket.rows * bucket.width, features),
            torch.zeros(features, width, dtype=torch.int8),
            torch.ones(width, 1),
        )

    def _run(self, name: str, place: int, *arguments: Any) -> Report:
        entry = KERNELS[name].entries[place]
        tensors = [one for one in arguments if isinstance(one, Tensor)]
        if entry.contract.refusal(tensors, {"C": TOPK_CAP}) is not None:
            raise _NotTaken
        _, report = simulated(entry, arguments, gather=self.gather)
        return report

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype)


class _NotTaken(Exception):
    """The contract refuses these shapes."""


def _angles(tokens: int, dim: int) -> tuple[Tensor, Tensor]:
    return torch.ones(tokens, dim // 2), torch.zeros(tokens, dim // 2)


def _continued(first: Report, second: Report, groups: int) -> Report:
    """Of one group of rows and of two, what `groups` of them take."""

    def at(one: int, two: int) -> int:
        return one + (groups - 1) * (two - one)

    a, b = first.dma, second.dma
    sizes = set(a.descriptors) | set(b.descriptors)
    return Report(
        first.target,
        {
            name: EngineWork(
                at(work.instructions, second.engines[name].instructions),
                at(work.elements, second.engines[name].elements),
                at(work.cycles, second.engines[name].cycles),
            )
            for name, work in first.engines.items()
        },
        DmaWork(
            at(a.transfers, b.transfers),
            at(a.hbm_read, b.hbm_read),
            at(a.hbm_written, b.hbm_written),
            at(a.on_chip, b.on_chip),
            Counter({size: at(a.descriptors[size], b.descriptors[size]) for size in sizes}),
            at(a.dynamic, b.dynamic),
        ),
        at(first.macs, second.macs),
        max(first.sbuf_peak, second.sbuf_peak),
        max(first.psum_peak, second.psum_peak),
        first.scheduled_seconds + (groups - 1) * (second.scheduled_seconds - first.scheduled_seconds),
    )
