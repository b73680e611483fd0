"""What every client is asked, and what it must get back.

The programs in `scripts` and `js` read a task and print results (scripts/harness.py has their words). The
model is asked greedily, so that what a client got can be compared with what a bare HTTP call gets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import httpx
from serving import ANY_MODEL, PATIENCE

QUESTION = "What is the capital of France?"
SYSTEM = "Answer in French."
STOP = "France"
MAX_TOKENS = 96
UNKNOWN_MODEL = "meta.llama3-3-70b-instruct-v1:0"
THROTTLED_MODEL = f"{ANY_MODEL}--fault-ThrottlingException"
# The same in the format that the demo model's chat template makes of it.
PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)


def choices(**members: Sequence[str]) -> dict[str, Any]:
    """The schema of an object each of whose members is one of a few strings."""
    return {
        "type": "object",
        "properties": {name: {"type": "string", "enum": [*values]} for name, values in members.items()},
        "required": [*members],
        "additionalProperties": False,
    }


ARGUMENTS: Mapping[str, Sequence[str]] = {
    "city": ("Berlin", "Paris", "Rome"),
    "unit": ("celsius", "fahrenheit"),
}
ANSWER: Mapping[str, Sequence[str]] = {
    "capital": ("Berlin", "Paris", "Rome"),
    "continent": ("Africa", "Europe"),
}
TOOL = {"name": "get_weather", "description": "The weather in a city.", "schema": choices(**ARGUMENTS)}


def task(url: str, checks: Sequence[str]) -> str:
    """What a program gets as its argument."""
    return json.dumps(
        {
            "url": url,
            "checks": [*checks],
            "model": ANY_MODEL,
            "unknown_model": UNKNOWN_MODEL,
            "throttled_model": THROTTLED_MODEL,
            "question": QUESTION,
            "system": SYSTEM,
            "stop": STOP,
            "prompt": PROMPT,
            "max_tokens": MAX_TOKENS,
            "overlong": "word " * 4000,
            "tool": TOOL,
            "tool_question": "What is the weather in Paris, in celsius?",
            "tool_result": {"temperature": 21, "sky": "clear"},
            "answer": {
                "name": "capital",
                "json": choices(**ANSWER),
                "json_text": json.dumps(choices(**ANSWER)),
            },
        }
    )


class Reference:
    """What the server answers when no client library is in between."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/model/{ANY_MODEL}/converse"

    def _ask(self, **more: Any) -> dict[str, Any]:
        request = {
            "messages": [{"role": "user", "content": [{"text": QUESTION}]}],
            "inferenceConfig": {"maxTokens": MAX_TOKENS, "temperature": 0},
        }
        answer = httpx.post(self._url, json=request | more, timeout=PATIENCE)
        answer.raise_for_status()
        return answer.json()

    @cached_property
    def plain(self) -> dict[str, Any]:
        return self._ask()

    @cached_property
    def system(self) -> dict[str, Any]:
        return self._ask(system=[{"text": SYSTEM}])

    @property
    def input_tokens(self) -> int:
        return self.plain["usage"]["inputTokens"]


def text_of(answer: Mapping[str, Any]) -> str:
    return answer["output"]["message"]["content"][0]["text"]


def usage_of(answer: Mapping[str, Any]) -> list[int]:
    return [answer["usage"]["inputTokens"], answer["usage"]["outputTokens"]]


def plain(result: Mapping[str, Any], reference: Reference) -> None:
    assert result["text"] == text_of(reference.plain)
    assert result["usage"] == usage_of(reference.plain)


def stream(result: Mapping[str, Any], reference: Reference) -> None:
    assert "".join(result["pieces"]) == text_of(reference.plain)
    assert len(result["pieces"]) > 1  # on a busy machine one event tells of several tokens
    assert result["usage"] == usage_of(reference.plain)


def system(result: Mapping[str, Any], reference: Reference) -> None:
    assert usage_of(reference.system) != usage_of(reference.plain)
    assert result["text"] == text_of(reference.system)
    assert result["usage"] == usage_of(reference.system)


def stop(result: Mapping[str, Any], reference: Reference) -> None:
    before, found, _ = text_of(reference.plain).partition(STOP)
    assert found
    assert result["text"] == before


def native(result: Mapping[str, Any], reference: Reference) -> None:
    assert result["text"] == text_of(reference.plain)
    assert result["usage"] == usage_of(reference.plain)


def native_stream(result: Mapping[str, Any], reference: Reference) -> None:
    stream(result, reference)


def says_something(result: Mapping[str, Any], reference: Reference) -> None:
    """For what a client words in a way of its own: Llama's prompt format, say, which the demo model lacks."""
    assert ("".join(result["pieces"]) if "pieces" in result else result["text"]).strip()


def count(result: Mapping[str, Any], reference: Reference) -> None:
    assert result["tokens"] == reference.input_tokens


def models(result: Mapping[str, Any], reference: Reference) -> None:
    assert result["models"] == [ANY_MODEL]


def _is_one_of(value: Mapping[str, Any], members: Mapping[str, Sequence[str]]) -> None:
    assert value.keys() == members.keys()
    for name, allowed in members.items():
        assert value[name] in allowed


def _calls(result: Mapping[str, Any]) -> None:
    for call in result["calls"]:
        assert call["name"] == TOOL["name"]
        arguments = call["arguments"]
        _is_one_of(json.loads(arguments) if isinstance(arguments, str) else arguments, ARGUMENTS)


def tool_auto(result: Mapping[str, Any], reference: Reference) -> None:
    """The model may call the tool or not."""
    assert result["calls"] or result["text"].strip()
    _calls(result)


def tool_forced(result: Mapping[str, Any], reference: Reference) -> None:
    assert len(result["calls"]) == 1
    _calls(result)


def structured(result: Mapping[str, Any], reference: Reference) -> None:
    _is_one_of(result["value"], ANSWER)


Expectation = Callable[[Mapping[str, Any], Reference], None]
EXPECTATIONS: Mapping[str, Expectation] = {
    "plain": plain,
    "stream": stream,
    "system": system,
    "stop": stop,
    "tool_auto": tool_auto,
    "tool_any": tool_forced,
    "tool_named": tool_forced,
    "tool_stream": tool_forced,
    "tool_result": says_something,
    "structured": structured,
    "structured_by_tool": structured,
    "agent": says_something,
    "native": native,
    "native_stream": native_stream,
    "count": count,
    "models": models,
}
"""What a client that has the call in question must get."""

MESSAGES: Mapping[str, str] = {
    "unknown_model": "The provided model identifier is invalid.",
    "overlong": "This model's maximum context length is",
    "throttled": "Too many requests, please wait before trying again.",
}
"""The calls that are refused, and words of the service that must reach the user of the client."""
