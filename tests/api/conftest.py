from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from .doubles import Script, ScriptedEngine
from .server import Server, running


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with running(ScriptedEngine()) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    """A server in demo mode whose engine says "Hello, world"; shared, so each test sets its own script."""
    shared_server.engine.script = Script()
    shared_server.engine.requests.clear()
    return shared_server


@pytest.fixture(params=["http/1.1", "h2c"])
def http(server: Server, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A plain client over HTTP/1.1 and over HTTP/2 with prior knowledge."""
    h2c = request.param == "h2c"
    with httpx.Client(base_url=server.url, http1=not h2c, http2=h2c, timeout=20) as client:
        yield client
