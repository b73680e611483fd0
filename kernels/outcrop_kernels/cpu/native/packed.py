"""The packed weights of a model as tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from outcrop_kernels.cpu.native.operations import pack
from outcrop_kernels.cpu.native.weight_memory import WeightMemory
from outcrop_kernels.quantised import Quantised


def pack_weights(weights: Iterable[tuple[str, Tensor | Quantised[Tensor]]]) -> WeightMemory:
    """Pack every weight but `embed`, whose rows are looked up one by one, into memory of its own; where there
    is no `lm_head`, embed is packed under that name too. Each weight is let go before the next one is asked
    for, so an iterable that makes them on the way never holds the model twice."""
    packed: dict[str, Tensor] = {}
    for name, weight in weights:
        if name == "embed" and isinstance(weight, Tensor):
            packed[name] = weight
        else:
            packed[name] = pack(weight)
    if "lm_head" not in packed:
        packed["lm_head"] = pack(packed["embed"])
    memory = WeightMemory.of_sizes(tensor.nbytes for tensor in packed.values())
    for name in list(packed):
        tensor = packed.pop(name)
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        memory.add(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data)
    return memory


def in_panels(parameters: Mapping[str, Tensor]) -> bool:
    """Whether every matrix is in panels, so that all that reads them can be recorded. One is not where a
    vocabulary, say, was given a token or two more."""
    return not any(
        tensor.dim() == 2 and tensor.dtype.is_floating_point
        for name, tensor in parameters.items()
        if name != "embed"
    )


def tensors(memory: WeightMemory) -> Mapping[str, Tensor]:
    """Views of the weights, by name."""
    everything, found = torch.from_numpy(memory.memory), {}
    for name, entry in memory.entries.items():
        dtype: torch.dtype = getattr(torch, entry.dtype)
        size = math.prod(entry.shape) * dtype.itemsize
        found[name] = everything[entry.start : entry.start + size].view(dtype).view(entry.shape)
    return found
