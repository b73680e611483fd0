"""Tools: what a request may offer, and what becomes of the calls in an answer."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from outcrop.engine.client import FinishReason

from ..doubles import Script
from ..server import Server
from ..shapes import RUNTIME, assert_fits
from .requests import TEXT, TOOLS, assistant, call, converse, converse_stream, message_of, result, user

CALL = b'{"name": "weather", "parameters": {"city": "Paris"}}'
ID = re.compile(r"tooluse_[A-Za-z0-9_-]{22}")


def pieces(text: bytes, size: int = 3) -> tuple[bytes, ...]:
    return tuple(text[at : at + size] for at in range(0, len(text), size))


def without_ids(content: list[Any]) -> list[Any]:
    for block in content:
        if "toolUse" in block:
            assert ID.fullmatch(block["toolUse"].pop("toolUseId"))
    return content


PARIS = {"toolUse": {"name": "weather", "input": {"city": "Paris"}}}
ANSWERS = {
    "a call": (CALL, [PARIS], "tool_use"),
    "white space around": (b"\n\n" + CALL + b"\n", [PARIS], "tool_use"),
    "text, then a call": (b"Let me see. " + CALL, [{"text": "Let me see."}, PARIS], "tool_use"),
    "two calls": (CALL + b"; " + CALL, [PARIS, PARIS], "tool_use"),
    "text only": (b"It rains.", [{"text": "It rains."}], "end_turn"),
    "an unknown tool": (b'{"name": "x", "parameters": {}}', None, "end_turn"),
    "a call that is cut off": (b"See: " + CALL[:-6], [{"text": "See:"}], "malformed_tool_use"),
    "nothing": (b"", [{"text": ""}], "end_turn"),
    "white space": (b" \n", [{"text": " \n"}], "end_turn"),
}


@pytest.mark.parametrize(("said", "content", "reason"), ANSWERS.values(), ids=ANSWERS)
def test_answers(http: httpx.Client, server: Server, said: bytes, content: Any, reason: str) -> None:
    server.engine.script = Script(pieces=pieces(said))
    body = converse(http, toolConfig=TOOLS).json()
    assert_fits(body, RUNTIME.operation_model("Converse").output_shape)
    found = body["output"]["message"]["content"]
    assert without_ids(found) == (content or [{"text": said.decode()}])
    assert body["stopReason"] == reason


@pytest.mark.parametrize("value", ["1e999", r'"\ud800"'])
def test_input_that_is_more_than_python_can_hold(http: httpx.Client, server: Server, value: str) -> None:
    """A whole answer has what a stream spells: no call is lost."""
    said = CALL.replace(b'"Paris"', value.encode())
    server.engine.script = Script(pieces=pieces(said))
    answer = converse(http, toolConfig=TOOLS)
    events = converse_stream(http, toolConfig=TOOLS)
    deltas = [body["delta"]["toolUse"]["input"] for kind, body in events if kind == "contentBlockDelta"]
    assert "".join(deltas) == f'{{"city": {value}}}'
    assert f'"input":{"".join(deltas)}' in answer.text
    assert answer.json()["stopReason"] == events[-2][1]["stopReason"] == "tool_use"


@pytest.mark.parametrize(("said", "content", "reason"), ANSWERS.values(), ids=ANSWERS)
def test_streams_spell_the_same(
    http: httpx.Client, server: Server, said: bytes, content: Any, reason: str
) -> None:
    server.engine.script = Script(pieces=pieces(said))
    events = converse_stream(http, toolConfig=TOOLS)
    shape = RUNTIME.operation_model("ConverseStream").output_shape.members["stream"]
    for kind, body in events:
        assert_fits(body, shape.members[kind])
    spelled: list[Any] = []
    index = -1
    opened = False
    for kind, body in events[1:-2]:
        if kind == "contentBlockStart":
            assert not opened
            spelled.append({"toolUse": body["start"]["toolUse"] | {"input": ""}})
        elif kind == "contentBlockStop":
            assert body == {"contentBlockIndex": index}
            opened = False
            continue
        if not opened:
            index, opened = index + 1, True
        assert body["contentBlockIndex"] == index
        if kind == "contentBlockDelta" and "text" in body["delta"]:
            if len(spelled) <= index:
                spelled.append({"text": ""})
            spelled[index]["text"] += body["delta"]["text"]
        elif kind == "contentBlockDelta":
            spelled[index]["toolUse"]["input"] += body["delta"]["toolUse"]["input"]
    assert not opened
    assert events[-2] == ("messageStop", {"stopReason": reason})
    if reason == "malformed_tool_use":
        json_of_call = spelled.pop()["toolUse"]["input"]
        with pytest.raises(ValueError):
            json.loads(json_of_call)
    for block in spelled:
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
    assert without_ids(spelled) == (content or [{"text": said.decode()}])


def test_arguments_come_while_they_are_written(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(pieces=pieces(CALL))
    deltas = [body for kind, body in converse_stream(http, toolConfig=TOOLS) if kind == "contentBlockDelta"]
    assert len(deltas) > 3


@pytest.mark.parametrize(
    ("finish", "reason"),
    [(FinishReason.LENGTH, "max_tokens"), (FinishReason.CONTEXT, "model_context_window_exceeded")],
)
def test_a_limit_that_cuts_a_call_is_the_reason(
    http: httpx.Client, server: Server, finish: FinishReason, reason: str
) -> None:
    server.engine.script = Script(pieces=(CALL[:-6],), finish=finish)
    assert converse(http, toolConfig=TOOLS).json()["stopReason"] == reason


def test_without_tools_a_call_is_text(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(pieces=(CALL,))
    body = converse(http).json()
    assert body["output"]["message"]["content"] == [{"text": CALL.decode()}]
    assert body["stopReason"] == "end_turn"


HISTORIES = {
    "results": [user(TEXT), assistant(call("a")), user(result("a", {"text": "rain"}))],
    "text beside calls and results": [
        user(TEXT), assistant(TEXT, call("a")), user(result("a", {"json": {"t": 5}}), TEXT),
    ],
    "results in messages of their own": [
        user(TEXT), assistant(call("a"), call("b")), user(result("b")), user(result("a")),
    ],
    "an error with content": [
        user(TEXT), assistant(call("a")), user(result("a", {"text": "no"}, status="error")),
    ],
    "a system message between": [
        user(TEXT), assistant(call("a")), {"role": "system", "content": [TEXT]}, user(result("a")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("messages", HISTORIES.values(), ids=HISTORIES)
def test_histories(http: httpx.Client, server: Server, messages: list[Any]) -> None:
    assert converse(http, *messages, toolConfig=TOOLS).status_code == 200


def tool(name: str = "x", schema: Any = None, **more: Any) -> dict[str, Any]:
    spec = {"name": name, "inputSchema": {"json": {"type": "object"} if schema is None else schema}}
    return {"toolSpec": spec | more}


REFUSED = {
    "no toolConfig": ([user(TEXT), assistant(call("a")), user(result("a"))], None,
        "The toolConfig field must be defined when using toolUse and toolResult content blocks."),
    "a result is missing": ([user(TEXT), assistant(call("a"), call("b")), user(result("a"))], TOOLS,
        "Expected toolResult blocks at messages.2.content for the following Ids: b"),
    "all results are missing": ([user(TEXT), assistant(call("a")), user(TEXT)], TOOLS,
        "Expected toolResult blocks at messages.2.content for the following Ids: a"),
    "a result too many": ([user(TEXT), assistant(call("a")), user(result("a"), result("b"))], TOOLS,
        "The number of toolResult blocks at messages.2.content exceeds the number of toolUse blocks of "
        "previous turn."),
    "a result of nothing": ([user(result("a"))], TOOLS,
        "The number of toolResult blocks at messages.0.content exceeds the number of toolUse blocks of "
        "previous turn."),
    "an empty error": ([user(TEXT), assistant(call("a")), user(result("a", status="error"))], TOOLS,
        "The content field at messages.2.content.0.toolResult cannot be empty when status value is error."),
    "a call of the user": ([user(TEXT, call("a"))], TOOLS,
        "User messages cannot contain tool uses. Please remove the tool uses and try again."),
    "a result of the assistant": ([user(TEXT), assistant(result("a")), user(TEXT)], TOOLS,
        "Assistant messages cannot contain tool results. Please remove the tool results and try again."),
    "arguments that are no object": (
        [user(TEXT), assistant({"toolUse": {"toolUseId": "a", "name": "x", "input": "{}"}})], TOOLS,
        "The format of the value at messages.1.content.0.toolUse.input is invalid. "
        "Provide a json object for the field and try again."),
    "a json result that is no object": ([user(TEXT), assistant(call("a")), user(result("a", {"json": 5}))],
        TOOLS, "The format of the value at messages.2.content.0.toolResult.content.0.json is invalid. "
        "Provide a json object for the field and try again."),
    "an image as result": ([user(TEXT), assistant(call("a")),
        user(result("a", {"image": {"format": "png", "source": {"bytes": "eA=="}}}))], TOOLS,
        "This model doesn't support the image content block that you provided. "
        "Update the content block and try again."),
    "only a cache point": ([user(TEXT)], {"tools": [{"cachePoint": {"type": "default"}}]},
        "The toolConfig.tools field has no toolSpec. Add a tool specification and try again."),
    "a system tool": ([user(TEXT)], {"tools": [{"systemTool": {"name": "x"}}]},
        "This model doesn't support the toolConfig.tools.0.systemTool field. "
        "Remove toolConfig.tools.0.systemTool and try again."),
    "a schema of another type": ([user(TEXT)], {"tools": [tool(schema={"type": "string"})]},
        "The value at toolConfig.tools.0.toolSpec.inputSchema.json.type must be one of the following: "
        "object."),
    "a schema that is none": ([user(TEXT)], {"tools": [tool(schema=[])]},
        "The format of the value at toolConfig.tools.0.toolSpec.inputSchema.json is invalid. "
        "Provide a json object for the field and try again."),
    "two of one name": ([user(TEXT)], {"tools": [tool(), tool()]},
        "The tool name x at toolConfig.tools.1.toolSpec.name is already used. "
        "Rename the tool and try again."),
    "a choice of no tool": ([user(TEXT)], {"tools": [tool()], "toolChoice": {"tool": {"name": "y"}}},
        "The tool y at toolConfig.toolChoice.tool.name is not in toolConfig.tools. "
        "Choose a tool of the list and try again."),
    "two choices": ([user(TEXT)], {"tools": [tool()], "toolChoice": {"any": {}, "auto": {}}},
        "ToolChoice object at toolConfig.toolChoice must set only one of the following keys: "
        "auto, any, tool."),
    "a tool added on the way": ([user(TEXT, {"toolAddition": {"tool": {"name": "x"}}})], TOOLS,
        "This model doesn't support the toolAddition field. Remove toolAddition and try again."),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "config", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(http: httpx.Client, server: Server, messages: Any, config: Any, message: str) -> None:
    assert message_of(converse(http, *messages, toolConfig=config)) == message
    assert not server.engine.requests


BROKEN = {"type": "object", "properties": {"a": {"type": "nothing"}}}
CACHE_POINT = {"cachePoint": {"type": "default"}}
UNUSABLE = {
    "a forced choice": {"tools": [CACHE_POINT, tool("y", BROKEN)], "toolChoice": {"tool": {"name": "y"}}},
    "any": {"tools": [tool("y"), tool("z", BROKEN)], "toolChoice": {"any": {}}},
    "a strict tool": {"tools": [tool("y"), tool("z", BROKEN, strict=True)]},
}


@pytest.mark.parametrize("config", UNUSABLE.values(), ids=UNUSABLE)
def test_a_schema_that_a_call_cannot_be_held_to(http: httpx.Client, server: Server, config: Any) -> None:
    message = message_of(converse(http, toolConfig=config))
    assert message.startswith("The JSON schema at toolConfig.tools.1.toolSpec.inputSchema is invalid: ")
    assert not server.engine.requests


def test_what_the_engine_is_told(http: httpx.Client, server: Server) -> None:
    for choice, is_held in (
        ({"auto": {}}, False),
        ({"any": {}}, True),
        ({"tool": {"name": "weather"}}, True),
    ):
        converse(http, toolConfig=TOOLS | {"toolChoice": choice})
        assert bool(server.engine.requests[-1].sampling.grammar) == is_held
