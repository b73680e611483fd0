"""The element types of the subset, how each lies in memory, and the casts the engines and the DMA do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DType = str
"""As in `nki.language` (SDK 2.28 to 2.32): the type's name."""

_STORED: dict[DType, Any] = {
    "float32": np.float32,
    "tfloat32": np.float32,
    "bfloat16": np.uint16,
    "float16": np.float16,
    "int32": np.int32,
    "uint32": np.uint32,
    "int16": np.int16,
    "uint16": np.uint16,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.uint8,
}
"""What numpy keeps. numpy has no bfloat16: its bits are kept."""

FLOATS = frozenset({"float32", "tfloat32", "bfloat16", "float16"})
FP32_LIKE = frozenset({"float32", "tfloat32"})
EXACT_INTEGER = 1 << 24
"""Integers up to here survive a cast to float32, in which the vector and scalar engines compute."""


def known(dtype: DType) -> bool:
    return dtype in _STORED


def names() -> tuple[DType, ...]:
    return tuple(_STORED)


def stored(dtype: DType) -> Any:
    return _STORED[dtype]


def width(dtype: DType) -> int:
    """Bytes of an element."""
    return int(np.dtype(_STORED[dtype]).itemsize)


def is_integer(dtype: DType) -> bool:
    return dtype not in FLOATS


def to_float(raw: NDArray[Any], dtype: DType) -> NDArray[np.float32]:
    """What an engine reads: float32, exactly for every float type."""
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.astype(np.float32, copy=False)


def from_float(values: NDArray[np.float32], dtype: DType) -> NDArray[Any]:
    """What an engine writes: rounded to nearest, ties to even; integers saturate
    (release notes of NKI 0.6: "fp32-to-integer casts match hardware")."""
    if dtype == "float32":
        return values
    if dtype == "bfloat16":
        return _high_half(values, 16)
    if dtype == "tfloat32":
        return (_high_half(values, 13).astype(np.uint32) << np.uint32(13)).view(np.float32)
    if dtype == "float16":
        return values.astype(np.float16)
    limits = np.iinfo(_STORED[dtype])
    whole: NDArray[Any] = np.nan_to_num(np.rint(values.astype(np.float64)), nan=0.0)
    saturated: NDArray[Any] = np.clip(whole, limits.min, limits.max).astype(_STORED[dtype])
    return saturated


def _high_half(values: NDArray[np.float32], dropped: int) -> NDArray[Any]:
    """The bits above the `dropped` lowest, rounded to nearest even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    half = np.uint32((1 << (dropped - 1)) - 1)
    odd = (bits >> np.uint32(dropped)) & np.uint32(1)
    rounded = (bits + half + odd) >> np.uint32(dropped)
    nan = np.uint32(0x7FC00000 >> dropped)
    rounded = np.where(np.isnan(values), nan, rounded)
    return rounded.astype(np.uint16 if dropped == 16 else np.uint32)


def cast(raw: NDArray[Any], source: DType, target: DType) -> NDArray[Any]:
    """Same type: the bits. Otherwise through float32, as DMA and the engines do (nki.isa.dma_copy)."""
    return raw if source == target else from_float(to_float(raw, source), target)


def of_array(array: NDArray[Any]) -> DType:
    """The element type of a numpy argument.

    Raises:
        TypeError: NeuronCore-v2 has no such type.
    """
    name = "bool" if array.dtype == np.bool_ else array.dtype.name
    if not known(name):
        raise TypeError(
            f"an argument of {array.dtype} has no NKI type. Give one of {', '.join(names())}: "
            "64-bit numbers do not exist on NeuronCore-v2"
        )
    return name
