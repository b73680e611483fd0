"""Schemas by the hundred, held to by real weights over HTTP: every answer is valid, and what is streamed is
what is answered whole."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import jsonschema
import pytest
from schemas import Schema, random_schema
from serving import ANY_MODEL, serving

QUESTION = [{"role": "user", "content": [{"text": "Fill in the form with something short."}]}]
CONFIG = {"maxTokens": 1000, "temperature": 0}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with (
        serving(tmp_path_factory.mktemp("server"), "--max-model-len", "2048") as served,
        closing(served.client(read_timeout=280)) as client,
    ):
        yield client


def as_arguments(schema: Schema) -> Schema:
    """A tool's arguments are an object; definitions stay at the root, where references look for them."""
    value = {name: member for name, member in schema.items() if name != "$defs"}
    return {
        "type": "object",
        "properties": {"value": value},
        "required": ["value"],
        "$defs": schema["$defs"],
    }


def forced(schema: Schema) -> dict[str, Any]:
    tool = {"toolSpec": {"name": "fill_in", "inputSchema": {"json": schema}}}
    return {"toolConfig": {"tools": [tool], "toolChoice": {"tool": {"name": "fill_in"}}}}


def formatted(schema: Schema) -> dict[str, Any]:
    structure = {"jsonSchema": {"schema": json.dumps(schema)}}
    return {"outputConfig": {"textFormat": {"type": "json_schema", "structure": structure}}}


def check(runtime: Any, number: int) -> None:
    """One schema: by a forced call or as the answer's format, whole and streamed."""
    schema = random_schema(random.Random(number))
    schema = as_arguments(schema) if number % 2 else schema
    asked = {"modelId": ANY_MODEL, "messages": QUESTION, "inferenceConfig": CONFIG}
    asked |= forced(schema) if number % 2 else formatted(schema)
    answer = runtime.converse(**asked)
    assert answer["stopReason"] == ("tool_use" if number % 2 else "end_turn"), (number, answer)
    (block,) = answer["output"]["message"]["content"]
    value = block["toolUse"]["input"] if number % 2 else json.loads(block["text"])
    jsonschema.validate(value, schema, jsonschema.Draft202012Validator)

    events = list(runtime.converse_stream(**asked)["stream"])
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    streamed = "".join(delta["toolUse"]["input"] if number % 2 else delta["text"] for delta in deltas)
    assert json.loads(streamed) == value


def check_all(runtime: Any, numbers: range) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: check(runtime, number), numbers))


def test_a_few_schemas(runtime: Any) -> None:
    check_all(runtime, range(8))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_schemas(runtime: Any) -> None:
    check_all(runtime, range(8, 208))
