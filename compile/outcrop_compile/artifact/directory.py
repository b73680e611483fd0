"""A store's storage in a directory, on a disk or a shared file system."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from outcrop_compile.artifact.files import CHUNK, Advance, place


class Directory:
    """Files below a root. A file that is being written is hidden (its name begins with a dot); two writers
    of one name wait for each other."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, prefix: str) -> Iterator[str]:
        folder = self.root / prefix.rpartition("/")[0]
        for path in folder.rglob("*"):
            name = path.relative_to(self.root).as_posix()
            if name.startswith(prefix) and not path.name.startswith(".") and path.is_file():
                yield name

    def size(self, name: str) -> int | None:
        try:
            return (self.root / name).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        with (self.root / name).open("rb") as file:
            file.seek(start)
            while piece := file.read(CHUNK):
                yield piece

    def write(self, name: str, file: Path, advance: Advance) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with _locked(part) as out, file.open("rb") as source:
            out.truncate(0)
            while piece := source.read(CHUNK):
                out.write(piece)
                advance(len(piece))
            out.flush()
            os.fsync(out.fileno())
            part.replace(path)

    def write_bytes(self, name: str, data: bytes) -> None:
        place(self.root / name, data)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """A file to append to that nobody else has. Whoever had it before may have given it another name, and
    then it is not this one any more."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                ours = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                ours = False
            if ours:
                yield file
                return
