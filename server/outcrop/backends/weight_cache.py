"""Packed weights on disk, so that a model is packed once and not at every start."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from outcrop.folders import cache_folder
from outcrop_kernels.cpu.native.library import library_file
from outcrop_kernels.cpu.native.weight_memory import DamagedFile, WeightMemory

_VERSION = 1
"""To be raised when the numbers that are packed change; the library's own digest stands for how."""
_SUFFIX = ".weights"
_SAMPLES, _SAMPLE = 16, 4096
"""Places of a checkpoint's file that are looked at, and bytes at each."""


@dataclass(frozen=True, slots=True)
class WeightCache:
    """A folder of packed weights, each under a name made of what it depends on. Any file of it may be deleted
    at any time. limit: bytes of all files together, the longest unused of which make room for new ones."""

    folder: Path
    limit: int

    @classmethod
    def at(cls, setting: str, limit: int) -> WeightCache | None:
        """The cache of a setting: a folder, "auto" for the user's own, "off" for none."""
        if setting == "off":
            return None
        return cls(cache_folder() if setting == "auto" else Path(setting).expanduser(), limit)

    def path(self, checkpoint: Path, dtype: str) -> Path:
        """Where the weights of a checkpoint in a type are, or would be."""
        return self.folder / (_key(checkpoint, dtype) + _SUFFIX)

    def load(self, path: Path) -> WeightMemory | None:
        """The weights; None where there are none, or none that are whole: then the file goes."""
        try:
            memory = WeightMemory.load(path)
        except FileNotFoundError:
            return None
        except (DamagedFile, OSError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the order in which they are removed is that of their last use
        return memory

    def store(self, path: Path, memory: WeightMemory) -> str:
        """Keep the weights, and say what became of that: a server runs as well without."""
        if memory.used > self.limit:
            return f"not cached ({memory.used >> 20} MiB, the limit is {self.limit >> 20})"
        try:
            memory.save(path)
            self._make_room(path)
        except OSError as error:
            return f"not cached ({error})"
        return "now cached"

    def _make_room(self, newest: Path) -> None:
        files = []
        for path in self.folder.glob("*" + _SUFFIX):
            with contextlib.suppress(FileNotFoundError):  # another server makes room too
                status = path.stat()
                files.append((path != newest, -status.st_mtime_ns, status.st_size, path))
        total = 0
        for _, _, size, path in sorted(files):
            total += size
            if total > self.limit:
                path.unlink(missing_ok=True)


def _key(checkpoint: Path, dtype: str) -> str:
    """Changes with the checkpoint, the type, and the library, whose layout the weights are in (the same one
    for all its instruction sets). A checkpoint is known by its files' names, sizes, times and samples: to
    read all of it would take as long as packing it."""
    digest = hashlib.sha256(f"{_VERSION} {dtype}\n".encode())
    digest.update(library_file().read_bytes())
    found = checkpoint.iterdir() if checkpoint.is_dir() else [checkpoint]
    for path in sorted(path for path in found if path.is_file()):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        with path.open("rb", buffering=0) as file:
            for index in range(_SAMPLES):
                file.seek(status.st_size * index // _SAMPLES)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:32]
