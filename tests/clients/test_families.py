"""Clients of other model families and of other APIs against `outcrop serve` on real weights: an application
keeps the model id, the library and the body that it was written with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import vllm_engine as vllm
from serving import Served, serving

from . import cases
from .programs import Client, Outcome, run
from .test_matrix import UNSIGNED

CHAT = (
    "plain", "stream", "system", "stop", "tool_auto", "tool_any", "tool_stream", "tool_result", "overlong",
)  # fmt: skip
RESPONSES = {"response": "plain", "response_stream": "stream", "response_tool": "tool_any"}
"""Calls of the Responses API, and what must come of them."""

ANTHROPIC = (*CHAT, "count", *(f"bedrock_{name}" for name in CHAT))
OPENAI = tuple(f"{way}{name}" for way in ("", "bedrock_") for name in (*CHAT, "structured", *RESPONSES))
FAMILIES = ("claude", "titan", "command", "jamba", "mistral", "mistral_chat", "gpt_oss")
BOTO3 = (*FAMILIES, "jurassic", *(f"{family}_stream" for family in FAMILIES))
IN_LITELLM = ("claude", "mistral", "titan")
LITELLM = (*IN_LITELLM, *(f"{family}_stream" for family in IN_LITELLM))


def client(name: str, program: str, environment: str) -> Client:
    return Client(name, program, environment, lacks=frozenset(), errors={})


PROGRAMS = (
    (client("Anthropic", "with_anthropic.py", "python"), ANTHROPIC),
    (client("OpenAI", "with_openai.py", "server"), OPENAI),
    (client("boto3", "with_families.py", "server"), BOTO3),
    (client("LiteLLM", "with_litellm_families.py", "python"), LITELLM),
)


@pytest.fixture(scope="module")
def server(engine: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Without an id: it answers to any."""
    with serving(tmp_path_factory.mktemp("families"), *engine, patience=vllm.START) as served:
        yield served


@pytest.fixture(scope="module")
def reference(server: Served) -> cases.Reference:
    return cases.Reference(server.url)


@pytest.fixture(scope="module")
def outcome(server: Served) -> Callable[[Client], Outcome]:
    seen: dict[str, Outcome] = {}

    def outcome(client: Client) -> Outcome:
        if client.name not in seen:
            checks = next(checks for each, checks in PROGRAMS if each is client)
            seen[client.name] = run(client, server.url, UNSIGNED, checks)
        return seen[client.name]

    return outcome


def expected(client: Client, check: str) -> cases.Expectation:
    name = check.removeprefix("bedrock_")
    name = RESPONSES.get(name, name)
    if name in cases.EXPECTATIONS:
        return cases.EXPECTATIONS[name]
    if client.name == "LiteLLM" and name.startswith("titan"):
        return cases.says_something  # it words Titan's prompt in a way of its own
    return same_text


def same_text(result: Mapping[str, Any], reference: cases.Reference) -> None:
    """Every family's body is the same question."""
    text = "".join(result["pieces"]) if "pieces" in result else result["text"]
    assert text == cases.text_of(reference.plain)
    if "usage" in result:
        assert result["usage"] == cases.usage_of(reference.plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "check"),
    [
        pytest.param(client, check, id=f"{client.name}-{check}")
        for client, checks in PROGRAMS
        for check in checks
    ],
)
def test_call(
    outcome: Callable[[Client], Outcome], reference: cases.Reference, client: Client, check: str
) -> None:
    result = outcome(client).results[check]
    if check.endswith("overlong"):
        assert cases.MESSAGES["overlong"] in result["message"]
        return
    assert "raised" not in result, f"{result['raised']}: {result['message']}"
    expected(client, check)(result, reference)
