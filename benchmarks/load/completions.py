"""Streamed `POST /v1/completions` calls with token ids, by `outcrop bench`'s client.

Each call says how many tokens its answer is to have, and is an error if it has another number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from outcrop.bench.call import Call
from outcrop.bench.protocol import OpenAi

__all__ = ["Call", "CompletionError", "Request", "complete", "run_load"]

_PATIENCE = 600  # seconds


@dataclass(frozen=True, slots=True)
class Request:
    """prompt: token ids. The answer has exactly `max_tokens` tokens, whatever they are."""

    prompt: list[int]
    max_tokens: int


class CompletionError(RuntimeError):
    """The server refused a call or did not finish it; the message has its words."""


class _TokenIds(OpenAi):
    """Sends token ids in place of a text."""

    def __init__(self, url: str, model: str, request: Request) -> None:
        parts = urlsplit(url)
        self._path, self._request = parts.path, request
        super().__init__(f"{parts.scheme}://{parts.netloc}", model)

    def path(self) -> str:
        return self._path

    def body(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        return super().body(prompt, max_tokens) | {"prompt": self._request.prompt}


async def run_load(url: str, model: str, requests: Sequence[Request]) -> list[Call]:
    """All requests at once. Raises CompletionError, and TimeoutError if they take unreasonably long."""
    async with asyncio.timeout(_PATIENCE):
        return list(await asyncio.gather(*(complete(url, model, request) for request in requests)))


async def complete(url: str, model: str, request: Request) -> Call:
    """One call. url: of the endpoint itself, such as http://127.0.0.1:8000/v1/completions."""
    call = Call(0.0)
    await _TokenIds(url, model, request).ask("", request.max_tokens, call)
    if call.error:
        raise CompletionError(f"{url}: {call.error}")
    if call.output_tokens != request.max_tokens:
        raise CompletionError(f"{url}: {call.output_tokens} tokens came, {request.max_tokens} were asked for")
    return call
