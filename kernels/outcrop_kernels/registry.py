"""Which implementation of each operation a target uses."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from outcrop_kernels import reference
from outcrop_kernels.quantised import Quantised

if TYPE_CHECKING:
    from outcrop_kernels.nki.operations import Caller

Target = Literal["reference", "cpu", "native", "neuron"]


@dataclass(frozen=True, slots=True)
class Operations:
    """One implementation of each operation the model calls. The contract of each (shapes, dtypes,
    rounding) is the docstring of the function of that name in `outcrop_kernels.reference`."""

    pack: Callable[[Tensor | Quantised[Tensor]], Tensor | Quantised[Tensor]] = reference.pack
    take: Callable[[Tensor, Tensor], Tensor] = reference.take
    pick: Callable[[Tensor, Tensor], Tensor] = reference.pick
    step_tokens: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = reference.step_tokens
    keep_tokens: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = reference.keep_tokens
    add: Callable[[Tensor, Tensor], Tensor] = reference.add
    linear: Callable[[Tensor, Tensor], Tensor] = reference.linear
    linear_int8: Callable[[Tensor, Tensor, Tensor], Tensor] = reference.linear_int8
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = reference.rms_norm
    add_rms_norm: Callable[[Operations, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = (
        reference.add_rms_norm
    )
    rope: Callable[[Tensor, Tensor, Tensor], Tensor] = reference.rope
    fused_qkv: Callable[
        [Operations, Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, int, float],
        tuple[Tensor, Tensor, Tensor],
    ] = reference.fused_qkv
    kv_pool: Callable[[int, int, int, int, torch.dtype], Tensor] = reference.kv_pool
    kv_write: Callable[[Tensor, Tensor, Tensor], Tensor] = reference.kv_write
    cached_qkv: Callable[
        [
            Operations,
            Tensor,
            Tensor,
            Tensor,
            Tensor | None,
            Tensor,
            Tensor,
            int,
            float,
            tuple[Tensor, Tensor],
            Tensor,
        ],
        tuple[Tensor, Tensor, Tensor],
    ] = reference.cached_qkv
    paged_attention: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = reference.paged_attention
    swiglu: Callable[[Tensor], Tensor] = reference.swiglu
    swiglu_mlp: Callable[[Operations, Tensor, Tensor, Tensor | None, Tensor, Tensor | None], Tensor] = (
        reference.swiglu_mlp
    )
    peak: Callable[[Tensor], Tensor] = reference.peak
    both_finite: Callable[[Tensor, Tensor], Tensor] = reference.both_finite
    edit_logits: Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None], Tensor] = (
        reference.edit_logits
    )
    candidates: Callable[[Tensor, int], tuple[Tensor, Tensor]] = reference.candidates
    greedy: Callable[[Tensor], Tensor] = reference.greedy
    sample: Callable[[Tensor, Tensor, Tensor], Tensor] = reference.sample


def operations(
    target: Target, kernels: Collection[str] = (), *, gather: bool = False, caller: Caller | None = None
) -> Operations:
    """The operations of a target: its own where it has one, the reference otherwise.

    kernels: of target neuron, names in `outcrop_kernels.nki.catalogue`, whose `weight_layout` says how
    matrices are to lie. gather: whether they may use DMA that gathers by indices in SBUF; without that, it
    moves one row or block at a time. caller: what calls a kernel; None for what runs or compiles it.
    """
    if target == "reference":
        return Operations()
    if target == "neuron":
        from outcrop_kernels import neuron

        plain = replace(Operations(), **neuron.IMPLEMENTATIONS)
        if not kernels:
            return plain
        from outcrop_kernels.nki.catalogue import weight_layout
        from outcrop_kernels.nki.operations import NkiOperations, run

        if weight_layout(kernels) == "inputs-first":
            plain = replace(
                plain, linear=reference.linear_inputs_first, linear_int8=reference.linear_int8_inputs_first
            )
        return replace(plain, **NkiOperations(kernels, gather, plain, caller or run).implementations())
    from outcrop_kernels.cpu import eager

    if target == "cpu":
        return replace(Operations(), **eager.IMPLEMENTATIONS)
    from outcrop_kernels.cpu.native.operations import IMPLEMENTATIONS

    return replace(Operations(), **(eager.IMPLEMENTATIONS | IMPLEMENTATIONS))
