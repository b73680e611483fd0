"""Keys and policies on the routes of OpenAI and Anthropic, and in front of the inspector."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from outcrop.api.auth.keys import KeyStore
from outcrop.api.auth.policy import models_policy

from ..api.doubles import ScriptedEngine
from ..api.server import Server, running
from .test_server import MODEL, Caller, guarded

MESSAGE = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
CALLS = {
    "/anthropic/v1/messages": MESSAGE,
    "/anthropic/v1/messages/count_tokens": CHAT,
    "/openai/v1/chat/completions": CHAT,
    "/openai/v1/responses": {"model": MODEL, "input": "Hi"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore(tmp_path_factory.mktemp("state") / "keys.json")


@pytest.fixture(scope="module")
def server(store: KeyStore) -> Iterator[Server]:
    with running(ScriptedEngine(), authenticator=guarded(store), inspect=20) as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.mark.parametrize("path", CALLS)
def test_keys_and_the_models_they_are_for(http: httpx.Client, store: KeyStore, path: str) -> None:
    caller, stranger = Caller(store), Caller(store, policy=models_policy(["amazon.*"]))
    assert http.post(path, json=CALLS[path], headers=caller.token).status_code == 200
    refused = [
        http.post(path, json=CALLS[path]),
        http.post(path, json=CALLS[path], headers={"authorization": "Bearer nonsense"}),
        http.post(path, json=CALLS[path], headers=stranger.token),
    ]
    for response in refused:
        assert response.status_code == 403
        assert response.json()["error"]["type"] == "permission_error"


def test_anthropic_s_header_for_keys(http: httpx.Client, store: KeyStore) -> None:
    header = {"x-api-key": Caller(store).bearer}
    assert http.post("/anthropic/v1/messages", json=MESSAGE, headers=header).status_code == 200
    assert http.post("/anthropic/v1/messages", json=MESSAGE, headers={"x-api-key": "a"}).status_code == 403
    assert http.post("/openai/v1/chat/completions", json=CHAT, headers=header).status_code == 403


def test_the_inspector_shows_each_tenant_its_own(http: httpx.Client, store: KeyStore) -> None:
    one, two = Caller(store, tenant="one"), Caller(store, tenant="two")
    limited = Caller(store, tenant="one", policy=models_policy(["meta.*"]))
    for caller, text in ((one, "secret of one"), (two, "secret of two")):
        asked = {"model": MODEL, "input": text}
        http.post("/openai/v1/responses", json=asked, headers=caller.token).raise_for_status()
    shown = http.get("/inspector", headers=one.token)
    assert [each["request"]["input"] for each in shown.json()["requests"]] == ["secret of one"]
    assert "secret of two" not in shown.text
    assert http.get("/inspector", headers=limited.token).status_code == 403
    assert http.get("/inspector").status_code == 403
