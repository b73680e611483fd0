from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ..api.server import Server, running
from .engine import FakeEngine


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server of one model in demo mode, with a real scheduler and KV pool under it."""
    with running(FakeEngine()) as server:
        yield server


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
