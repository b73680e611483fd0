"""An unmodified program of OpenAI's Python library against a running server."""

from __future__ import annotations

from collections.abc import Iterator

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
