"""Which storage a store's name means."""

from __future__ import annotations

from pathlib import Path

from outcrop_compile.artifact.directory import Directory
from outcrop_compile.artifact.errors import ArtifactError
from outcrop_compile.artifact.s3 import Bucket
from outcrop_compile.artifact.store import Store


def open_store(where: str, *, endpoint: str | None = None) -> Store:
    """where: `s3://bucket/prefix`, or a directory (made when something is pushed). endpoint: URL of an S3
    that is not Amazon's. Raises ArtifactError."""
    scheme, separator, rest = where.partition("://")
    if not separator:
        if endpoint is not None:
            raise ArtifactError(f"an endpoint is for s3:// stores, and {where!r} is a directory")
        return Store(Directory(Path(where).expanduser()), where)
    if scheme != "s3":
        raise ArtifactError(f"{where!r}: a store is a directory or s3://bucket/prefix")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise ArtifactError(f"{where!r} names no bucket: s3://bucket/prefix")
    return Store(Bucket(bucket, prefix, endpoint=endpoint), where.rstrip("/"))
