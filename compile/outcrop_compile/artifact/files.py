"""Files by their content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

Advance = Callable[[int], None]
"""Called with the number of bytes that were done since the last call."""

CHUNK = 1 << 20


class StoredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of an artifact. path: in the artifact's folder, `/` between names. size: bytes."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or "\\" in self.path or ".." in parts:
            raise ValueError(f"path {self.path!r} is not one inside the artifact")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"sha256 of {self.path!r} is not 64 hexadecimal digits")


def sha256_of(path: Path, advance: Advance = lambda done: None) -> str:
    """Of a file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def stored(folder: Path, path: str, advance: Advance = lambda done: None) -> StoredFile:
    """A file that is there, as a manifest has it. Raises OSError."""
    file = folder / path
    return StoredFile(path, file.stat().st_size, sha256_of(file, advance))


def place(path: Path, data: bytes) -> None:
    """Write a small file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
