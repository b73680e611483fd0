"""What a key may use in a minute, as its calls meet it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from outcrop.api.auth.authenticator import Authenticator, utc_now
from outcrop.api.auth.keyring import KeyRing
from outcrop.api.auth.keys import KeyStore

from ..api.doubles import ScriptedEngine
from ..api.server import Server, running

HELLO: Any = {
    "modelId": "meta.llama3-8b-instruct-v1:0",
    "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
}
PROMPT, ANSWER = len(b"user: Hi\n"), len(b"Hello, world") + 1
"""Tokens: the double has one a byte, and one that ends the turn."""


class Minute:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def caller(server: Server, store: KeyStore, **fields: Any) -> Any:
    key, _ = store.create(0, **fields)
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=key.id,
        aws_secret_access_key=store.master().secret_access_key(key.id),
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_quotas_and_tenants(tmp_path: Path) -> None:
    store, clock = KeyStore(tmp_path / "keys.json"), Minute()
    authenticator = Authenticator(KeyRing(store), region=None, now=utc_now, clock=clock)
    engine = ScriptedEngine()
    with running(engine, authenticator=authenticator) as server:
        few = caller(server, store, rpm=2)
        few.converse(**HELLO)
        list(few.converse_stream(**HELLO)["stream"])
        with pytest.raises(few.exceptions.ThrottlingException, match="Too many requests, please wait"):
            few.converse(**HELLO)
        with pytest.raises(few.exceptions.ThrottlingException):
            few.converse_stream(**HELLO)

        short = caller(server, store, tpm=PROMPT + 1, tenant="team")
        short.converse(**HELLO)  # its answer is not cut short, and is to be made up for
        with pytest.raises(short.exceptions.ThrottlingException, match="Too many tokens, please wait"):
            short.converse(**HELLO)
        clock.now = 60 * (PROMPT + ANSWER - 1) / (PROMPT + 1)
        short.converse(**HELLO)
        few.converse(**HELLO)

        never = caller(server, store, tpm=PROMPT - 1)
        with pytest.raises(never.exceptions.ThrottlingException, match="Too many tokens, please wait"):
            never.converse(**HELLO)
        salts = [request.cache_salt for request in engine.requests]
        assert salts == [salts[0], salts[0], "team", "team", salts[0]]
        assert salts[0].startswith("OUTC")
