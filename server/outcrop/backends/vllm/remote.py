"""A vLLM server that runs already, over its OpenAI API: token ids in and out (vLLM 0.11 and newer).

Routes and fields: vllm/entrypoints/openai/completion/protocol.py (0.32: `return_token_ids`, `stop_token_ids`,
`structured_outputs`, `cache_salt`, `priority`), /health, /v1/models and /metrics.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from outcrop.backends.streaming import EngineLost, Piece
from outcrop.backends.vllm.answer import Answer
from outcrop.backends.vllm.metrics import engine_stats
from outcrop.backends.vllm.sampling import prompt_and_arguments, structured_outputs
from outcrop.engine.abilities import ABILITIES, Abilities
from outcrop.engine.config import EngineConfig
from outcrop.engine.frames import Ready
from outcrop.engine.messages import FinishReason, GenerationRequest
from outcrop.engine.stats import EngineStats

logger = logging.getLogger(__name__)

_WAIT = 1.0
"""Seconds between tries to reach a server that is not there (yet)."""

_CONNECT = 5.0
_TRIES = 3
"""Connections in a row that may break without a token, of a server that says it is well."""

_PROBE = 'start: %json {"type": "integer"}'
"""A grammar in the language that Outcrop's are in, which not all of vLLM's backends for grammars know."""


class VllmServer:
    """A StreamingEngine."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._url = config.url.rstrip("/")
        key = os.environ.get(config.api_key_env, "") if config.api_key_env else ""
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_CONNECT, read=None),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )
        self._name = config.served_name
        self._max_model_len = 0
        self._abilities = Abilities()
        self._stats = EngineStats()

    async def start(self, progress: Callable[[str, float], None]) -> Ready:
        """Waits for the server for as long as it takes."""
        progress(f"waiting for {self._url}", 0.0)
        while not await self._healthy():
            await asyncio.sleep(_WAIT)
        await self._find_model()
        self._abilities = await self._probe()
        return Ready(
            self._max_model_len,
            f"{self._name} of the vLLM server {self._url}, {self._max_model_len} tokens of context",
            self._abilities,
        )

    async def _healthy(self) -> bool:
        try:
            return (await self._http.get(f"{self._url}/health", timeout=_CONNECT)).status_code == 200
        except httpx.HTTPError:
            return False

    async def _find_model(self) -> None:
        """Raises ValueError."""
        answer = await self._http.get(f"{self._url}/v1/models", timeout=_CONNECT)
        if answer.status_code in (401, 403):
            raise ValueError(
                f"{self._url} asks for a key: put it in an environment variable, and name that one as the "
                "model's `api_key_env`"
            )
        if answer.status_code != 200:
            raise ValueError(f"{self._url}/v1/models answers {answer.status_code}; is this a vLLM server?")
        models = {str(each["id"]): each for each in answer.json()["data"]}
        name = self._name or next(iter(models), "")
        for wanted in (name, *self._config.adapters):
            if wanted not in models:
                raise ValueError(f"{self._url} does not serve {wanted!r}, but {', '.join(models)}")
        limit = models[name].get("max_model_len")
        if not limit:
            raise ValueError(f"{self._url} does not say how long the context of {name} is (max_model_len)")
        self._name, self._max_model_len = name, int(limit)

    async def _probe(self) -> Abilities:
        """What the server can do, as its version and options have it: asked by requests of one token."""
        plain = await self._try({})
        if plain is None or not plain["choices"][0].get("token_ids"):
            raise ValueError(f"{self._url} does not return token ids; vLLM 0.11 and newer do")
        priority = await self._try({"priority": 1}) is not None
        grammar = await self._try({"structured_outputs": {"grammar": _PROBE}}) is not None
        if not grammar:
            logger.warning(
                "%s takes no grammars of llguidance, so tools that must be called, strict tools and JSON "
                "schemas are refused; start it with --structured-outputs-config.backend guidance",
                self._url,
            )
        details = plain.get("usage", {}).get("prompt_tokens_details")
        return msgspec.structs.replace(
            ABILITIES["vllm"],
            priority=priority,
            grammar=grammar,
            prefix_cache=details is not None,
            adapters=tuple(self._config.adapters),
        )

    async def _try(self, changes: dict[str, Any]) -> dict[str, Any] | None:
        body = {
            "model": self._name, "prompt": [1, 1], "max_tokens": 1, "return_token_ids": True, **changes,
        }  # fmt: skip
        answer = await self._http.post(f"{self._url}/v1/completions", json=body)
        found: dict[str, Any] = answer.json()
        return found if answer.status_code == 200 else None

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """A stream that breaks goes on where the server is still well; else the engine is lost, and goes on
        when it has come back."""
        failures = 0
        while True:
            answer = Answer(request, self._max_model_len)
            try:
                async with aclosing(self._stream(request, answer)) as pieces:
                    async for piece in pieces:
                        failures = 0
                        yield piece
                if answer.ended:
                    return
                reason = "its answer stopped before its end"
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
            failures += 1
            if failures == _TRIES or not await self._healthy():
                raise EngineLost(f"the vLLM server {self._url} broke off: {reason}")
            logger.warning("%s broke off (%s); asking it again", self._url, reason)
            request = msgspec.structs.replace(request, resumed=answer.tokens)

    async def _stream(self, request: GenerationRequest, answer: Answer) -> AsyncGenerator[Piece, None]:
        body, asked = self._body(request), time.monotonic()
        url = f"{self._url}/v1/completions"
        async with self._http.stream("POST", url, json=body) as response:
            if response.status_code >= 500:
                raise EngineLost(f"{url} answers {response.status_code}: {await _text(response)}")
            if response.status_code != 200:
                yield self._refused(request, answer, f"{response.status_code}: {await _text(response)}")
                return
            async for piece in self._pieces(request, answer, response, asked):
                yield piece

    async def _pieces(
        self, request: GenerationRequest, answer: Answer, response: httpx.Response, asked: float
    ) -> AsyncGenerator[Piece, None]:
        """The last waits for the usage, which comes after it, and goes without where that does not come."""
        last = None
        try:
            async for event in _events(response):
                if "error" in event:
                    # In a stream that has begun, vLLM says so what is a status elsewhere.
                    if int(event["error"].get("code") or 500) >= 500:
                        raise EngineLost(f"the vLLM server failed: {event['error']}")
                    yield self._refused(request, answer, str(event["error"]))
                    return
                if choices := event.get("choices"):
                    piece = _piece(answer, choices[0], asked)
                    if piece is not None and piece.finish is None:
                        yield piece
                    elif piece is not None:
                        last = piece
                if answer.ended and (usage := event.get("usage")):
                    last = last and dataclasses.replace(last, cached=_cached(usage, request))
                    break
        except httpx.HTTPError:
            if last is None:
                raise
        if last is not None:
            yield last

    def _refused(self, request: GenerationRequest, answer: Answer, words: str) -> Piece:
        """Only the request fails. The API has checked it, so this is the operator's to look at."""
        logger.error("%s refuses a request: %s", self._url, words)
        return answer.failed(FinishReason.GRAMMAR if request.sampling.grammar else FinishReason.ERROR)

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        prompt, arguments = prompt_and_arguments(request)
        arguments["max_tokens"] = min(arguments["max_tokens"], self._max_model_len - len(prompt))
        if "logit_bias" in arguments:
            arguments["logit_bias"] = {str(token): bias for token, bias in arguments["logit_bias"].items()}
        if request.sampling.grammar:
            arguments["structured_outputs"] = structured_outputs(request.sampling.grammar)
        if request.cache_salt:
            arguments["cache_salt"] = request.cache_salt
        if request.priority and self._abilities.priority:
            arguments["priority"] = -request.priority
        return {
            "model": request.adapter or self._name,
            "prompt": prompt,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **arguments,
        }

    async def look(self) -> EngineStats:
        try:
            answer = await self._http.get(f"{self._url}/metrics", timeout=_CONNECT)
        except httpx.ConnectError as error:
            raise EngineLost(f"the vLLM server {self._url} is gone: {error}") from error
        except httpx.HTTPError:
            return self._stats  # it is busy
        if answer.status_code == 200:
            self._stats = engine_stats(text_string_to_metric_families(answer.text))
        return self._stats

    async def close(self) -> None:
        await self._http.aclose()


def _piece(answer: Answer, choice: dict[str, Any], asked: float) -> Piece | None:
    tokens: list[int] = choice.get("token_ids") or []
    told = choice.get("logprobs")
    places: list[dict[int, float]] = []
    if told:
        for token, logprob, place in zip(tokens, told["token_logprobs"], told["top_logprobs"], strict=True):
            places.append({_token_id(name): each for name, each in place.items()} | {token: logprob})
    return answer.piece(
        tokens,
        choice.get("finish_reason"),
        answer.logprobs(tokens, places) if places else (),
        running=time.monotonic() - asked,
    )


def _cached(usage: dict[str, Any], request: GenerationRequest) -> int:
    """Tokens of the prompt from the prefix cache, where the server tells (--enable-prompt-tokens-details)."""
    details = usage.get("prompt_tokens_details") or {}
    return min(int(details.get("cached_tokens") or 0), len(request.prompt))


def _token_id(name: str) -> int:
    """Of `token_id:123`, as `return_tokens_as_token_ids` has it."""
    return int(name.removeprefix("token_id:"))


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            event: dict[str, Any] = msgspec.json.decode(line.removeprefix("data: "))
            yield event


async def _text(response: httpx.Response) -> str:
    return (await response.aread()).decode(errors="replace")[:500]
