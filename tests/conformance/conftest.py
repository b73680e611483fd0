from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from outcrop.api.admission import ApiLimits
from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.job_runner import JobOptions

from ..api.server import Server, running
from .engine import FakeEngine
from .folder_buckets import FolderBuckets


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
