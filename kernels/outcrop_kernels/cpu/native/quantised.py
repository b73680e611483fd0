"""Quantised weights in panels, and products with them: 16-bit activations by 8-bit or 4-bit weights.

The numbers are those of `reference.linear_quantised`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from outcrop_kernels.cpu.native.library import library
from outcrop_kernels.cpu.native.recording import empty
from outcrop_kernels.quantised import GROUP, Quantised

PANEL = 16
"""Output features that a panel of packed weights holds, as kPanel in kernels.h."""

_INT8_CHANNELS, _INT8_GROUPS, _INT4_GROUPS, _INT4_RANGES = range(4)  # as Codes in quantised.h
_FORMATS = {GROUP * 16 + 32: _INT8_GROUPS, GROUP * 8 + 32: _INT4_GROUPS, GROUP * 8 + 64: _INT4_RANGES}
"""By the bytes that a group of a panel takes."""


def fits(weight: Quantised[Tensor]) -> bool:
    """Whether a matrix divides into panels and groups."""
    features, depth = weight.codes.shape
    return features % PANEL == 0 and depth % GROUP == 0


def pack(weight: Quantised[Tensor]) -> Tensor:
    """A matrix that `fits` in panels, as quantised.h describes them: int8 [out / 16, bytes] with a scale for
    each feature, uint8 [out / 16, in / GROUP, bytes] with a scale for each group.

    Scales of groups are kept in float16, in which a GGUF file has them."""
    features, depth = weight.codes.shape
    panels, groups, steps = features // PANEL, depth // GROUP, GROUP // 2
    codes = weight.codes.view(panels, PANEL, groups, steps, 2).permute(0, 2, 3, 1, 4)
    if weight.bits == 4:
        codes = codes.contiguous().view(torch.uint8) + (8 if weight.minimum is None else 0)
        codes = codes[:, :, :, :8] | codes[:, :, :, 8:] << 4
    elif weight.scale.shape[1] == 1:
        scale = weight.scale.reshape(panels, PANEL)
        return torch.cat([codes.reshape(panels, -1), scale.view(torch.int8)], dim=1)
    codes = codes.reshape(panels, groups, -1).view(torch.uint8)
    halves = [codes, _halves(weight.scale, panels)]
    if weight.minimum is not None:
        halves.append(_halves(weight.minimum, panels))
    return torch.cat(halves, dim=2)


def _halves(values: Tensor, panels: int) -> Tensor:
    """Numbers [out, groups] as bytes [panels, groups, 32]."""
    half = values.to(torch.float16).view(panels, PANEL, -1).transpose(1, 2)
    return half.contiguous().view(torch.uint8)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x float32 [T, in], contiguous, times what `pack` returned -> float32 [T, out]."""
    rows, depth = x.shape
    groups, features = depth // GROUP, weight.shape[0] * PANEL
    codes, scales, sums = empty(rows, depth // 2), empty(rows, groups), empty(rows, groups)
    y = empty(rows, features)
    activations = (codes.data_ptr(), scales.data_ptr(), sums.data_ptr())
    library().outcrop_quantise(x.data_ptr(), *activations, rows, depth)
    kind = _INT8_CHANNELS if weight.dtype is torch.int8 else _FORMATS[weight.shape[2]]
    library().outcrop_linear_quantised(
        *activations, weight.data_ptr(), y.data_ptr(), rows, features, depth, kind
    )
    return y
