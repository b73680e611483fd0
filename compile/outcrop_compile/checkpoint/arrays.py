"""Numbers as checkpoints store them, and their conversion. bfloat16 is handled as its bits, in uint16:
numpy has no such type, and no checkpoint of floating-point weights holds real integers."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from outcrop_compile.checkpoint.errors import CheckpointError

Array = npt.NDArray[Any]

_QUIET = np.uint16(0x0040)  # the bit that keeps a NaN a NaN when its low payload bits are cut off


def map_file(path: Path) -> Array:
    """The whole file as read-only bytes, uint8, in a memory map that lives as long as its views do."""
    with path.open("rb") as file:
        try:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except ValueError:
            raise CheckpointError(f"{path}: empty file") from None


def to_bfloat16(values: Array) -> Array:
    """float32 to bfloat16 bits (uint16): round to nearest even; NaN stays NaN, overflow becomes Inf."""
    bits = values.view(np.uint32)
    rounded = (bits >> 16) & 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    result = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        result[nan] = (bits[nan] >> 16).astype(np.uint16) | _QUIET
    return result


def convert_into(source: Array, out: Array) -> None:
    """Copy float32, float16 or bfloat16 bits (uint16) into an array, of the same shape, of float32 or
    bfloat16 bits (uint16), or numbers of any type into an array of that type. Rounds only where `out` is the
    narrower type."""
    if out.dtype == source.dtype:
        out[...] = source
    elif out.dtype == np.uint16:
        out[...] = to_bfloat16(source.astype(np.float32, copy=False))
    elif source.dtype == np.uint16:
        np.left_shift(source, np.uint32(16), out=out.view(np.uint32))
    else:
        out[...] = source
