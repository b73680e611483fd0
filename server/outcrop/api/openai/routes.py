"""Routes of the OpenAI API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors as table
from outcrop.api.auth.access import authorized_model
from outcrop.api.bedrock_runtime import service_tier
from outcrop.api.bedrock_runtime.invoke_headers import refuse_guardrail
from outcrop.api.body import read_body
from outcrop.api.caller import Caller
from outcrop.api.connection import StreamForm, StreamResponse, unless_disconnected
from outcrop.api.field_error import FieldError
from outcrop.api.growing_answer import complete
from outcrop.api.inference import GenerationCall, Inference
from outcrop.api.openai import chat_request, completion_request, errors, responses_request
from outcrop.api.openai.chat_completion import ChatCompletion
from outcrop.api.openai.choice import GrowingChoice
from outcrop.api.openai.completions import Answers, Completion
from outcrop.api.openai.decode import decode
from outcrop.api.openai.response import GrowingResponse
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.catalog.catalog import UnknownModel
from outcrop.catalog.model import ServedModel

PREFIX = "/openai/v1"
_PROVIDER = "openai"

SERVER_SENT_EVENTS = StreamForm("text/event-stream", errors.event)


class OpenAi:
    """The operations of the API, on one `Inference`."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._created = int(time.time())

    def routes(self) -> list[Route]:
        return [
            Route(f"{PREFIX}/completions", self._completions, methods=["POST"], name="createCompletion"),
            Route(f"{PREFIX}/chat/completions", self._chat, methods=["POST"], name="createChatCompletion"),
            Route(f"{PREFIX}/responses", self._responses, methods=["POST"], name="createResponse"),
            Route(f"{PREFIX}/models", self._models, methods=["GET"], name="listModels"),
            Route(
                f"{PREFIX}/models/{{model_id:{LABEL}}}", self._retrieve, methods=["GET"], name="retrieveModel"
            ),
        ]

    async def _completions(self, request: Request) -> Response:
        arrived = time.perf_counter()
        asked = completion_request.parse(await self._body(request))
        model = self._model(request, asked.model, streaming=bool(asked.stream))
        calls = asked.calls(model)
        caller = Caller.of(request, _PROVIDER)
        completion = Completion(asked, caller.request_id, asked.logprobs_form(model))
        answers = self._answers(calls, caller, arrived)
        if asked.stream:
            return StreamResponse(completion.frames(answers), SERVER_SENT_EVENTS)
        return json_response(await unless_disconnected(request.receive, completion.answer(answers)))

    async def _chat(self, request: Request) -> Response:
        arrived = time.perf_counter()
        asked = decode(await self._body(request), chat_request.DECODER)
        if asked.model is None:
            raise errors.invalid("model: This parameter is required.", "model")
        model = self._model(request, asked.model, streaming=bool(asked.stream))
        try:
            chat = asked.chat(model, errors.refuse)
            calls = asked.calls(chat, priority=service_tier.priority_of(asked.service_tier))
        except FieldError as error:
            raise errors.refuse(error) from None
        caller = Caller.of(request, _PROVIDER)
        completion = ChatCompletion(f"chatcmpl-{caller.request_id}", asked.model)
        logprobs = asked.logprobs_form(model)
        choices = [
            GrowingChoice(chat.events(call_prefix="call_"), index, logprobs) for index in range(len(calls))
        ]
        answers = self._answers(calls, caller, arrived)
        if asked.stream:
            frames = completion.frames(choices, answers, includes_usage=asked.includes_usage)
            return StreamResponse(frames, SERVER_SENT_EVENTS)
        return json_response(await unless_disconnected(request.receive, completion.answer(choices, answers)))

    async def _responses(self, request: Request) -> Response:
        arrived = time.perf_counter()
        asked = decode(await self._body(request), responses_request.DECODER)
        model = self._model(request, asked.model, streaming=bool(asked.stream))
        try:
            chat = asked.chat(model, errors.refuse)
        except FieldError as error:
            raise errors.refuse(error) from None
        caller = Caller.of(request, _PROVIDER)
        growing = GrowingResponse(
            asked, chat.events(call_prefix="call_"), caller.request_id, asked.logprobs_form(model)
        )
        call = asked.call(chat, service_tier.priority_of(asked.service_tier))
        deltas = self._inference.answer(call, caller, arrived)
        if asked.stream:
            return StreamResponse(growing.frames(deltas), growing.form)
        await unless_disconnected(request.receive, complete(growing, deltas))
        return json_response(growing.whole())

    async def _models(self, request: Request) -> Response:
        models = [self._listed(model, model.id) for model in self._inference.catalog.models]
        return json_response({"object": "list", "data": models})

    async def _retrieve(self, request: Request) -> Response:
        name = request.path_params["model_id"]
        try:
            model = self._inference.catalog.resolve(name)
        except UnknownModel:
            raise errors.model_not_found(name) from None
        return json_response(self._listed(model, name))

    def _listed(self, model: ServedModel, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": model.provider,
            "max_model_len": model.max_model_len if model.engine.ready else None,
        }

    async def _body(self, request: Request) -> bytes:
        refuse_guardrail(request.headers)
        limits = self._inference.limits
        return await read_body(request, limits, table.entity_too_large(limits.max_body_bytes))

    def _answers(self, calls: Sequence[GenerationCall], caller: Caller, arrived: float) -> Answers:
        return [
            self._inference.answer(call, part, arrived)
            for call, part in zip(calls, caller.parts(len(calls)), strict=True)
        ]

    def _model(self, request: Request, name: str, *, streaming: bool) -> ServedModel:
        """The model that a body names, which its caller must be allowed to use. Raises ApiError."""
        catalog = self._inference.catalog
        action = "bedrock:InvokeModelWithResponseStream" if streaming else "bedrock:InvokeModel"
        try:
            model = authorized_model(request, name, action, catalog)
        except UnknownModel:
            raise errors.model_not_found(name) from None
        self._inference.admission.check(model.reservation)
        return model
