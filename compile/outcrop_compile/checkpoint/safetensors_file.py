"""One .safetensors file as named pieces. The `safetensors` package judges the header; the bytes are
mapped here, because numpy has no bfloat16 for the package to hand out."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from outcrop_compile.checkpoint.arrays import Array, map_file
from outcrop_compile.checkpoint.errors import CheckpointError
from outcrop_compile.checkpoint.tensors import Piece, Shape

_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True, eq=False)
class SafetensorsTensor:
    shape: Shape
    dtype: str
    data: Array  # its bytes

    def piece(self, name: str, where: str) -> Piece:
        """As a rectangle of floating-point numbers. Raises CheckpointError for other types."""
        if self.dtype not in _DTYPES:
            raise CheckpointError(
                f"{where}: tensor {name!r} has type {self.dtype}; supported: {', '.join(_DTYPES)}"
            )
        height, width = self.shape if len(self.shape) == 2 else (1, *self.shape)
        return Piece(self.data.view(_DTYPES[self.dtype]).reshape(height, width), width, _as_stored)


def read_tensors(path: Path) -> dict[str, SafetensorsTensor]:
    """Every tensor of a file, mapped, none of it read. Raises CheckpointError, OSError."""
    data = map_file(path)
    try:
        with safe_open(path, "numpy"):
            pass
    except SafetensorError as error:
        raise CheckpointError(f"{path}: {_truncation(data) or f'not a safetensors file ({error})'}") from None
    header, start = _header(data)
    return {
        name: SafetensorsTensor(
            tuple(entry["shape"]),
            entry["dtype"],
            data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def _header(data: Array) -> tuple[dict[str, dict[str, Any]], int]:
    """The header's entries, and where in the file the tensors begin."""
    (length,) = struct.unpack("<Q", bytes(data[:8]))
    header = json.loads(bytes(data[8 : 8 + length]))
    header.pop("__metadata__", None)
    return header, 8 + length


def _truncation(data: Array) -> str | None:
    """Which tensor a file was cut off in, if that is what is wrong with it: the usual accident (a download
    that stopped), for which the package only says that the file does not match its header."""
    try:
        header, start = _header(data)
        ends = sorted((start + int(entry["data_offsets"][1]), name) for name, entry in header.items())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, struct.error):
        return None
    for end, name in ends:
        if end > len(data):
            return f"truncated: the file has {len(data)} bytes, tensor {name!r} ends at byte {end}"
    return None


def _as_stored(data: Array) -> Array:
    return data
