"""Which implementation of each operation a target uses."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from outcrop_kernels import reference
from outcrop_kernels.quantised import Quantised

Target = Literal["reference", "cpu", "native", "neuron"]


@dataclass(frozen=True, slots=True)
class Operations:
    """One implementation of each operation the model calls. The contract of each (shapes, dtypes,
    rounding) is the docstring of the function of that name in `outcrop_kernels.reference`."""

    pack: Callable[[Tensor | Quantised[Tensor]], Tensor | Quantised[Tensor]] = reference.pack
    take: Callable[[Tensor, Tensor], Tensor] = reference.take
    add: Callable[[Tensor, Tensor], Tensor] = reference.add
    linear: Callable[[Tensor, Tensor], Tensor] = reference.linear
    linear_int8: Callable[[Tensor, Tensor, Tensor], Tensor] = reference.linear_int8
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = reference.rms_norm
    rope: Callable[[Tensor, Tensor, Tensor], Tensor] = reference.rope
    kv_pool: Callable[[int, int, int, int, torch.dtype], Tensor] = reference.kv_pool
    kv_write: Callable[[Tensor, Tensor, Tensor], Tensor] = reference.kv_write
    paged_attention: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = reference.paged_attention
    swiglu: Callable[[Tensor], Tensor] = reference.swiglu
    peak: Callable[[Tensor], Tensor] = reference.peak
    edit_logits: Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None], Tensor] = (
        reference.edit_logits
    )
    candidates: Callable[[Tensor, int], tuple[Tensor, Tensor]] = reference.candidates
    greedy: Callable[[Tensor], Tensor] = reference.greedy
    sample: Callable[[Tensor, Tensor, Tensor], Tensor] = reference.sample


def operation_names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Operations))


def operations(target: Target, kernels: Collection[str] = (), *, gather: bool = False) -> Operations:
    """The operations of a target: its own where it has one, the reference otherwise.

    kernels: of target neuron, names in `outcrop_kernels.nki.catalogue`. gather: whether they may use DMA that
    gathers by indices in SBUF.
    """
    if target == "reference":
        return Operations()
    if target == "neuron":
        from outcrop_kernels import neuron

        plain = replace(Operations(), **neuron.IMPLEMENTATIONS)
        if not kernels:
            return plain
        from outcrop_kernels.nki.operations import NkiOperations

        return replace(plain, **NkiOperations(kernels, gather, plain).implementations())
    from outcrop_kernels.cpu import eager

    if target == "cpu":
        return replace(Operations(), **eager.IMPLEMENTATIONS)
    from outcrop_kernels.cpu.native.operations import IMPLEMENTATIONS

    return replace(Operations(), **(eager.IMPLEMENTATIONS | IMPLEMENTATIONS))
