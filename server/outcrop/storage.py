"""Where jobs read and write: buckets of S3, or of anything that speaks it, and one folder of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from outcrop_compile.artifact.directory import Directory
from outcrop_compile.artifact.errors import ArtifactError
from outcrop_compile.artifact.files import Advance
from outcrop_compile.artifact.s3 import Bucket


class StorageError(Exception):
    """Something cannot be read or written; the message says what, and what S3 or the system said."""


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """What places raise, as a StorageError that names `uri`."""
    try:
        yield
    except (ArtifactError, OSError) as error:
        # The rest is for somebody at a terminal.
        raise StorageError(f"{uri}: {str(error).partition(' What was moved already')[0]}") from None


def below(name: str, rest: str) -> str:
    """The name that `rest` has in a folder, whose name may end in `/`, or be "" for the whole place."""
    return f"{name.rstrip('/')}/{rest}".lstrip("/")


class Place(Protocol):
    """Files by name, `/` between the parts of a name."""

    def names(self, prefix: str) -> Iterator[str]: ...
    def size(self, name: str) -> int | None: ...
    def read(self, name: str, start: int = 0) -> Iterator[bytes]: ...
    def write(self, name: str, file: Path, advance: Advance) -> None: ...
    def write_bytes(self, name: str, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Storage:
    """folder: in which `file://` may read and write; None forbids it. s3_endpoint: URL of an S3 that is not
    Amazon's. Credentials are the server's own, as AWS clients find them. Its calls block."""

    folder: Path | None = None
    s3_endpoint: str | None = None

    def check(self, uri: str) -> None:
        """Raises StorageError for a place that this server's settings do not allow."""
        if not uri.startswith("s3://"):
            self.path(uri)

    def open(self, uri: str) -> tuple[Place, str]:
        """The place of `s3://bucket/name` or `file:///path`, and the name there. Raises StorageError."""
        if not uri.startswith("s3://"):
            path = self.path(uri)
            assert self.folder is not None
            name = path.relative_to(self.folder.resolve()).as_posix()
            return Directory(self.folder.resolve()), ("" if name == "." else name) + "/" * uri.endswith("/")
        bucket, _, name = uri.removeprefix("s3://").partition("/")
        try:
            return Bucket(bucket, "", endpoint=self.s3_endpoint), name
        except ArtifactError as error:
            raise StorageError(str(error)) from None

    def path(self, uri: str) -> Path:
        """Of `file:///path`. Raises StorageError for one that is not allowed."""
        if self.folder is None:
            raise StorageError(
                f"{uri} names a file of the server's machine, which its settings do not allow. Set "
                "storage.folder to the folder that jobs may use, or use s3://"
            )
        path = Path(unquote(uri.removeprefix("file://"))).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise StorageError(f"{uri} is not in {self.folder}, the folder that jobs of this server may use")
        return path
