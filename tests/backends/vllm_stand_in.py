"""What Outcrop uses of a vLLM server's HTTP surface, over Outcrop's own scheduler, without weights.

Routes and fields: vllm/entrypoints/openai/completion/protocol.py and serving.py of vLLM 0.32. The real server
runs in the slow tests (`tests/vllm_engine.py`).
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from outcrop.backends.fake import FakeBackend
from outcrop.engine.client import FinishReason, GenerationDelta, GenerationRequest, SamplingParams
from outcrop.engine.in_process import InProcessClient

from ..api.doubles import EOS, ByteTokenizer
from ..api.server import eventually
from ..conformance.engine import CAPABILITIES

NAME = "fake"
_REASONS = {FinishReason.EOS: "stop", FinishReason.LENGTH: "length", FinishReason.CONTEXT: "length"}
_EXTRAS = (
    "temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "max_tokens", "logprobs",
)  # fmt: skip


def own_engine() -> InProcessClient:
    backend = FakeBackend(replace(CAPABILITIES, logprobs=20))
    return InProcessClient(backend, load_tokenizer=ByteTokenizer)


class StandIn:
    """bodies: of the completions that were asked for. break_after: tokens after which the next stream breaks
    off, once. error: what streams tell in place of an answer. grammars: whether it takes them. details:
    whether usage tells cached tokens. key: what it asks for."""

    def __init__(self, port: int = 0, *, grammars: bool = True, details: bool = True, key: str = "") -> None:
        self.bodies: list[dict[str, Any]] = []
        self.break_after: int | None = None
        self.error: dict[str, Any] | None = None
        self._grammars, self._details, self._key = grammars, details, key
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._engine = own_engine()
        routes = [
            Route("/health", lambda request: Response()),
            Route("/v1/models", self._models),
            Route("/metrics", self._metrics),
            Route("/v1/completions", self._completions, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        await self._engine.start()
        await self._server.serve([self._listener])
        await self._engine.close()

    def start(self) -> None:
        self._thread.start()
        eventually(lambda: self._server.started)

    def stop(self) -> None:
        """Breaks off all that is open."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._listener.close()

    async def _models(self, request: Request) -> Response:
        if self._key and request.headers.get("authorization") != f"Bearer {self._key}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        return JSONResponse({"object": "list", "data": [{"id": NAME, "max_model_len": 2048}]})

    async def _metrics(self, request: Request) -> Response:
        stats = self._engine.stats
        lines = [
            "# TYPE vllm:num_requests_running gauge",
            f'vllm:num_requests_running{{engine="0"}} {stats.running}',
            "# TYPE vllm:prompt_tokens_total counter",
            f'vllm:prompt_tokens_total{{engine="0"}} {stats.prompt_tokens}',
            "# TYPE vllm:kv_cache_usage_perc gauge",
            'vllm:kv_cache_usage_perc{engine="0"} 0.25',
            "# TYPE vllm:cache_config_info gauge",
            'vllm:cache_config_info{engine="0",num_gpu_blocks="512"} 1',
            "",
        ]
        return PlainTextResponse("\n".join(lines))

    async def _completions(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        grammar = body.get("structured_outputs", {}).get("grammar", "")
        if grammar and not self._grammars:
            return JSONResponse({"error": "Failed to convert the grammar"}, 400)
        if len(body["prompt"]) + body["max_tokens"] > 2048:
            return JSONResponse({"error": "max_tokens is too large"}, 400)
        ends = [*body.get("stop_token_ids", ()), *([] if body.get("ignore_eos") else [EOS])]
        given = {name: body[name] for name in _EXTRAS if name in body}
        bias = {int(token): value for token, value in body.get("logit_bias", {}).items()}
        sampling = SamplingParams(**given, eos_ids=tuple(ends), logit_bias=bias, grammar=grammar)
        number = f"cmpl-{len(self.bodies)}"
        asked = GenerationRequest(
            number, body["prompt"], sampling, -body.get("priority", 0), body.get("cache_salt", "")
        )
        if not body.get("stream"):
            deltas = [delta async for delta in self._generate(asked)]
            tokens = [token for delta in deltas for token in delta.tokens]
            return JSONResponse({"choices": [{"token_ids": tokens}], "usage": self._usage(deltas[-1])})
        return StreamingResponse(self._events(asked), media_type="text/event-stream")

    async def _events(self, asked: GenerationRequest) -> AsyncIterator[str]:
        said = 0
        if self.error is not None:
            yield f"data: {json.dumps({'error': self.error})}\n\n"
            return
        async for delta in self._generate(asked):
            tokens = list(delta.tokens)
            if delta.finish is FinishReason.EOS:
                tokens.append(asked.sampling.eos_ids[0])
            choice: dict[str, Any] = {"index": 0, "token_ids": tokens, "logprobs": None}
            if delta.logprobs:
                told = zip(tokens, delta.logprobs, strict=False)
                choice["logprobs"] = {
                    "tokens": [f"token_id:{token}" for token in tokens],
                    "token_logprobs": [each.logprob for each in delta.logprobs],
                    "top_logprobs": [
                        {f"token_id:{one}": each for one, each in [(token, of.logprob), *of.likeliest]}
                        for token, of in told
                    ],
                }
            choice["finish_reason"] = None if delta.finish is None else _REASONS[delta.finish]
            yield f"data: {json.dumps({'choices': [choice]})}\n\n"
            said += len(tokens)
            if self.break_after is not None and said >= self.break_after:
                self.break_after = None
                raise ConnectionResetError
            if delta.finish is not None:
                yield f"data: {json.dumps({'choices': [], 'usage': self._usage(delta)})}\n\n"
        yield "data: [DONE]\n\n"

    def _generate(self, asked: GenerationRequest) -> AsyncIterator[GenerationDelta]:
        return self._engine.generate(asked)

    def _usage(self, delta: GenerationDelta) -> dict[str, Any]:
        details = {"prompt_tokens_details": {"cached_tokens": delta.cached}} if self._details else {}
        return {"completion_tokens": delta.generated, **details}


@contextmanager
def stand_in(**options: Any) -> Iterator[StandIn]:
    server = StandIn(**options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
