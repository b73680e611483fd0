"""The protocols that a server can be measured by, all of them streaming."""

from __future__ import annotations

import base64
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from outcrop.bench.call import Call
from outcrop.bench.http import HttpError, post, server_sent_events


class StreamFailure(RuntimeError):
    """The answer broke off, or said that it failed. The message names the kind of failure."""


class Protocol(ABC):
    """url: of the server, without a path. model: as the protocol names it."""

    def __init__(self, url: str, model: str, headers: Mapping[str, str] | None = None) -> None:
        self.model = model
        self._url = url.rstrip("/") + self.path()
        self._headers = headers

    @abstractmethod
    def path(self) -> str:
        """What calls are sent to."""

    @abstractmethod
    def body(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        """A call that answers `prompt` with up to `max_tokens` tokens."""

    @abstractmethod
    async def read(self, content: AsyncIterator[bytes], call: Call) -> None:
        """Note the pieces of an answer and its counts. Raises StreamFailure."""

    async def ask(self, prompt: str, max_tokens: int, call: Call) -> None:
        """One call, noted in `call`. Never raises for what a server does, only cancellation."""
        try:
            body = json.dumps(self.body(prompt, max_tokens)).encode()
            call.begun = time.perf_counter()
            async with post(self._url, body, self._headers) as content:
                await self.read(content, call)
            call.ended = time.perf_counter()
            if not call.pieces or not call.output_tokens:
                call.error = "an answer without tokens"
        except HttpError as error:
            call.error = f"HTTP {error.status}"
        except StreamFailure as error:
            call.error = f"in the stream: {error}"
        except (OSError, EOFError, ValueError) as error:
            call.error = type(error).__name__


class Converse(Protocol):
    """Bedrock's ConverseStream."""

    def path(self) -> str:
        return f"/model/{quote(self.model, safe=':')}/converse-stream"

    def body(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": [{"text": prompt}]}],
            "inferenceConfig": {"maxTokens": max_tokens, "temperature": 0},
        }

    async def read(self, content: AsyncIterator[bytes], call: Call) -> None:
        async for kind, payload in event_stream(content):
            if kind == "contentBlockDelta":
                call.pieces.append(time.perf_counter())
            elif kind == "metadata":
                usage = json.loads(payload)["usage"]
                call.input_tokens, call.output_tokens = usage["inputTokens"], usage["outputTokens"]


class Invoke(Protocol):
    """Bedrock's InvokeModelWithResponseStream, with the body of Meta's Llama."""

    def path(self) -> str:
        return f"/model/{quote(self.model, safe=':')}/invoke-with-response-stream"

    def body(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        return {"prompt": prompt, "max_gen_len": max_tokens, "temperature": 0}

    async def read(self, content: AsyncIterator[bytes], call: Call) -> None:
        async for _, payload in event_stream(content):
            now = time.perf_counter()
            piece = json.loads(base64.b64decode(json.loads(payload)["bytes"]))
            if piece.get("generation"):
                call.pieces.append(now)
            if piece.get("prompt_token_count"):
                call.input_tokens = piece["prompt_token_count"]
            call.output_tokens = piece.get("generation_token_count") or call.output_tokens


class OpenAi(Protocol):
    """OpenAI's completions. url: with whatever stands before /v1, such as http://127.0.0.1:8080/openai.
    Answers are as long as was asked for where the server knows vLLM's `ignore_eos`."""

    def path(self) -> str:
        return "/v1/completions"

    def body(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def read(self, content: AsyncIterator[bytes], call: Call) -> None:
        async for data in server_sent_events(content):
            now = time.perf_counter()
            # The counts come once, in the last event or beside its last piece; others need not be parsed.
            if data.startswith(b'{"error"'):
                raise StreamFailure(json.loads(data)["error"].get("type", "error"))
            if b'"usage":{' in data.replace(b" ", b""):
                event = json.loads(data)
                call.input_tokens = event["usage"]["prompt_tokens"]
                call.output_tokens = event["usage"]["completion_tokens"]
                if event["choices"]:
                    call.pieces.append(now)
            else:
                call.pieces.append(now)


PROTOCOLS: dict[str, type[Protocol]] = {"converse": Converse, "invoke": Invoke, "openai": OpenAi}


async def event_stream(content: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, bytes]]:
    """Events of `application/vnd.amazon.eventstream`: type and payload. A frame is its length, the length of
    its headers, a checksum, headers, payload and a checksum; the checksums are not looked at. Raises
    StreamFailure for an exception in the stream."""
    rest = b""
    async for data in content:
        rest += data
        while len(rest) >= 12 and len(rest) >= (size := int.from_bytes(rest[:4], "big")):
            frame, rest = rest[:size], rest[size:]
            headers_end = 12 + int.from_bytes(frame[4:8], "big")
            headers = _headers(frame[12:headers_end])
            if headers.get(":message-type") != "event":
                raise StreamFailure(headers.get(":exception-type", headers.get(":error-code", "exception")))
            yield headers.get(":event-type", ""), frame[headers_end:-4]
    if rest:
        raise StreamFailure("cut off")


def _headers(data: bytes) -> dict[str, str]:
    """All of them are strings (type 7)."""
    found, at = {}, 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name = data[at + 1 : name_end].decode()
        value_end = name_end + 3 + int.from_bytes(data[name_end + 1 : name_end + 3], "big")
        found[name] = data[name_end + 3 : value_end].decode()
        at = value_end
    return found
