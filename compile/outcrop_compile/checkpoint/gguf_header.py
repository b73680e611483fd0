"""The header of a GGUF file: metadata and tensor directory, without torch and in milliseconds.

The `gguf` package's own reader wraps every string of the vocabulary in numpy views, which takes seconds
for a 49k-token vocabulary; a server start cannot wait for that. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Dequantisation stays with the package.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outcrop_compile.checkpoint.errors import CheckpointError

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
_MAX_LENGTH = 1 << 28  # of one string or array: a corrupt length must not become an allocation


class GGUFError(CheckpointError):
    """The file is not a GGUF file that Outcrop can read; the message says where it broke."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the directory. shape: row-major (outermost first), as numpy and torch say it.
    kind: a `gguf.GGMLQuantizationType` value. offset: bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorEntry]


class _Cursor:
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def scalar(self, fmt: str) -> Any:
        try:
            (value,) = struct.unpack_from(fmt, self.data, self.at)
        except struct.error:
            raise GGUFError(f"{self.path}: truncated in its header at byte {self.at}") from None
        self.at += struct.calcsize(fmt)
        return value

    def length(self) -> int:
        count = int(self.scalar("<Q"))
        if count > _MAX_LENGTH:
            raise GGUFError(f"{self.path}: corrupt header, length {count} at byte {self.at - 8}")
        return count

    def string(self) -> str:
        count = self.length()
        raw = self.data[self.at : self.at + count]
        if len(raw) < count:
            raise GGUFError(f"{self.path}: truncated in its header at byte {self.at}")
        self.at += count
        return raw.decode("utf-8", errors="replace")

    def strings(self, count: int) -> list[str]:
        """`string` in a loop of its own: vocabularies are most of a header, and every call shows."""
        data, at, end, found = self.data, self.at, len(self.data), []
        for _ in range(count):
            start = at + 8
            if start > end:
                raise GGUFError(f"{self.path}: truncated in its header at byte {at}")
            at = start + _LENGTH.unpack_from(data, at)[0]
            if at > end:
                raise GGUFError(f"{self.path}: truncated in its header at byte {start}")
            found.append(data[start:at].decode("utf-8", errors="replace"))
        self.at = at
        return found

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        if kind not in _SCALARS:
            raise GGUFError(f"{self.path}: unknown metadata type {kind} at byte {self.at}")
        return self.scalar(_SCALARS[kind])

    def array(self) -> list[Any]:
        kind, count = int(self.scalar("<I")), self.length()
        if kind == _STRING:
            return self.strings(count)
        if kind not in _SCALARS:
            raise GGUFError(f"{self.path}: unsupported array of type {kind} at byte {self.at}")
        fmt = f"<{count}{_SCALARS[kind][1]}"
        try:
            values = list(struct.unpack_from(fmt, self.data, self.at))
        except struct.error:
            raise GGUFError(f"{self.path}: truncated in its header at byte {self.at}") from None
        self.at += struct.calcsize(fmt)
        return values


def read_header(path: Path) -> GGUFHeader:
    """Read metadata and tensor directory of a GGUF v2 or v3 file. Raises GGUFError, OSError."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise GGUFError(f"{path}: empty file") from None
        with data:
            cursor = _Cursor(data, path)
            if data[:4] != b"GGUF":
                raise GGUFError(f"{path}: not a GGUF file (it starts with {data[:4]!r})")
            cursor.at = 4
            version = cursor.scalar("<I")
            if version not in (2, 3):
                raise GGUFError(f"{path}: GGUF version {version}; versions 2 and 3 are supported")
            tensor_count, entry_count = cursor.length(), cursor.length()
            metadata = {cursor.string(): cursor.value(cursor.scalar("<I")) for _ in range(entry_count)}
            directory = []
            for _ in range(tensor_count):
                name, rank = cursor.string(), cursor.scalar("<I")
                if rank > 8:
                    raise GGUFError(f"{path}: corrupt header, tensor {name!r} has {rank} dimensions")
                shape = tuple(int(cursor.scalar("<Q")) for _ in range(rank))[::-1]
                directory.append((name, shape, int(cursor.scalar("<I")), int(cursor.scalar("<Q"))))
            start = _align(cursor.at, metadata.get("general.alignment", 32), path)
    tensors = {name: TensorEntry(name, shape, kind, start + at) for name, shape, kind, at in directory}
    return GGUFHeader(path, metadata, tensors)


def _align(at: int, alignment: Any, path: Path) -> int:
    """Where the tensors begin: the end of the header, rounded up."""
    if not isinstance(alignment, int) or alignment < 1:
        raise GGUFError(f"{path}: general.alignment is {alignment!r}, expected a positive integer")
    return -(-at // alignment) * alignment
