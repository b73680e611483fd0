"""The registry's operations by NKI kernels, for target neuron.

Each takes its kernel where the contract allows and the version for XLA otherwise, so that a graph can be made
in any case. On XLA tensors a kernel becomes a custom call of the graph (what nki.jit makes of it does so, as
in NxD Inference); in eager mode it runs in the simulator. Not yet run on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from outcrop_kernels import reference
from outcrop_kernels.nki.catalogue import KERNELS
from outcrop_kernels.nki.kernel import Entry
from outcrop_kernels.nki.language import SIMULATED
from outcrop_kernels.nki.simulator import Report, simulate

if TYPE_CHECKING:
    from outcrop_kernels.registry import Operations


class KernelsUnavailable(RuntimeError):
    """A graph is to call kernels, and the package that compiles them is not here."""


@dataclass(frozen=True, slots=True)
class NkiOperations:
    """kernels: names in `KERNELS`. gather: whether DMA may gather and scatter by indices in SBUF; without
    that, it moves one row or block at a time. fallback: the operations as XLA has them.

    The contracts of the methods are those of the functions of their names in `outcrop_kernels.reference`.
    """

    kernels: Collection[str]
    gather: bool
    fallback: Operations

    def implementations(self) -> dict[str, Callable[..., Any]]:
        """Of the operations that the kernels implement."""
        wanted = {name for kernel in self.kernels for name in KERNELS[kernel].operations}
        return {name: getattr(self, name) for name in sorted(wanted)}

    def kv_write(self, pool: Tensor, slots: Tensor, values: Tensor) -> Any:
        blocks, size, heads, dim = pool.shape
        tensors = (pool.reshape(blocks * size, heads * dim), slots, values.reshape(-1, heads * dim))
        if (entry := self._entry("kv_cache_write", 0, tensors)) is not None:
            return self._run(entry, *tensors, reference.FINITE_MAX).reshape(pool.shape)
        return self.fallback.kv_write(pool, slots, values)

    def paged_attention(
        self, query: Tensor, key_pool: Tensor, value_pool: Tensor, block_tables: Tensor, positions: Tensor
    ) -> Any:
        """By the kernel for a few tokens a row where it takes them, or the one for many."""
        tensors = (query, key_pool, value_pool, block_tables, positions)
        for name in ("paged_decode_attention", "paged_prefill_attention"):
            if (entry := self._entry(name, 0, tensors)) is not None:
                return self._run(entry, *tensors)
        return self.fallback.paged_attention(*tensors)

    def candidates(self, logits: Tensor, count: int) -> Any:
        if (entry := self._entry("topk_sample", 0, (logits,), {"C": count})) is not None:
            return self._run(entry, logits, count)
        return self.fallback.candidates(logits, count)

    def greedy(self, logits: Tensor) -> Any:
        if (entry := self._entry("topk_sample", 1, (logits,))) is not None:
            return self._run(entry, logits)
        return self.fallback.greedy(logits)

    def sample(self, logits: Tensor, sampling: Tensor, draws: Tensor) -> Any:
        values, ids = self.candidates(logits, min(reference.TOPK_CAP, logits.shape[-1]))
        return reference.chosen(values, ids, self.greedy(logits), sampling, draws)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Any:
        if (entry := self._entry("rmsnorm", 0, (x, weight))) is not None:
            return self._run(entry, x, weight, eps)
        return self.fallback.rms_norm(x, weight, eps)

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Any:
        if (entry := self._entry("rope", 0, (x, cos, sin))) is not None:
            return self._run(entry, x, cos, sin)
        return self.fallback.rope(x, cos, sin)

    def _entry(
        self, name: str, place: int, tensors: tuple[Tensor, ...], sizes: Mapping[str, int] | None = None
    ) -> Entry | None:
        """A kernel's function if the kernel is wanted and takes these tensors."""
        entry = KERNELS[name].entries[place]
        if name not in self.kernels or entry.contract.refusal(tensors, sizes) is not None:
            return None
        return entry

    def _run(self, entry: Entry, *arguments: Any) -> Any:
        return run(entry, arguments, gather=self.gather)


def run(entry: Entry, arguments: tuple[Any, ...], *, gather: bool) -> Any:
    """Call a kernel on its arguments, but for the choice between a gather and single transfers.

    Raises KernelsUnavailable where a graph is made without the package that compiles kernels, and the
    simulator's Refused.
    """
    if any(isinstance(one, Tensor) and one.device.type == "xla" for one in arguments):
        if SIMULATED:
            raise KernelsUnavailable(
                f"the kernel {entry.name} is to be compiled, and there is no package nki here: install the "
                "Neuron SDK's, or build without kernels (--kernels none)"
            )
        return entry.function(*_complete(entry, arguments, gather))
    results, _ = simulated(entry, arguments, gather=gather)
    return results


def simulated(
    entry: Entry, arguments: tuple[Any, ...], *, gather: bool, seeds: tuple[int, ...] = ()
) -> tuple[Any, Report]:
    """`run` in the simulator: results and counts. seeds: other orders of independent loops to try. Raises the
    simulator's Refused."""
    given = _complete(entry, arguments, gather)
    return simulate(entry.function, *given, mutable=entry.mutable, indirect_dma=gather, seeds=seeds)


def _complete(entry: Entry, arguments: tuple[Any, ...], gather: bool) -> tuple[Any, ...]:
    return (*arguments, gather) if entry.gathers else arguments
