"""Bodies are the same over HTTP/1.1 and HTTP/2: the first is enough for them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ..server import Server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client
