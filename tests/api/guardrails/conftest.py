from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ..server import Server

MESSAGES = {"blockedInputMessaging": "Not that.", "blockedOutputsMessaging": "Nothing of that."}
POLICIES: dict[str, dict[str, Any]] = {
    "mask": {
        "sensitiveInformationPolicyConfig": {
            "piiEntitiesConfig": [{"type": "EMAIL", "action": "ANONYMIZE"}],
            "regexesConfig": [{"name": "order", "pattern": r"\bID-\d{4}\b", "action": "ANONYMIZE"}],
        }
    },
    "block": {
        "wordPolicyConfig": {
            "wordsConfig": [{"text": "forbidden"}, {"text": "harmless", "inputAction": "NONE"}]
        },
        "topicPolicyConfig": {
            "topicsConfig": [{"name": "Investment advice", "definition": "Advice on stocks", "type": "DENY"}]
        },
    },
}  # fmt: skip


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


class Guardrails:
    """Makes each guardrail when it is first asked for."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._made: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """Its id."""
        if name not in self._made:
            made = self._http.post("/guardrails", json={"name": name, **MESSAGES, **POLICIES[name]})
            self._made[name] = made.raise_for_status().json()["guardrailId"]
        return self._made[name]

    def config(self, name: str, **more: str) -> dict[str, Any]:
        """As Converse's request has it."""
        return {"guardrailConfig": {"guardrailIdentifier": self[name], "guardrailVersion": "DRAFT", **more}}

    def headers(self, name: str, trace: str = "DISABLED") -> dict[str, str]:
        """As InvokeModel's."""
        return {
            "x-amzn-bedrock-guardrailidentifier": self[name],
            "x-amzn-bedrock-guardrailversion": "DRAFT",
            "x-amzn-bedrock-trace": trace,
        }


@pytest.fixture
def guardrails(http: httpx.Client) -> Guardrails:
    return Guardrails(http)
