"""What a build needs of its host. It needs no Neuron device, so any x86 machine will do.

The compiler's memory is an estimate, on the safe side: reports are of 8B compilations killed on 32 GiB, done
on 128 GiB. It grows with the instructions of the unrolled graph. Not yet compared with a compiler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from outcrop_compile.bucket import Bucket
from outcrop_compile.instances import Instance
from outcrop_compile.plan.instructions import instructions
from outcrop_compile.tensor_parallel import Layout

_COMPILER = 8 << 30
_INSTRUCTION = 16 << 10
_PROCESS = 2 << 30


@dataclass(frozen=True, slots=True)
class BuildMemory:
    """Bytes. shard: while weights are written, one rank at a time. compiler: of one compilation, the largest.
    workers: compilations that run at the same time in the instance's own memory; 0 if not one does."""

    shard: int
    compiler: int
    workers: int

    @property
    def least(self) -> int:
        """What a host must have."""
        return _PROCESS + max(self.shard, self.compiler)


def build_memory(
    layout: Layout, buckets: Iterable[Bucket], graphs: int, weights: int, instance: Instance
) -> BuildMemory:
    """graphs: to be compiled. weights: bytes of one rank."""
    largest = max(instructions(layout, bucket) for bucket in buckets)
    compiler = _COMPILER + largest * _INSTRUCTION
    room = (instance.host_gib << 30) - _PROCESS
    workers = worker_count(graphs, compiler, room, instance.vcpus) if room >= weights else 0
    return BuildMemory(shard=weights, compiler=compiler, workers=workers)


def worker_count(graphs: int, one: int, available: int, cpus: int) -> int:
    """Compilations to run at the same time. one: bytes that the largest of them takes. 0 if not one fits."""
    return min(graphs, cpus, available // one)
