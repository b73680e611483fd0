"""Operations of the service that need what this server does not have: guardrails, asynchronous and two-way
invocations. Each answers an error that the operation declares, so that clients know it for what it is."""

from __future__ import annotations

import re
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock_runtime.models import GUARDRAIL_IDENTIFIER, GUARDRAIL_VERSION
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.api.shapes import Must
from outcrop.api.smithy import Constraints
from outcrop.catalog.catalog import Catalog, UnknownModel

_STATUSES = ("InProgress", "Completed", "Failed")
_MAX_RESULTS = Must(value=(1, 1000))
_NEXT_TOKEN = Must(size=(1, 2048), pattern=re.compile(r"\S*"))


class NotOffered:
    """Their routes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def routes(self) -> list[Route]:
        return [
            Route(path, endpoint, methods=[method], name=name)
            for name, (method, path, endpoint) in {
                "InvokeModelWithBidirectionalStream": (
                    "POST",
                    f"/model/{{model_id:{LABEL}}}/invoke-with-bidirectional-stream",
                    self._bidirectional,
                ),
                "ApplyGuardrail": (
                    "POST",
                    f"/guardrail/{{guardrail_id:{LABEL}}}/version/{{version}}/apply",
                    self._apply_guardrail,
                ),
                "InvokeGuardrailChecks": ("POST", "/guardrail-checks/invoke", self._guardrail_checks),
                "StartAsyncInvoke": ("POST", "/async-invoke", self._start_async_invoke),
                "ListAsyncInvokes": ("GET", "/async-invoke", self._list_async_invokes),
                "GetAsyncInvoke": ("GET", f"/async-invoke/{{arn:{LABEL}}}", self._get_async_invoke),
            }.items()
        ]

    async def _bidirectional(self, request: Request) -> Response:
        """Answers at once: the client goes on sending until it hears something, and its body does not end."""
        try:
            self._catalog.resolve(request.path_params["model_id"])
        except UnknownModel:
            return errors.invalid_model_identifier().response()
        return errors.no_bidirectional_stream().response()

    async def _apply_guardrail(self, request: Request) -> Response:
        guardrail, version = request.path_params["guardrail_id"], request.path_params["version"]
        constraints = Constraints()
        GUARDRAIL_IDENTIFIER.check(constraints, ("guardrailIdentifier",), guardrail)
        GUARDRAIL_VERSION.check(constraints, ("guardrailVersion",), version)
        constraints.raise_if_violated()
        raise errors.unknown_guardrail(guardrail, version)

    async def _guardrail_checks(self, request: Request) -> Response:
        raise errors.unsupported_operation("InvokeGuardrailChecks")

    async def _start_async_invoke(self, request: Request) -> Response:
        raise errors.no_asynchronous_invocation()

    async def _list_async_invokes(self, request: Request) -> Response:
        """None has ever been started."""
        query = request.query_params
        constraints = Constraints()
        constraints.one_of("statusEquals", query.get("statusEquals"), _STATUSES)
        constraints.one_of("sortBy", query.get("sortBy"), ("SubmissionTime",))
        constraints.one_of("sortOrder", query.get("sortOrder"), ("Ascending", "Descending"))
        _MAX_RESULTS.check(constraints, ("maxResults",), _integer("maxResults", query.get("maxResults")))
        _NEXT_TOKEN.check(constraints, ("nextToken",), query.get("nextToken"))
        constraints.raise_if_violated()
        for name in ("submitTimeAfter", "submitTimeBefore"):
            _check_time(name, query.get(name))
        return json_response({"asyncInvokeSummaries": []})

    async def _get_async_invoke(self, request: Request) -> Response:
        raise errors.unknown_invocation(request.path_params["arn"])


def _integer(name: str, text: str | None) -> int | None:
    """Raises SerializationException."""
    if text is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise errors.serialization(f"STRING_VALUE cannot be converted to Integer at '{name}'")
    return int(text)


def _check_time(name: str, text: str | None) -> None:
    """Raises SerializationException."""
    try:
        datetime.fromisoformat(text or "1970-01-01")
    except ValueError:
        raise errors.serialization(f"STRING_VALUE cannot be converted to Timestamp at '{name}'") from None
