"""Where and from when a list goes on: what clients may send that means nothing."""

from __future__ import annotations

import base64

import httpx
import pytest

from ..api.server import Server


@pytest.mark.parametrize(
    "position",
    [
        b"[" * 1500,
        b'["0001-01-01T00:00:00+23:59","a"]',
        b'["9999-12-31T23:59:59-23:59","a"]',
        rb'["2026-01-01T00:00:00Z","\ud800"]',
        b'["2026-01-01T00:00:00Z"]',
        b'"ab"',
        b"",
    ],
)
def test_page_tokens_of_nobodys(server: Server, position: bytes) -> None:
    token = base64.urlsafe_b64encode(position).decode()
    answer = httpx.get(f"{server.url}/model-import-jobs", params={"nextToken": token or "="})
    assert answer.headers["x-amzn-errortype"] == "ValidationException"
    assert "nextToken" in answer.json()["message"]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "now"])
def test_moments_that_are_none(server: Server, moment: str) -> None:
    answer = httpx.get(f"{server.url}/model-import-jobs", params={"creationTimeAfter": moment})
    assert answer.headers["x-amzn-errortype"] == "SerializationException"
    assert "creationTimeAfter" in answer.json()["message"]


@pytest.mark.parametrize(
    "moment", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T02:00:00+02:00"]
)
def test_moments(server: Server, moment: str) -> None:
    answer = httpx.get(f"{server.url}/model-import-jobs", params={"creationTimeAfter": moment})
    assert answer.json() == {"modelImportJobSummaries": []}
