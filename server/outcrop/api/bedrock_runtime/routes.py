"""Routes of the `bedrock-runtime` service."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock_runtime import invoke_headers, llama
from outcrop.api.bedrock_runtime.converse import Conversation
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.body import read_body
from outcrop.api.connection import EventStreamResponse, request_id_of, unless_disconnected
from outcrop.api.errors import ApiError
from outcrop.api.inference import Inference
from outcrop.api.responses import json_response
from outcrop.catalog.model import ServedModel


class BedrockRuntime:
    """Converse and InvokeModel, whole and streaming, on one `Inference`."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def routes(self) -> list[Route]:
        """A model id may hold slashes and colons, bare or percent-encoded: hence `:path`."""
        operations = {
            "Converse": ("converse", self._converse),
            "ConverseStream": ("converse-stream", self._converse_stream),
            "InvokeModel": ("invoke", self._invoke),
            "InvokeModelWithResponseStream": ("invoke-with-response-stream", self._invoke_stream),
        }
        return [
            Route(f"/model/{{model_id:path}}/{verb}", endpoint, methods=["POST"], name=name)
            for name, (verb, endpoint) in operations.items()
        ]

    async def _converse(self, request: Request) -> Response:
        watch = Stopwatch()
        conversation = await self._conversation(request, streaming=False)
        deltas = self._inference.answer(conversation.call, request_id_of(request.scope), watch.started)
        answer = await unless_disconnected(request.receive, conversation.answer(deltas, watch))
        return json_response(answer)

    async def _converse_stream(self, request: Request) -> Response:
        watch = Stopwatch()
        conversation = await self._conversation(request, streaming=True)
        deltas = self._inference.answer(conversation.call, request_id_of(request.scope), watch.started)
        return EventStreamResponse(conversation.frames(deltas, watch))

    async def _conversation(self, request: Request, *, streaming: bool) -> Conversation:
        limit = self._inference.limits.max_body_bytes
        model, body = await self._receive(request, errors.entity_too_large(limit))
        return Conversation.parse(body, model, streaming=streaming)

    async def _invoke(self, request: Request) -> Response:
        watch = Stopwatch()
        echoed = invoke_headers.check(request.headers)
        model, body = await self._receive_native(request)
        deltas = self._inference.answer(llama.parse(body, model), request_id_of(request.scope), watch.started)
        generation = await unless_disconnected(request.receive, llama.answer(deltas))
        headers = invoke_headers.counts(generation.last, watch) | echoed
        return json_response(generation.body, headers=headers)

    async def _invoke_stream(self, request: Request) -> Response:
        watch = Stopwatch()
        echoed = invoke_headers.check(request.headers)
        model, body = await self._receive_native(request)
        deltas = self._inference.answer(llama.parse(body, model), request_id_of(request.scope), watch.started)
        headers = {"x-amzn-bedrock-content-type": "application/json"} | echoed
        return EventStreamResponse(llama.frames(deltas, watch), headers)

    async def _receive_native(self, request: Request) -> tuple[ServedModel, bytes]:
        return await self._receive(request, errors.body_too_long(self._inference.limits.max_body_bytes))

    async def _receive(self, request: Request, too_large: ApiError) -> tuple[ServedModel, bytes]:
        """The model and the body; what is refused without the body is refused before reading it."""
        model = self._inference.catalog.resolve(request.path_params["model_id"])
        self._inference.admission.check()
        return model, await read_body(request, self._inference.limits, too_large)
