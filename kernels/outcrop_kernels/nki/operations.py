"""The registry's operations by NKI kernels, for target neuron.

Each takes its kernel where the contract allows and the version for XLA otherwise, so that a graph can be made
in any case. On XLA tensors a kernel becomes a custom call of the graph (what nki.jit makes of it does so, as
in NxD Inference); in eager mode it runs in the simulator. Not yet run on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
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
class Call:
    """kernel: its name in `KERNELS`. entry: the function. arguments: but for the choice between a gather and
    single transfers, which is `gather`. sizes: of results, where no argument has them."""

    kernel: str
    entry: Entry
    arguments: tuple[Any, ...]
    gather: bool
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> tuple[Any, ...]:
        """Its arguments, all of them."""
        return (*self.arguments, self.gather) if self.entry.gathers else self.arguments

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Of its arguments: those that the contract names, in their order."""
        return tuple(one for one in self.arguments if isinstance(one, Tensor))

    def made(self) -> list[tuple[tuple[int, ...], str]]:
        """Shape and dtype of each result."""
        return self.entry.contract.made(self.tensors, self.sizes)


Caller = Callable[[Call], Any]
"""What becomes of a call: the kernel's result, or its results."""


@dataclass(frozen=True, slots=True)
class NkiOperations:
    """kernels: names in `KERNELS`. gather: as in a call. fallback: the operations as XLA has them. caller:
    what calls a kernel.

    The contracts of the methods are those of the functions of their names in `outcrop_kernels.reference`.
    """

    kernels: Collection[str]
    gather: bool
    fallback: Operations
    caller: Caller

    def implementations(self) -> dict[str, Callable[..., Any]]:
        """Of the operations that the kernels implement."""
        wanted = {name for kernel in self.kernels for name in KERNELS[kernel].operations}
        return {name: getattr(self, name) for name in sorted(wanted)}

    def kv_write(self, pool: Tensor, slots: Tensor, values: Tensor) -> Any:
        blocks, size, heads, dim = pool.shape
        tensors = (pool.reshape(blocks * size, heads * dim), slots, values.reshape(-1, heads * dim))
        if (call := self._call("kv_cache_write", 0, tensors, (reference.FINITE_MAX,))) is not None:
            return self.caller(call).reshape(pool.shape)
        return self.fallback.kv_write(pool, slots, values)

    def paged_attention(
        self, query: Tensor, key_pool: Tensor, value_pool: Tensor, block_tables: Tensor, positions: Tensor
    ) -> Any:
        """By the kernel for a few tokens a row where it takes them, or the one for many."""
        tensors = (query, key_pool, value_pool, block_tables, positions)
        for name in ("paged_decode_attention", "paged_prefill_attention"):
            if (call := self._call(name, 0, tensors)) is not None:
                return self.caller(call)
        return self.fallback.paged_attention(*tensors)

    def candidates(self, logits: Tensor, count: int) -> Any:
        if (call := self._call("topk_sample", 0, (logits,), (count,), {"C": count})) is not None:
            return self.caller(call)
        return self.fallback.candidates(logits, count)

    def greedy(self, logits: Tensor) -> Any:
        if (call := self._call("topk_sample", 1, (logits,))) is not None:
            return self.caller(call)
        return self.fallback.greedy(logits)

    def sample(self, logits: Tensor, sampling: Tensor, draws: Tensor) -> Any:
        values, ids = self.candidates(logits, min(reference.TOPK_CAP, logits.shape[-1]))
        return reference.chosen(values, ids, self.greedy(logits), sampling, draws)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Any:
        if (call := self._call("rmsnorm", 0, (x, weight), (eps,))) is not None:
            return self.caller(call)
        return self.fallback.rms_norm(x, weight, eps)

    def add_rms_norm(self, ops: Operations, x: Tensor, update: Tensor, weight: Tensor, eps: float) -> Any:
        if (call := self._call("rmsnorm", 1, (x, update, weight), (eps,))) is not None:
            return self.caller(call)
        return self.fallback.add_rms_norm(ops, x, update, weight, eps)

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Any:
        if (call := self._call("rope", 0, (x, cos, sin))) is not None:
            return self.caller(call)
        return self.fallback.rope(x, cos, sin)

    def fused_qkv(
        self,
        ops: Operations,
        x: Tensor,
        norm: Tensor,
        weight: Tensor,
        scale: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        heads: int,
        eps: float,
    ) -> Any:
        dim = 2 * cos.shape[-1]
        sizes = {"H": heads, "K": (weight.shape[-1] // dim - heads) // 2, "D": dim}
        call = self._call("fused_qkv", 0, (x, norm, weight, cos, sin), (heads, eps), sizes)
        if call is not None:
            return self.caller(call)
        return self.fallback.fused_qkv(ops, x, norm, weight, scale, cos, sin, heads, eps)

    def swiglu_mlp(
        self,
        ops: Operations,
        x: Tensor,
        gate_up: Tensor,
        gate_up_scale: Tensor | None,
        down: Tensor,
        down_scale: Tensor | None,
    ) -> Any:
        """Codes of 8 bits are not of x's type, which the contract asks for; so in `fused_qkv`."""
        if (call := self._call("swiglu_mlp", 0, (x, gate_up, down))) is not None:
            return self.caller(call)
        return self.fallback.swiglu_mlp(ops, x, gate_up, gate_up_scale, down, down_scale)

    def linear_int8(self, x: Tensor, codes: Tensor, scale: Tensor) -> Any:
        if (call := self._call("int8_dequant_matmul", 0, (x, codes, scale))) is not None:
            return self.caller(call)
        return self.fallback.linear_int8(x, codes, scale)

    def _call(
        self,
        name: str,
        place: int,
        tensors: tuple[Tensor, ...],
        rest: tuple[Any, ...] = (),
        sizes: Mapping[str, int] | None = None,
    ) -> Call | None:
        """The call of a kernel's function if the kernel is wanted and takes these tensors."""
        entry, sizes = KERNELS[name].entries[place], sizes or {}
        if name not in self.kernels or entry.contract.refusal(tensors, sizes) is not None:
            return None
        return Call(name, entry, (*tensors, *rest), self.gather, sizes)


def run(call: Call) -> Any:
    """The usual caller: on XLA tensors the kernel is made a part of the graph, on others it is simulated.

    Raises KernelsUnavailable where a graph is made without the package that compiles kernels, and the
    simulator's Refused.
    """
    if any(one.device.type == "xla" for one in call.tensors):
        if SIMULATED:
            raise KernelsUnavailable(
                f"the kernel {call.entry.name} is to be compiled, and there is no package nki here: install "
                "the Neuron SDK's, or build without kernels (--kernels none)"
            )
        return call.entry.function(*call.complete)
    results, _ = simulated(call)
    return results


def simulated(call: Call, seeds: tuple[int, ...] = ()) -> tuple[Any, Report]:
    """`run` in the simulator: results and counts. seeds: other orders of independent loops to try. Raises the
    simulator's Refused."""
    entry = call.entry
    return simulate(
        entry.function, *call.complete, mutable=entry.mutable, indirect_dma=call.gather, seeds=seeds
    )
