"""Each family's native answer, whole and as a stream, as its page in the Amazon Bedrock user guide has it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from outcrop.engine.client import FinishReason

from ..doubles import Script
from ..server import Server
from . import requests
from .requests import BODIES, CLAUDE, COMMAND, GPT_OSS, JAMBA, JURASSIC, MISTRAL, MISTRAL_CHAT, TITAN

PROMPT = len("user: Hi\n")
CALL = b'{"name": "weather", "parameters": {"city": "Paris"}}'


def invoke(http: httpx.Client, model: str, **more: Any) -> Any:
    response = requests.invoke(http, model, **more)
    assert response.status_code == 200, response.text
    assert response.headers["x-amzn-bedrock-input-token-count"].isdigit()
    return response.json()


def chunks(http: httpx.Client, model: str, **more: Any) -> list[dict[str, Any]]:
    return requests.without_metrics(requests.chunks(http, model, **more))


def saying(server: Server, *pieces: bytes, finish: FinishReason = FinishReason.EOS, cached: int = 0) -> None:
    server.engine.script = Script(pieces=pieces, finish=finish, cached=cached)


@pytest.mark.parametrize("model", BODIES)
def test_every_family_is_given_the_conversation(http: httpx.Client, server: Server, model: str) -> None:
    requests.invoke(http, model).raise_for_status()
    http.post(f"/model/us.{model}/invoke", json=BODIES[model]).raise_for_status()
    arn = f"arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2F{model}"
    http.post(f"/model/{arn}/invoke", json=BODIES[model]).raise_for_status()
    assert [bytes(request.prompt) for request in server.engine.requests] == [b"user: Hi\n"] * 3


# -- Claude ----------------------------------------------------------------------------------------


def usage(output: int, *, read: int = 0) -> dict[str, int]:
    return {
        "input_tokens": PROMPT - read,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": read,
        "output_tokens": output,
    }


def test_claude(http: httpx.Client) -> None:
    body = invoke(http, CLAUDE)
    assert re.fullmatch("msg_bdrk_[0-9a-f]{24}", body.pop("id"))
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": CLAUDE,
        "content": [{"type": "text", "text": "Hello, world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage(13),
    }


def test_claude_stream(http: httpx.Client) -> None:
    begin, *events = chunks(http, CLAUDE)
    message = begin.pop("message")
    assert begin == {"type": "message_start"}
    assert re.fullmatch("msg_bdrk_[0-9a-f]{24}", message.pop("id"))
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": CLAUDE,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage(5),
    }
    text = {"type": "text", "text": ""}
    deltas = [{"type": "text_delta", "text": piece} for piece in ("Hello", ", ", "world")]
    assert events == [
        {"type": "content_block_start", "index": 0, "content_block": text},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": usage(13),
        },
        {"type": "message_stop"},
    ]


def test_claude_calls_tools(http: httpx.Client, server: Server) -> None:
    saying(server, b"Let me see. ", CALL[:30], CALL[30:])
    body = invoke(http, CLAUDE, **requests.TOOLS[CLAUDE])
    text, call = body["content"]
    assert text == {"type": "text", "text": "Let me see."}
    assert re.fullmatch("toolu_bdrk_[A-Za-z0-9_-]{22}", call.pop("id"))
    assert call == {"type": "tool_use", "name": "weather", "input": {"city": "Paris"}}
    assert body["stop_reason"] == "tool_use"


def test_claude_streams_calls(http: httpx.Client, server: Server) -> None:
    saying(server, b"See: ", CALL, CALL)
    events = chunks(http, CLAUDE, **requests.TOOLS[CLAUDE])
    order = [(event["type"], event.get("index")) for event in events if "delta" not in event["type"]]
    blocks = [(f"content_block_{kind}", index) for index in range(3) for kind in ("start", "stop")]
    assert order == [("message_start", None), *blocks, ("message_stop", None)]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [start["type"] for start in starts] == ["text", "tool_use", "tool_use"]
    assert starts[1]["input"] == {}
    spelled = [
        event["delta"]["partial_json"]
        for event in events
        if event["type"] == "content_block_delta" and event["index"] == 2
    ]
    assert "".join(spelled) == '{"city": "Paris"}'
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("pieces", "finish", "stop", "sequence"),
    [
        ((b"one", b" two"), FinishReason.LENGTH, "max_tokens", None),
        ((b"one", b" END two"), FinishReason.EOS, "stop_sequence", "END"),
        ((b"one",), FinishReason.CONTEXT, "model_context_window_exceeded", None),
    ],
)
def test_why_claude_stops(
    http: httpx.Client, server: Server, pieces: Any, finish: FinishReason, stop: str, sequence: str | None
) -> None:
    saying(server, *pieces, finish=finish)
    stops = {"stop_sequences": ["END"]}
    body, events = invoke(http, CLAUDE, **stops), chunks(http, CLAUDE, **stops)
    wanted = {"stop_reason": stop, "stop_sequence": sequence}
    assert {name: body[name] for name in wanted} == events[-2]["delta"] == wanted


def test_an_empty_answer_of_claude_has_no_block(http: httpx.Client, server: Server) -> None:
    saying(server, b"")
    assert invoke(http, CLAUDE)["content"] == []
    kinds = [event["type"] for event in chunks(http, CLAUDE)]
    assert kinds == ["message_start", "message_delta", "message_stop"]


def test_claude_tells_of_the_cache_where_it_is_asked(http: httpx.Client, server: Server) -> None:
    saying(server, b"Hi", cached=4)
    assert invoke(http, CLAUDE)["usage"] == usage(3)
    marked = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    body = invoke(http, CLAUDE, messages=[{"role": "user", "content": [marked]}])
    assert body["usage"] == usage(3, read=4)


# -- Titan, Jurassic, Mistral ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "more", "reason"),
    [
        (FinishReason.EOS, {}, "FINISHED"),
        (FinishReason.LENGTH, {}, "LENGTH"),
        (FinishReason.EOS, {"textGenerationConfig": {"stopSequences": ["wor"]}}, "STOP_CRITERIA_MET"),
    ],
)
def test_titan(
    http: httpx.Client, server: Server, finish: FinishReason, more: dict[str, Any], reason: str
) -> None:
    saying(server, b"Hello", b", world", finish=finish)
    body = invoke(http, TITAN, **more)
    (result,) = body.pop("results")
    assert body == {"inputTextTokenCount": PROMPT}
    assert result["completionReason"] == reason
    first, *_, last = chunks(http, TITAN, **more)
    assert first == {
        "outputText": "Hello",
        "index": 0,
        "totalOutputTextTokenCount": None,
        "completionReason": None,
        "inputTextTokenCount": PROMPT,
    }
    assert (last["completionReason"], last["totalOutputTextTokenCount"]) == (reason, result["tokenCount"])
    assert last["inputTextTokenCount"] is None


@pytest.mark.parametrize(
    ("finish", "more", "reason"),
    [
        (FinishReason.EOS, {}, {"reason": "endoftext"}),
        (FinishReason.LENGTH, {}, {"reason": "length", "length": 12}),
        (FinishReason.EOS, {"stopSequences": [", "]}, {"reason": "stop", "sequence": ", "}),
    ],
)
def test_jurassic(
    http: httpx.Client, server: Server, finish: FinishReason, more: dict[str, Any], reason: dict[str, Any]
) -> None:
    saying(server, b"Hello, world", finish=finish)
    body = invoke(http, JURASSIC, **more)
    assert isinstance(body.pop("id"), int)
    text = "Hello" if more else "Hello, world"
    assert body == {
        "prompt": {"text": "Hi", "tokens": []},
        "completions": [{"data": {"text": text, "tokens": []}, "finishReason": reason}],
    }


def test_jurassic_does_not_stream(http: httpx.Client) -> None:
    response = http.post(f"/model/{JURASSIC}/invoke-with-response-stream", json=BODIES[JURASSIC])
    assert response.status_code == 400
    assert response.json()["message"] == "The model is unsupported for streaming."


def test_mistral(http: httpx.Client) -> None:
    assert invoke(http, MISTRAL) == {"outputs": [{"text": "Hello, world", "stop_reason": "stop"}]}
    assert chunks(http, MISTRAL) == [
        {"outputs": [{"text": text, "stop_reason": reason}]}
        for text, reason in (("Hello", None), (", ", None), ("world", None), ("", "stop"))
    ]


# -- Command R -------------------------------------------------------------------------------------


def test_command(http: httpx.Client) -> None:
    body = invoke(http, COMMAND, chat_history=[{"role": "USER", "message": "Yo"}])
    assert len({body.pop("response_id"), body.pop("generation_id")}) == 2
    assert body == {
        "text": "Hello, world",
        "finish_reason": "COMPLETE",
        "chat_history": [
            {"role": "USER", "message": "Yo"},
            {"role": "USER", "message": "Hi"},
            {"role": "CHATBOT", "message": "Hello, world"},
        ],
        "meta": {
            "api_version": {"version": "1"},
            "billed_units": {"input_tokens": len("user: Yo\nuser: Hi\n"), "output_tokens": 13},
        },
    }


def test_command_stream(http: httpx.Client, server: Server) -> None:
    saying(server, b"See: ", CALL, finish=FinishReason.LENGTH)
    begin, text, calls, end = chunks(http, COMMAND, **requests.TOOLS[COMMAND])
    assert (begin.pop("event_type"), begin.pop("is_finished")) == ("stream-start", False)
    assert text == {"is_finished": False, "event_type": "text-generation", "text": "See:"}
    made = [{"name": "weather", "parameters": {"city": "Paris"}}]
    assert calls == {"is_finished": False, "event_type": "tool-calls-generation", "tool_calls": made}
    response = end.pop("response")
    assert end == {"is_finished": True, "event_type": "stream-end", "finish_reason": "MAX_TOKENS"}
    assert response["generation_id"] == begin["generation_id"]
    assert (response["text"], response["tool_calls"]) == ("See:", made)


# -- chat completions ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [JAMBA, GPT_OSS])
def test_chat_completions(http: httpx.Client, server: Server, model: str) -> None:
    saying(server, b"See: ", CALL)
    body = invoke(http, model, **requests.TOOLS[model])
    (choice,) = body["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (body["object"], body["model"], choice["finish_reason"]) == (
        "chat.completion",
        model,
        "tool_calls",
    )
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Paris"}'}
    found = chunks(http, model, **requests.TOOLS[model])
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0]["delta"] for chunk in found]
    assert deltas[:2] == [{"role": "assistant", "content": ""}, {"content": "See:"}]
    assert deltas[2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": ""}
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_mistral_chat(http: httpx.Client) -> None:
    (choice,) = invoke(http, MISTRAL_CHAT)["choices"]
    assert (choice["index"], choice["stop_reason"]) == (0, "stop")
    assert choice["message"]["content"] == "Hello, world"
    found = [chunk["choices"][0] for chunk in chunks(http, MISTRAL_CHAT)]
    assert "".join(each["message"].get("content", "") for each in found) == "Hello, world"
    assert [each["stop_reason"] for each in found] == [None] * (len(found) - 1) + ["stop"]


def test_ids_of_no_family_take_llama_s_body(http: httpx.Client) -> None:
    answer = http.post("/model/some.model/invoke", json={"prompt": "Hi"}).raise_for_status().json()
    assert answer["generation"] == "Hello, world"
