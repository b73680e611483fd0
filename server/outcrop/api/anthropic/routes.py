"""Routes of Anthropic's Messages API."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors as table
from outcrop.api import field_error
from outcrop.api.anthropic import errors
from outcrop.api.anthropic.messages import Messages
from outcrop.api.anthropic.messages_request import DECODER, MessagesRequest
from outcrop.api.auth.access import authorized_model
from outcrop.api.bedrock_runtime.invoke_headers import refuse_guardrail
from outcrop.api.body import read_body
from outcrop.api.caller import Caller
from outcrop.api.connection import StreamForm, StreamResponse, unless_disconnected
from outcrop.api.field_error import FieldError
from outcrop.api.growing_answer import GrowingAnswer, complete
from outcrop.api.inference import GenerationCall, Inference
from outcrop.api.responses import json_response
from outcrop.catalog.catalog import UnknownModel
from outcrop.catalog.model import ServedModel, TextDelta

PREFIX = "/anthropic/v1"
_PROVIDER = "anthropic"

SERVER_SENT_EVENTS = StreamForm("text/event-stream", errors.event)

_encode = msgspec.json.Encoder().encode


class Anthropic:
    """The operations of the API, on one `Inference`."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def routes(self) -> list[Route]:
        count = f"{PREFIX}/messages/count_tokens"
        return [
            Route(f"{PREFIX}/messages", self._messages, methods=["POST"], name="createMessage"),
            Route(count, self._count_tokens, methods=["POST"], name="countMessageTokens"),
        ]

    async def _messages(self, request: Request) -> Response:
        arrived = time.perf_counter()
        asked = await self._read(request)
        streaming = bool(asked.stream)
        action = "InvokeModelWithResponseStream" if streaming else "InvokeModel"
        messages, call = self._parse(asked, self._model(request, asked, action))
        growing = messages.answer(asked.model or "")
        deltas = self._inference.answer(call, Caller.of(request, _PROVIDER), arrived)
        if streaming:
            return StreamResponse(_frames(growing, deltas), SERVER_SENT_EVENTS)
        await unless_disconnected(request.receive, complete(growing, deltas))
        return json_response(growing.whole())

    async def _count_tokens(self, request: Request) -> Response:
        asked = await self._read(request)
        model = self._model(request, asked, "CountTokens")
        try:
            chat = Messages.of(asked, model, errors.refuse).chat
        except FieldError as error:
            raise errors.refuse(error) from None
        counting = self._inference.count(chat.prepare_unbounded, Caller.of(request, _PROVIDER))
        return json_response({"input_tokens": await unless_disconnected(request.receive, counting)})

    async def _read(self, request: Request) -> MessagesRequest:
        """Raises ApiError."""
        refuse_guardrail(request.headers)
        limits = self._inference.limits
        body = await read_body(request, limits, table.entity_too_large(limits.max_body_bytes))
        try:
            asked = field_error.decode(body, DECODER)
            if asked.model is None:
                raise FieldError("model", "This parameter is required.", "missing")
        except FieldError as error:
            raise errors.refuse(error) from None
        return asked

    def _parse(self, asked: MessagesRequest, model: ServedModel) -> tuple[Messages, GenerationCall]:
        try:
            messages = Messages.of(asked, model, errors.refuse)
            return messages, messages.call()
        except FieldError as error:
            raise errors.refuse(error) from None

    def _model(self, request: Request, asked: MessagesRequest, action: str) -> ServedModel:
        """The model that a body names, which its caller must be allowed to use. Raises ApiError."""
        name = asked.model or ""
        try:
            model = authorized_model(request, name, f"bedrock:{action}", self._inference.catalog)
        except UnknownModel:
            raise errors.model_not_found(name) from None
        self._inference.admission.check(model.reservation)
        return model


async def _frames(
    growing: GrowingAnswer, deltas: AsyncGenerator[TextDelta, None]
) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events, as its tokens come."""
    async with aclosing(deltas):
        async for delta in deltas:
            frames = [
                b"event: " + event["type"].encode() + b"\ndata: " + _encode(event) + b"\n\n"
                for event in growing.push(delta)
            ]
            if frames:
                yield b"".join(frames)
