"""The weights of a model whose graphs are lowered, or looked at otherwise: their names, shapes and types."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from outcrop_compile.artifact.kernels import built_with
from outcrop_compile.hlo.record import Sizes
from outcrop_compile.plan.request import plain_type
from outcrop_compile.weights import is_multiplied, parameter_shapes
from outcrop_kernels.nki.catalogue import weight_layout
from outcrop_kernels.quantised import SCALE, Quantised


def model_weights(
    sizes: Sizes, make: Callable[[str, tuple[int, ...], torch.dtype], Tensor]
) -> dict[str, Tensor | Quantised[Tensor]]:
    """Every parameter of one rank, of tensors made by `make(name, shape, dtype)`, in the layout that the
    graphs' kernels want. Raises ShardingError."""
    weights: dict[str, Tensor | Quantised[Tensor]] = {}
    int8, layout = sizes.dtype == "int8", weight_layout(built_with(sizes.kernels)[0])
    for name, shape in parameter_shapes(sizes.config, sizes.tp, own_head=True).items():
        multiplied = is_multiplied(name, shape)
        stored = shape[::-1] if multiplied and layout == "inputs-first" else shape
        if int8 and multiplied:
            scale = make(name + SCALE, (shape[0], 1), torch.float32)
            weights[name] = Quantised(make(name, stored, torch.int8), scale, None, 8)
        else:
            weights[name] = make(name, stored, getattr(torch, plain_type(sizes.dtype)))
    return weights
