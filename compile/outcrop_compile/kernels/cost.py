"""The cost of the kernels in one rank's step, counted in the simulator at the shapes that the model calls
them with.

A kernel does the same whatever its numbers are, and the same again for each group of rows: so it runs on
zeros, attention over a few blocks of KV that stand for all, and rows beyond two groups are added by what the
second took. Not yet run on a device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from outcrop_compile.graph import Graph
from outcrop_compile.hlo.record import Sizes
from outcrop_compile.kernels.calls import kernel_calls
from outcrop_kernels.nki.catalogue import KERNELS
from outcrop_kernels.nki.operations import Call, simulated
from outcrop_kernels.nki.paged_decode_attention import rows_together
from outcrop_kernels.nki.simulator import DmaWork, EngineWork, Report

_BLOCKS = 2
"""Of KV, that stand for all."""

Key = tuple[object, ...]
"""What the cost of a call depends on."""


@dataclass(frozen=True, slots=True)
class KernelCost:
    """kernel: its name. function: which of its functions. shape: of the matrix that it reads, or of its first
    tensor where it reads none. calls: in a step, all alike. report: of one call."""

    kernel: str
    function: str
    shape: tuple[int, ...]
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


class KernelCosts:
    """Counts each distinct call once, however many steps have it."""

    def __init__(self) -> None:
        self._reports: dict[Key, Report] = {}

    def of(self, sizes: Sizes, graph: Graph) -> Iterator[KernelCost]:
        """Of a step's calls, those alike together, in the order of the first of each. sizes: names the
        kernels; those whose contract refuses what the step has are not called. Raises ShardingError."""
        alike: dict[Key, list[Call]] = {}
        for call in kernel_calls(sizes, graph):
            alike.setdefault(_key(call), []).append(call)
        for key, (call, *others) in alike.items():
            if key not in self._reports:
                self._reports[key] = _report(call)
            telling = max(call.tensors, key=Tensor.numel) if KERNELS[call.kernel].layout else call.tensors[0]
            yield KernelCost(
                call.kernel, call.entry.name, tuple(telling.shape), 1 + len(others), self._reports[key]
            )


def _key(call: Call) -> Key:
    given = (
        (tuple(one.shape), one.dtype) if isinstance(one, Tensor) else one for one in _few(call).arguments
    )
    return (call.entry.name, call.gather, *given)


def _few(call: Call) -> Call:
    """The same work in a pool of as many blocks, or slots, as stand for all."""
    if call.kernel.startswith("paged"):
        query, key_pool, value_pool, *rest = call.arguments
        return replace(call, arguments=(query, key_pool[:_BLOCKS], value_pool[:_BLOCKS], *rest))
    if call.kernel == "kv_cache_write":
        pool, slots, *rest = call.arguments
        return replace(call, arguments=(pool[: len(slots)], slots, *rest))
    return call


def _report(call: Call) -> Report:
    """Of one call; attention's by groups of rows."""
    call = _few(call)
    if not call.kernel.startswith("paged"):
        return _run(call, call.tensors)
    query, key_pool, _, tables, _ = call.tensors
    together, rows = 1, query.shape[0]
    if call.kernel == "paged_decode_attention":
        together = rows_together(tuple(query.shape), tuple(key_pool.shape), tables.shape[1])
    first = _run(call, _rows(call, min(together, rows)))
    groups = -(-rows // together)
    if groups == 1:
        return first
    return _continued(first, _run(call, _rows(call, min(2 * together, rows))), groups)


def _rows(call: Call, count: int) -> tuple[Tensor, ...]:
    query, key_pool, value_pool, tables, positions = call.tensors
    return query[:count], key_pool, value_pool, tables[:count], positions[:count]


def _run(call: Call, tensors: tuple[Tensor, ...]) -> Report:
    """On zeros, but for slots and logits, of which no two may be the same."""
    given: list[Any] = [torch.zeros(one.shape, dtype=one.dtype, device="cpu") for one in tensors]
    if call.kernel == "kv_cache_write":
        given[1] = torch.arange(len(given[1]), dtype=torch.int32)
    if call.kernel == "topk_sample":
        given[0] = torch.arange(given[0].shape[1], dtype=torch.float32).expand(given[0].shape)
    _, report = simulated(replace(call, arguments=(*given, *call.arguments[len(tensors) :])))
    return report


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
                at(work.psum_cycles, second.engines[name].psum_cycles),
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
