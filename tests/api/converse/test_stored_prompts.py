"""Prompts that a call names by a prompt ARN."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from outcrop.api.prompts import PromptLibrary

from ..doubles import ScriptedEngine
from ..server import Server, running
from .requests import MODEL, TEXT, WEATHER, converse, message_of, user

ARN = "arn:aws:bedrock:us-east-1:123456789012:prompt"
VARIABLES = {"topic": {"text": "the sea"}}


def variant(**more: Any) -> dict[str, Any]:
    return {"name": "default", "modelId": MODEL} | more


def text_variant(text: str, *variables: str, **more: Any) -> dict[str, Any]:
    template = {"text": text, "inputVariables": [{"name": name} for name in variables]}
    return variant(templateType="TEXT", templateConfiguration={"text": template}, **more)


PROMPTS = [
    {
        "id": "ABCDEFGHIJ",
        "name": "poem",
        "version": "DRAFT",
        "createdAt": "2026-01-01T00:00:00Z",
        "defaultVariant": "default",
        "variants": [
            text_variant("x") | {"name": "other"},
            text_variant(
                "Write of {{topic}}. {{ topic }}! {{unknown}}",
                "topic",
                inferenceConfiguration={"text": {"temperature": 0.25, "maxTokens": 7}},
                additionalModelRequestFields={"top_k": 4},
            ),
        ],
    },
    {"id": "ABCDEFGHIJ", "version": "2", "variants": [text_variant("Second: {{topic}}", "topic")]},
    {
        "id": "CHATCHATCH",
        "variants": [
            variant(
                templateType="CHAT",
                templateConfiguration={
                    "chat": {
                        "system": [{"text": "Speak as {{voice}}."}],
                        "messages": [user({"text": "Tell of {{topic}}"})],
                        "toolConfiguration": {"tools": [WEATHER]},
                        "inputVariables": [{"name": "voice"}, {"name": "topic"}],
                    }
                },
            )
        ],
    },
    {"id": "NOMODELxxx", "variants": [text_variant("x", modelId="no model")]},
]


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("prompts")
    for number, prompt in enumerate(PROMPTS):
        (folder / f"{number}.json").write_text(json.dumps(prompt))
    with running(ScriptedEngine(), prompts=folder) as server:
        yield server


def call(http: httpx.Client, prompt: str, **fields: Any) -> httpx.Response:
    return http.post(f"/model/{ARN}/{prompt}/converse", json=fields)


def prompt_of(server: Server) -> str:
    return bytes(server.engine.requests[-1].prompt).decode()


def test_a_text_prompt(http: httpx.Client, server: Server) -> None:
    assert call(http, "ABCDEFGHIJ", promptVariables=VARIABLES).status_code == 200
    assert prompt_of(server) == "user: Write of the sea. the sea! {{unknown}}\n"
    sampling = server.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.top_k) == (0.25, 7, 4)


def test_a_version(http: httpx.Client, server: Server) -> None:
    assert call(http, "ABCDEFGHIJ:2", promptVariables=VARIABLES).status_code == 200
    assert prompt_of(server) == "user: Second: the sea\n"


def test_a_chat_prompt_and_more_messages(http: httpx.Client, server: Server) -> None:
    values = VARIABLES | {"voice": {"text": "{{topic}}"}}  # what is filled in is not looked at again
    more = [{"role": "assistant", "content": [TEXT]}, user({"text": "Go on, {{topic}}"})]
    response = call(http, "CHATCHATCH", promptVariables=values, messages=more)
    assert response.status_code == 200, response.text
    assert prompt_of(server) == (
        "system: Speak as {{topic}}.\nuser: Tell of the sea\nassistant: Hi\nuser: Go on, {{topic}}\n"
    )


def test_in_a_stream(http: httpx.Client, server: Server) -> None:
    body = {"promptVariables": VARIABLES}
    assert http.post(f"/model/{ARN}/ABCDEFGHIJ/converse-stream", json=body).status_code == 200
    assert prompt_of(server).startswith("user: Write of the sea.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inferenceConfig", {}),
        ("system", [TEXT]),
        ("toolConfig", {"tools": [WEATHER]}),
        ("additionalModelRequestFields", {}),
    ],
)
def test_fields_that_only_the_prompt_sets(http: httpx.Client, name: str, value: Any) -> None:
    message = message_of(call(http, "ABCDEFGHIJ", promptVariables=VARIABLES, **{name: value}))
    assert message == (
        f"The {name} field can't be used with a prompt from Prompt management. Remove {name} and try again."
    )


def test_missing_variables(http: httpx.Client) -> None:
    assert message_of(call(http, "CHATCHATCH", promptVariables={})) == (
        "The prompt requires values for the following variables: voice, topic. "
        "Add them to promptVariables and try again."
    )


@pytest.mark.parametrize("prompt", ["ABCDEFGHIJ:3", "UNKNOWNxxx"])
def test_unknown_prompts(http: httpx.Client, prompt: str) -> None:
    response = call(http, prompt)
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")
    assert prompt.partition(":")[0] in response.json()["message"]


def test_where_a_prompt_is_no_model(http: httpx.Client) -> None:
    invalid = "The provided model identifier is invalid."
    assert message_of(call(http, "NOMODELxxx")) == invalid
    assert message_of(call(http, "ABC")) == invalid
    assert message_of(http.post(f"/model/{ARN}/ABCDEFGHIJ/invoke", json={"prompt": "x"})) == invalid


def test_variables_without_a_prompt(http: httpx.Client) -> None:
    assert message_of(converse(http, promptVariables=VARIABLES)) == (
        "This model doesn't support the promptVariables field. Remove promptVariables and try again."
    )


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        json.dumps({"id": "ABCDEFGHIJ", "variants": []}),
        json.dumps({"id": "ABCDEFGHIJ", "defaultVariant": "y", "variants": [text_variant("x")]}),
        json.dumps({"id": "ABCDEFGHIJ", "variants": [variant(templateConfiguration={})]}),
    ],
)
def test_files_that_are_no_prompts(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(ValueError, match=r"broken\.json"):
        PromptLibrary(tmp_path)
