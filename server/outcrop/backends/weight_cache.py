"""Packed weights on disk, so that a model is packed once and not at every start."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outcrop.backends import calibration
from outcrop.folders import cache_folder
from outcrop_kernels.cpu.native.library import library_file
from outcrop_kernels.cpu.native.weight_memory import UNFINISHED, DamagedFile, WeightMemory

_VERSION = 1
"""To be raised when the numbers that are packed change; the library's own digest stands for how."""
_SUFFIX = ".weights"
_KEPT = 30 * 24 * 3600.0
"""Seconds without use after which weights go: their checkpoint was moved or changed, or Outcrop was."""
_ABANDONED = 3600.0
"""Seconds after which a file that is still being written belongs to a server that was killed."""
_SAMPLES, _SAMPLE = 16, 4096
"""Places of a checkpoint's file that are looked at, and bytes at each."""


@dataclass(frozen=True, slots=True)
class WeightCache:
    """A folder of packed weights, each under a name made of what it depends on.

    Any file of it may be deleted at any time: one that a server is reading stays whole for that server, since
    it has it open, and one that is gone is made again. What is not used for 30 days goes when new weights
    come, as does what a killed server left unfinished. limit: bytes of all files together, the longest unused
    of which make room for new ones.
    """

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
        now = time.time()
        for path, status in self._files(UNFINISHED):
            if now - status.st_mtime > _ABANDONED:
                path.unlink(missing_ok=True)
        total = 0
        files = sorted(
            (path != newest, now - status.st_mtime, status.st_size, path)
            for path, status in self._files(_SUFFIX)
        )
        for is_older, unused, size, path in files:
            total += size
            if total > self.limit or (is_older and unused > _KEPT):
                path.unlink(missing_ok=True)
                path.with_suffix(calibration.SUFFIX).unlink(missing_ok=True)

    def _files(self, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("*" + suffix):
            with contextlib.suppress(FileNotFoundError):  # another server makes room too
                yield path, path.stat()


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
