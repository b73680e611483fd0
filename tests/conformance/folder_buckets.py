from __future__ import annotations

from outcrop.storage import Place, Storage
from outcrop_compile.artifact.directory import Directory


class FolderBuckets(Storage):
    """S3 of which each bucket is a folder: requests that name one are to be taken without any network."""

    def open(self, uri: str) -> tuple[Place, str]:
        assert self.folder is not None
        return Directory(self.folder), uri.partition("://")[2].lstrip("/")
