"""Conversations of every kind: Converse and ConverseStream give the same answer, event by event in order."""

from __future__ import annotations

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ..api.server import Server, eventually
from . import surface
from .service import OPERATIONS, Wire, assert_success
from .streams import Answer, assert_conversation

SCHEMA = {
    "type": "object",
    "properties": {"mode": {"enum": ["a", "b"]}, "on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}
TOOLS = [
    {"toolSpec": {"name": name, "description": "A tool.", "inputSchema": {"json": SCHEMA}}}
    for name in ("search", "switch-1")
]

texts = st.text(min_size=1, max_size=20).filter(str.strip).map(lambda text: {"text": text})
plain_turns = st.tuples(texts).map(list)
inputs = st.fixed_dictionaries({"on": st.booleans()}, optional={"mode": st.sampled_from("ab")})


@st.composite
def exchanges(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The assistant says something or calls tools, and the user says something or tells their results."""
    calls = draw(st.lists(inputs, max_size=2))
    said = draw(plain_turns) if not calls or draw(st.booleans()) else []
    for number, arguments in enumerate(calls):
        said.append({"toolUse": {"toolUseId": f"call-{number}", "name": "search", "input": arguments}})
    results = [
        {
            "toolResult": {
                "toolUseId": f"call-{number}",
                "content": [draw(texts | st.just({"json": {"a": 1}}))],
            }
        }
        for number in range(len(calls))
    ]
    heard = [*results, *(draw(plain_turns) if not calls or draw(st.booleans()) else [])]
    return [surface.assistant(*said), surface.user(*heard)]


@st.composite
def conversations(draw: st.DrawFn) -> dict[str, Any]:
    """Fields of Converse: turns, with tools or a schema to answer by or neither."""
    messages = [surface.user(*draw(plain_turns))]
    for exchange in draw(st.lists(exchanges(), max_size=2)):
        messages += exchange
    fields: dict[str, Any] = {
        "messages": messages,
        "inferenceConfig": {"temperature": 0, "maxTokens": draw(st.integers(1, 20) | st.just(250))},
        "additionalModelRequestFields": {"seed": draw(st.integers(0, 99))},
    }
    if draw(st.booleans()):
        fields["system"] = [draw(texts)]
    uses_tools = any("toolUse" in block for turn in messages for block in turn["content"])
    answer = draw(st.sampled_from(["text", "auto", "any", "tool", "json"]))
    if uses_tools or answer in ("auto", "any", "tool"):
        choices = {"any": {"any": {}}, "tool": {"tool": {"name": "switch-1"}}}
        fields["toolConfig"] = {"tools": TOOLS, "toolChoice": choices.get(answer, {"auto": {}})}
    elif answer == "json":
        definition = {"schema": json.dumps(SCHEMA)}
        structure = {"jsonSchema": definition}
        fields["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
    if draw(st.booleans()):
        fields["inferenceConfig"]["stopSequences"] = draw(
            st.lists(st.text(min_size=1, max_size=2), max_size=2)
        )
    return fields


def comparable(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Content without the ids of calls, which are drawn anew for every answer, and without a call that was
    cut off: only a stream can tell of it."""
    kept = []
    for block in content:
        if "toolUse" not in block:
            kept.append(block)
        elif not isinstance(block["toolUse"]["input"], str):
            kept.append({"toolUse": block["toolUse"] | {"toolUseId": ""}})
    return kept or [{"text": ""}]


def check(http: httpx.Client, server: Server, fields: dict[str, Any]) -> None:
    converse, stream = OPERATIONS["Converse"], OPERATIONS["ConverseStream"]
    whole = assert_success(converse, Wire.of(converse, surface.conversation(converse, fields)).send(http))
    streamed = Wire.of(stream, surface.conversation(stream, fields)).send(http)
    answer: Answer = assert_conversation(stream, streamed)
    event(answer.stop["stopReason"])
    assert answer.role == whole["output"]["message"]["role"] == "assistant"
    assert answer.stop["stopReason"] == whole["stopReason"]
    assert answer.metadata["usage"] == whole["usage"]
    if answer.stop["stopReason"] != "malformed_tool_use":
        assert comparable(answer.content) == comparable(whole["output"]["message"]["content"])
    eventually(lambda: server.engine.idle)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(fields=conversations())
def test_conversations(http: httpx.Client, server: Server, fields: dict[str, Any]) -> None:
    check(http, server, fields)
