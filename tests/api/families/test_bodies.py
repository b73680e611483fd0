"""What each family's body may ask for, what becomes of it, and what is refused by its name."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outcrop.api.bedrock_runtime.families.transcript import of_mistral

from ...conformance.strategies import json_values, spoilt
from ..server import Server
from .requests import (
    BODIES,
    CLAUDE,
    COMMAND,
    FUNCTION,
    GPT_OSS,
    HI,
    JAMBA,
    JURASSIC,
    MISTRAL,
    MISTRAL_CHAT,
    SCHEMA,
    TITAN,
    TOOLS,
    invoke,
)  # fmt: skip

CALL = {"type": "tool_use", "id": "a", "name": "weather", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "rain"}


NAMED = {"name": "a", "schema": SCHEMA}


def prompt(server: Server) -> str:
    return bytes(server.engine.requests[-1].prompt).decode()


@pytest.mark.parametrize(
    ("model", "more", "wanted"),
    [
        (CLAUDE, {"system": "Be brief."}, "system: Be brief.\nuser: Hi\n"),
        (CLAUDE, {"system": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
         "system: A\nB\nuser: Hi\n"),
        (CLAUDE, {"messages": [*HI, {"role": "assistant", "content": "The answer is"}]},
         "user: Hi\nThe answer is"),
        (CLAUDE, {"messages": [*HI, *HI, {"role": "assistant", "content": "Yo"}, *HI]},
         "user: Hi\nHi\nassistant: Yo\nuser: Hi\n"),
        (CLAUDE, {"messages": [{"role": "user", "content": [
            {"type": "document", "title": "Sky", "source":
             {"type": "text", "media_type": "text/plain", "data": "It is blue."}},
            {"type": "text", "text": "What is it?"}]}]},
         'user: <document name="Sky">\nIt is blue.\n</document>\nWhat is it?\n'),
        (TITAN, {"inputText": "Tell.\n\nUser: Hi\n\nBot: Yo\n\nUser: Go\n\nBot:"},
         "system: Tell.\nuser: Hi\nassistant: Yo\nuser: Go\n"),
        (TITAN, {"inputText": "Say User: to the Bot: now"}, "user: Say User: to the Bot: now\n"),
        (MISTRAL, {"prompt": "<s>[INST] Hi [/INST] Yo</s>[INST] Go [/INST]"},
         "user: Hi\nassistant: Yo\nuser: Go\n"),
        (MISTRAL, {"prompt": "<s>[INST] Hi [/INST] Well,"}, "user: Hi\nWell,"),
        (MISTRAL, {"prompt": "[INST] Hi [INST] Ho [/INST] A[/INST] Yo</s>[INST] Go"},
         "user: Hi [INST] Ho\nA[/INST] Yo"),
        (MISTRAL, {"prompt": "[INST][/INST]Yo[INST]Go[/INST]"}, "user: \nassistant: Yo\nuser: Go\n"),
        (MISTRAL, {"prompt": "[INST] Hi"}, "user: [INST] Hi\n"),
        (MISTRAL, {"prompt": "[INST] Hi [INST] there [/INST]"}, "user: Hi [INST] there\n"),
        (MISTRAL, {"prompt": "Hi"}, "user: Hi\n"),
        (COMMAND, {"preamble": "Be brief.", "chat_history": [{"role": "CHATBOT", "message": "Yo"}]},
         "system: Be brief.\nassistant: Yo\nuser: Hi\n"),
        (COMMAND, {"documents": [{"title": "Sky", "snippet": "It is blue."}]},
         'user: <document name="Sky">\nsnippet: It is blue.\n</document>\nHi\n'),
        (GPT_OSS, {"messages": [
            {"role": "developer", "content": "A"}, {"role": "system", "content": "B"}, *HI]},
         "system: A\nB\nuser: Hi\n"),
    ],
)  # fmt: skip
def test_prompts(http: httpx.Client, server: Server, model: str, more: dict[str, Any], wanted: str) -> None:
    invoke(http, model, **more).raise_for_status()
    assert prompt(server) == wanted


@pytest.mark.timeout(60)
def test_a_prompt_of_many_marks_is_read_at_once() -> None:
    """Looking for the other half of each would hold up the whole server."""
    marks = "[INST] " * 1_000_000
    (turn,) = of_mistral(f"[INST] Hi [/INST] Yo {marks}").messages
    assert turn.content == "Hi"


MANY = 40_000


@pytest.mark.parametrize(
    ("model", "more"),
    [
        (CLAUDE, {"tools": [
            {"name": f"a{index % (MANY - 1)}", "input_schema": {}} for index in range(MANY)]}),
        (GPT_OSS, {"tools": [
            {"type": "function", "function": {"name": f"a{index % (MANY - 1)}"}} for index in range(MANY)]}),
        (GPT_OSS, {"messages": HI * MANY}),
        (COMMAND, {"chat_history": [{"role": "USER", "message": "Hi"}] * MANY}),
    ],
    ids=["tools of Claude", "tools of gpt-oss", "messages", "history"],
)  # fmt: skip
def test_what_there_is_much_of_is_refused_at_once(
    http: httpx.Client, model: str, more: dict[str, Any]
) -> None:
    """Work that grows with the square of it would hold up the whole server."""
    assert invoke(http, model, **more).status_code == 400


@pytest.mark.parametrize(
    ("model", "more", "temperature", "top_p", "top_k", "max_tokens"),
    [
        (CLAUDE, {}, 1.0, 1.0, 0, 20),
        (CLAUDE, {"temperature": 0.2, "top_p": 0.3, "top_k": 7}, 0.2, 0.3, 7, 20),
        (TITAN, {}, 0.7, 0.9, 0, 512),
        (TITAN, {"textGenerationConfig": {"maxTokenCount": 9, "topP": 0.5}}, 0.7, 0.5, 0, 9),
        (COMMAND, {}, 0.3, 0.75, 0, 503),
        (COMMAND, {"p": 0.5, "k": 3, "max_tokens": 8}, 0.3, 0.5, 3, 8),
        (JURASSIC, {}, 0.5, 0.5, 0, 200),
        (JURASSIC, {"maxTokens": 4, "countPenalty": {"scale": 0}}, 0.5, 0.5, 0, 4),
        (JAMBA, {"max_tokens": 5, "temperature": 2}, 2.0, 1.0, 0, 5),
        (MISTRAL, {}, 0.5, 0.9, 0, 512),
        (MISTRAL, {"top_k": 5, "max_tokens": 6}, 0.5, 0.9, 5, 6),
        (MISTRAL_CHAT, {"max_tokens": 6}, 0.7, 1.0, 0, 6),
        (GPT_OSS, {"max_completion_tokens": 7}, 1.0, 1.0, 0, 7),
    ],
)
def test_parameters_and_their_defaults(
    http: httpx.Client, server: Server, model: str, more: dict[str, Any],
    temperature: float, top_p: float, top_k: int, max_tokens: int,
) -> None:  # fmt: skip
    invoke(http, model, **more).raise_for_status()
    sampling = server.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (temperature, top_p, top_k)
    assert sampling.max_tokens == max_tokens


@pytest.mark.parametrize(
    ("model", "more", "held"),
    [
        (CLAUDE, {"tool_choice": {"type": "auto"}}, False),
        (CLAUDE, {"tool_choice": {"type": "any"}}, True),
        (CLAUDE, {"tool_choice": {"type": "tool", "name": "weather"}}, True),
        (CLAUDE, {"tool_choice": {"type": "none"}}, False),
        (CLAUDE, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, True),
        (MISTRAL_CHAT, {"tool_choice": "any"}, True),
        (GPT_OSS, {"tool_choice": "required"}, True),
        (GPT_OSS, {"tool_choice": "none"}, False),
        (GPT_OSS, {"parallel_tool_calls": False}, True),
        (GPT_OSS, {"tool_choice": {"type": "function", "function": {"name": "weather"}}}, True),
    ],
)
def test_choices_of_tools(
    http: httpx.Client, server: Server, model: str, more: dict[str, Any], held: bool
) -> None:
    """A choice that leaves the model free needs no grammar."""
    invoke(http, model, **TOOLS[model], **more).raise_for_status()
    assert bool(server.engine.requests[-1].sampling.grammar) is held


def test_answers_held_to_a_schema(http: httpx.Client, server: Server) -> None:
    for model, more in (
        (CLAUDE, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (GPT_OSS, {"response_format": {"type": "json_object"}}),
        (
            GPT_OSS,
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
        ),
    ):
        invoke(http, model, **more).raise_for_status()
        assert "json_schema" in server.engine.requests[-1].sampling.grammar


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (CLAUDE, {"anthropic_version": None}, "#: required key [anthropic_version] not found"),
    (CLAUDE, {"max_tokens": None}, "#: required key [max_tokens] not found"),
    (CLAUDE, {"messages": []}, "#/messages: "),
    (CLAUDE, {"model": "x"}, "#: extraneous key [model] is not permitted"),
    (CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "#/thinking: this is not supported"),
    (CLAUDE, {"mcp_servers": []}, "#: extraneous key [mcp_servers] is not permitted"),
    (CLAUDE, {"output_config": {"effort": "low"}}, "#/output_config/effort: this is not supported"),
    (CLAUDE, {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "#/tools/0/type: "),
    (CLAUDE, {"tools": [{"name": "a"}]}, "#/tools/0: required key [input_schema] not found"),
    (CLAUDE, {"tools": [{"name": "a", "input_schema": {"type": "array"}}]}, "#/tools/0/input_schema/type: "),
    (CLAUDE, {"tools": [{"name": "a", "input_schema": {"type": "object", "properties": 1}, "strict": True}]},
     "#/tools/0/input_schema: "),
    (CLAUDE, {"tools": 2 * TOOLS[CLAUDE]["tools"]}, "#/tools/1/name: "),
    (CLAUDE, {"tool_choice": {"type": "any"}}, "#/tool_choice: "),
    (CLAUDE, {"messages": [{"role": "assistant", "content": "Hi"}]}, "#/messages/0/role: "),
    (CLAUDE, {"messages": [{"role": "user", "content": " "}]}, "#/messages/0/content/0/text: "),
    (CLAUDE, {"messages": [{"role": "user", "content": []}]}, "#/messages/0/content: "),
    (CLAUDE, {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
     "#/messages/0/content/0: this is not supported"),
    (CLAUDE, {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
     "#/messages/0/content/0/type: "),
    (CLAUDE, {"messages": [*HI, {"role": "assistant", "content": "So "}]}, "trailing whitespace"),
    (CLAUDE, {"messages": [*HI, {"role": "assistant", "content": [CALL]}, *HI]}, "#/messages/2: "),
    (CLAUDE, {"messages": [{"role": "user", "content": [RESULT]}]}, "#/messages/0/content/0/tool_use_id: "),
    (CLAUDE, {"messages": [{"role": "user", "content": [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf",
                                        "data": base64.b64encode(b"no pdf").decode()}}]}]},
     "#/messages/0/content/0/source: "),
    (TITAN, {"inputText": ""}, "#/inputText: "),
    (TITAN, {"textGenerationConfig": {"topK": 3}}, "#/textGenerationConfig: extraneous key [topK]"),
    (TITAN, {"textGenerationConfig": {"temperature": 2}}, "#/textGenerationConfig/temperature: "),
    (COMMAND, {"message": " "}, "#/message: "),
    (COMMAND, {"search_queries_only": True}, "#/search_queries_only: this is not supported"),
    (COMMAND, {"prompt_truncation": "AUTO_PRESERVE_ORDER"}, "#/prompt_truncation: this is not supported"),
    (COMMAND, {"documents": [{"snippet": 1}]}, "#/documents/0/snippet: "),
    (COMMAND, {"chat_history": [{"role": "BOT", "message": "a"}]}, "#/chat_history/0/role: "),
    (JURASSIC, {"presencePenalty": {"scale": 1}}, "#/presencePenalty: this is not supported"),
    (JURASSIC, {"numResults": 2}, "#: extraneous key [numResults]"),
    (JAMBA, {"n": 2}, "#/n: this is not supported"),
    (JAMBA, {"documents": []}, "#: extraneous key [documents]"),
    (JAMBA, {"stream": True}, "#: extraneous key [stream]"),
    (MISTRAL, {"prompt": ""}, "#/prompt: "),
    (MISTRAL, {"safe_prompt": True}, "#: extraneous key [safe_prompt]"),
    (MISTRAL_CHAT, {"messages": []}, "#/messages: "),
    (GPT_OSS, {"reasoning_effort": "high"}, "#/reasoning_effort: this is not supported"),
    (GPT_OSS, {"tools": [FUNCTION], "response_format": {"type": "json_object"}}, "#/response_format: "),
]  # fmt: skip


@pytest.mark.parametrize(("model", "more", "says"), REFUSED)
def test_what_is_refused(
    http: httpx.Client, server: Server, model: str, more: dict[str, Any], says: str
) -> None:
    response = invoke(http, model, **more)
    assert response.status_code == 400
    assert response.headers["x-amzn-errortype"] == "ValidationException"
    message = response.json()["message"]
    assert message.startswith("Malformed input request: #")
    assert says in message
    assert server.engine.requests == []


@pytest.mark.parametrize(
    ("model", "more"),
    [
        (CLAUDE, {"stop_sequences": ["x" * 1024] * 25}),
        (TITAN, {"textGenerationConfig": {"stopSequences": ["x" * 1024] * 25}}),
        (COMMAND, {"stop_sequences": ["x" * 1024] * 25}),
        (JURASSIC, {"stopSequences": ["x" * 1024] * 25}),
        (MISTRAL, {"stop": ["x" * 1024] * 25}),
    ],
)
def test_stop_sequences_that_would_take_long_to_look_for(
    http: httpx.Client, server: Server, model: str, more: dict[str, Any]
) -> None:
    response = invoke(http, model, **more)
    assert response.status_code == 400
    name = next(reversed(more.get("textGenerationConfig", more)))
    assert f"{name}: They must not have more than 25000 characters" in response.json()["message"]
    assert server.engine.requests == []


@pytest.mark.parametrize("model", BODIES)
def test_tokens_are_counted(http: httpx.Client, model: str) -> None:
    body = base64.b64encode(json.dumps(BODIES[model]).encode()).decode()
    response = http.post(f"/model/{model}/count-tokens", json={"input": {"invokeModel": {"body": body}}})
    assert response.json() == {"inputTokens": len("user: Hi\n")}


CONVERSATION = [
    *HI, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT]},
]  # fmt: skip
RICH: dict[str, dict[str, Any]] = {
    CLAUDE: TOOLS[CLAUDE] | {"messages": CONVERSATION, "tool_choice": {"type": "auto"}, "system": "A"},
    TITAN: {"textGenerationConfig": {"maxTokenCount": 5, "stopSequences": ["a"]}},
    COMMAND: TOOLS[COMMAND] | {
        "chat_history": [{"role": "USER", "message": "a"}],
        "tool_results": [{"call": {"name": "weather", "parameters": {}}, "outputs": [{"sky": "blue"}]}],
    },
    JURASSIC: {"stopSequences": ["a"], "countPenalty": {"scale": 0}},
    MISTRAL: {"stop": ["a"], "top_k": 5},
    GPT_OSS: TOOLS[GPT_OSS] | {"tool_choice": "auto", "stop": ["a"], "messages": [
        *HI,
        {"role": "assistant", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
    ]},
}  # fmt: skip


@pytest.mark.parametrize("model", RICH)
def test_rich_bodies_are_answered(http: httpx.Client, model: str) -> None:
    invoke(http, model, **RICH[model]).raise_for_status()


@pytest.mark.parametrize("model", RICH)
@settings(max_examples=15, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_no_body_is_the_servers_fault(server: Server, model: str, data: st.DataObject) -> None:
    body = data.draw(spoilt(st.just(BODIES[model] | RICH[model])) | json_values)
    with httpx.Client(base_url=server.url, timeout=20) as http:
        response = http.post(f"/model/{model}/invoke", content=json.dumps(body))
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["message"].strip()
