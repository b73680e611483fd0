"""Routes of the OpenAI API."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors as table
from outcrop.api.auth.access import authorized_model
from outcrop.api.body import read_body
from outcrop.api.caller import Caller
from outcrop.api.connection import StreamForm, StreamResponse, unless_disconnected
from outcrop.api.inference import Inference
from outcrop.api.openai import completion_request, errors
from outcrop.api.openai.completions import Completion
from outcrop.api.responses import json_response
from outcrop.catalog.catalog import UnknownModel
from outcrop.catalog.model import ServedModel

PREFIX = "/openai/v1"

SERVER_SENT_EVENTS = StreamForm("text/event-stream", errors.event)


class OpenAi:
    """The operations of the API, on one `Inference`."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._created = int(time.time())

    def routes(self) -> list[Route]:
        return [
            Route(f"{PREFIX}/completions", self._completions, methods=["POST"], name="createCompletion"),
            Route(f"{PREFIX}/models", self._models, methods=["GET"], name="listModels"),
        ]

    async def _completions(self, request: Request) -> Response:
        arrived = time.perf_counter()
        limits = self._inference.limits
        body = await read_body(request, limits, table.entity_too_large(limits.max_body_bytes))
        asked = completion_request.parse(body)
        calls = asked.calls(self._model(request, asked.model, streaming=bool(asked.stream)))
        caller = Caller.of(request)
        completion = Completion(asked, caller.request_id)
        answers = [
            self._inference.answer(call, part, arrived)
            for call, part in zip(calls, caller.parts(len(calls)), strict=True)
        ]
        if asked.stream:
            return StreamResponse(completion.frames(answers), SERVER_SENT_EVENTS)
        return json_response(await unless_disconnected(request.receive, completion.answer(answers)))

    async def _models(self, request: Request) -> Response:
        models = [
            {"id": model.id, "object": "model", "created": self._created, "owned_by": model.provider}
            | {"max_model_len": model.max_model_len if model.engine.ready else None}
            for model in self._inference.catalog.models
        ]
        return json_response({"object": "list", "data": models})

    def _model(self, request: Request, name: str, *, streaming: bool) -> ServedModel:
        """The model that a body names, which its caller must be allowed to use. Raises ApiError."""
        catalog = self._inference.catalog
        action = "bedrock:InvokeModelWithResponseStream" if streaming else "bedrock:InvokeModel"
        try:
            model = authorized_model(request, name, action, catalog)
        except UnknownModel:
            raise errors.model_not_found(name) from None
        self._inference.admission.check()
        return model
