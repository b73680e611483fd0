from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from outcrop.api.admission import ApiLimits
from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.job_runner import JobOptions
from outcrop.storage import Place, Storage
from outcrop_compile.artifact.directory import Directory

from ..api.server import Server, running
from .engine import FakeEngine


class FolderBuckets(Storage):
    """S3 of which each bucket is a folder: requests that name one are to be taken without any network."""

    def open(self, uri: str) -> tuple[Place, str]:
        assert self.folder is not None
        return Directory(self.folder), uri.partition("://")[2].lstrip("/")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one model in demo mode, with a real scheduler and KV pool under it."""
    folder: Path = tmp_path_factory.mktemp("buckets")
    control = ControlOptions(FolderBuckets(folder), JobOptions(side_by_side=0))
    limits = ApiLimits(max_inflight=4096)  # of which many are reserved, a few at a time
    with running(FakeEngine(), limits=limits, control=control) as server:
        yield server


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
