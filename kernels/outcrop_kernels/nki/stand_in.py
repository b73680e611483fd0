"""Kernels in graphs that are lowered where the package that compiles them is not: see `custom_call`."""

from __future__ import annotations

from typing import Any

import torch

from outcrop_kernels.nki import custom_call
from outcrop_kernels.nki.operations import Call


def call(one: Call) -> Any:
    """A kernel's custom call on XLA tensors, without the kernel: its results."""
    from torch_xla.experimental.stablehlo_custom_call import stablehlo_custom_call

    arguments, results = one.entry.contract.arguments, one.entry.contract.results
    names = [result.name for result in results]
    aliases = {
        place: names.index(argument.name)
        for place, argument in enumerate(arguments)
        if argument.name in one.entry.mutable
    }
    made = one.made()
    return stablehlo_custom_call(
        one.tensors,
        custom_call.TARGET,
        tuple(shape for shape, _ in made),
        tuple(getattr(torch, dtype) for _, dtype in made),
        backend_config=custom_call.stand_in(one.entry.name, aliases),
    )
