from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from ..api.server import Server, running
from ..conformance.engine import FakeEngine

Client = Callable[[str], Any]
"""Makes a boto3 client of a service."""


def client_of(url: str, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of one model with an explicit id, and with no state yet."""
    with running(FakeEngine(), demo=False) as server:
        yield server


@pytest.fixture
def bedrock(server: Server) -> Any:
    return client_of(server.url, "bedrock")


@pytest.fixture
def runtime(server: Server) -> Any:
    return client_of(server.url, "bedrock-runtime")
