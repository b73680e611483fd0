"""An unmodified program of OpenAI's Python library against a running server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from outcrop.engine.client import ModelFailure

from ..doubles import Script
from ..server import Server

MODEL = "meta.llama3-8b-instruct-v1:0"


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/openai/v1", api_key="local", max_retries=0) as client:
        yield client


def test_a_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Say", max_tokens=20)
    assert answer.choices[0].text == "Hello, world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 16


def test_a_stream(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model=MODEL, prompt=[1, 2], stream=True, stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    chunks = list(stream)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "Hello, world"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 2


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_errors(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature") as refused:
        client.completions.create(model=MODEL, prompt="Say", temperature=3)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="no such/model", prompt="Say")
    assert unknown.value.code == "model_not_found"
    server.engine.script = Script(error=ModelFailure("NaN"), fail_after=1)
    with pytest.raises(openai.APIError, match="failed while processing"):
        list(client.completions.create(model=MODEL, prompt="Say", stream=True))


@pytest.fixture(params=["OpenAI", "BedrockOpenAI"])
def any_client(server: Server, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """The library's client, and its class for Amazon Bedrock, which signs its calls."""
    url = f"{server.url}/openai/v1"
    if request.param == "OpenAI":
        made = openai.OpenAI(base_url=url, api_key="local", max_retries=0)
    else:
        made = openai.BedrockOpenAI(
            base_url=url, aws_region="us-east-1", aws_access_key_id="x", aws_secret_access_key="x",
            max_retries=0,
        )  # fmt: skip
    with made as client:
        yield client


CALL = b'{"name": "weather", "parameters": {"city": "Paris"}}'
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def test_a_conversation_with_a_tool(any_client: openai.OpenAI, server: Server) -> None:
    server.engine.script = Script(pieces=(CALL[:25], CALL[25:]))
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
    asked: Any = {"role": "user", "content": "Hi"}
    with any_client.chat.completions.stream(model=MODEL, messages=[asked], tools=[tool]) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.done" in kinds
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.function.arguments == '{"city": "Paris"}'
    server.engine.script = Script()
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    history: Any = [asked, message.model_dump(exclude={"parsed"}), result]
    for dropped in history[1]["tool_calls"]:
        dropped.pop("index", None)
        dropped["function"].pop("parsed_arguments", None)
    answer = any_client.chat.completions.create(model=MODEL, messages=history, tools=[tool])
    assert answer.choices[0].message.content == "Hello, world"


def test_responses(any_client: openai.OpenAI, server: Server) -> None:
    answer = any_client.responses.create(model=MODEL, input="Hi", instructions="Be brief.")
    assert answer.output_text == "Hello, world"
    server.engine.script = Script(pieces=(b"See: ", CALL))
    tool: Any = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
    with any_client.responses.stream(model=MODEL, input="Hi", tools=[tool]) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert [item.type for item in response.output] == ["message", "function_call"]
    assert any_client.models.retrieve(MODEL).id == MODEL


def test_log_probabilities_of_responses(any_client: openai.OpenAI) -> None:
    asked: Any = {"input": "Hi", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    with any_client.responses.stream(model=MODEL, **asked) as stream:
        told = [each for event in stream if event.type == "response.output_text.delta"
                for each in event.logprobs]  # fmt: skip
        response = stream.get_final_response()
    whole = any_client.responses.create(model=MODEL, **asked)
    for answer in (response, whole):
        (item,) = answer.output
        assert item.type == "message"
        (part,) = item.content
        assert part.type == "output_text"
        assert part.logprobs is not None
        assert "".join(each.token for each in part.logprobs) == part.text == "Hello, world"
        assert [each.logprob for each in part.logprobs] == [each.logprob for each in told]
        assert all(len(each.top_logprobs) == 2 for each in part.logprobs)
