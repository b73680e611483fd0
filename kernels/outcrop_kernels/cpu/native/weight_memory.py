"""Packed weights side by side in memory, and in a file from which a later start reads them. No torch, so that
a file can be read while torch is being imported."""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"outcrop packed weights 1\n"
UNFINISHED = ".unfinished"
"""What the name of a file ends in while it is being written."""
_ALIGNMENT = 64
"""Bytes: a cache line."""
_PAGE = 4096
"""Bytes that the file's head is a multiple of."""


class DamagedFile(ValueError):
    """A file of packed weights is not what was written; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor. dtype: torch's name for it. start: its first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int


@dataclass(slots=True)
class WeightMemory:
    """Tensors in the first `used` bytes of one stretch of memory, which lives as long as views of it do."""

    memory: npt.NDArray[np.uint8]
    entries: dict[str, Entry] = field(default_factory=dict)
    used: int = 0

    @classmethod
    def of_sizes(cls, sizes: Iterable[int]) -> WeightMemory:
        """Room for tensors of so many bytes. Only what is written takes up memory."""
        return cls(_huge_pages(sum(map(_aligned, sizes))))

    def add(self, name: str, dtype: str, shape: tuple[int, ...], data: npt.NDArray[np.uint8]) -> None:
        """Copy a tensor's bytes to the end."""
        start = self.used
        self.entries[name] = Entry(dtype, shape, start)
        self.memory[start : start + len(data)] = data
        self.used = start + _aligned(len(data))

    def save(self, path: Path) -> None:
        """Write a file that is there whole or not at all. Raises OSError."""
        entries = {name: asdict(entry) for name, entry in self.entries.items()}
        body = self.memory[: self.used]
        head = json.dumps({"size": self.used, "checksum": _checksum(body), "entries": entries}).encode()
        head = _MAGIC + len(head).to_bytes(8, "little") + head
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=".", suffix=UNFINISHED, delete=False
        ) as file:
            try:
                file.write(head + bytes(-len(head) % _PAGE))
                file.write(body.data)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise

    @classmethod
    def load(cls, path: Path) -> WeightMemory:
        """Read what `save` wrote. Raises DamagedFile and OSError."""
        # A copy in huge pages, not a map of the file: decode steps were up to 9 % faster than on small pages
        # (a map was not measurably slower), the copy is made while torch is being imported, and what was
        # checked stays what it was, where a map of a file that is cut off later ends the process.
        with path.open("rb", buffering=0) as file:
            start = file.read(len(_MAGIC) + 8)
            if start[:-8] != _MAGIC:
                raise DamagedFile(f"{path}: it does not start as a file of packed weights does")
            length = int.from_bytes(start[-8:], "little")
            body_start = -(-(len(start) + length) // _PAGE) * _PAGE
            try:
                head = json.loads(file.read(length))
                size, checksum = head["size"], head["checksum"]
                entries = {
                    name: Entry(e["dtype"], tuple(e["shape"]), e["start"])
                    for name, e in head["entries"].items()
                }
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DamagedFile(f"{path}: damaged in its head: {error!r}") from None
            found = os.fstat(file.fileno()).st_size
            if found != body_start + size:
                raise DamagedFile(f"{path}: {found} bytes long, not {body_start + size}")
            memory = _huge_pages(size)
            file.seek(body_start)
            _fill(file, memory)
        if _checksum(memory) != checksum:
            raise DamagedFile(f"{path}: its checksum is wrong")
        return cls(memory, entries, size)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _fill(file: Any, memory: npt.NDArray[np.uint8]) -> None:
    view = memory.data
    while len(view):
        count = file.readinto(view)
        if not count:
            raise DamagedFile(f"{file.name}: it ended while it was read")
        view = view[count:]


def _huge_pages(size: int) -> npt.NDArray[np.uint8]:
    """Zeroed memory of its own, in huge pages where the system has them to give."""
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint8)[:size]


def _checksum(body: npt.NDArray[np.uint8]) -> int:
    """Finds what goes wrong with files (cut off, zeroed or overwritten parts) as fast as memory is read."""
    return int(np.add.reduce(body.view(np.uint64), dtype=np.uint64))
