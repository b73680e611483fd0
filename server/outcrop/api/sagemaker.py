"""What Amazon SageMaker asks of a container that it hosts: GET /ping and POST /invocations on port 8080.

SageMaker has authenticated callers by IAM before it passes their bodies on, without credentials, and is the
only one that reaches its containers: so `/invocations` asks nobody who they are, and is there only where the
setting `sagemaker` says so. Contract: "Custom Inference Code with Hosting Services" in the SageMaker AI
developer guide.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from outcrop.api import errors
from outcrop.api.admission import ApiLimits
from outcrop.api.anthropic import routes as anthropic
from outcrop.api.auth.principal import LOCAL, SCOPE_KEY
from outcrop.api.body import read_body, replay
from outcrop.api.openai import routes as openai

PING = "/ping"
INVOCATIONS = "/invocations"
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
"""The one header of a caller (`CustomAttributes`) that SageMaker passes on."""

_ROUTES = ("/model/", f"{openai.PREFIX}/", f"{anthropic.PREFIX}/")
_FORMS = (
    'a body with "messages" is an OpenAI chat completion, one with "prompt" the model\'s own of InvokeModel; '
    "for others name one of this server's routes in CustomAttributes, such as route=/model/ID/converse"
)


class SageMaker:
    """ASGI: leads both paths to the routes that answer them. /ping is /health/ready.

    A body of /invocations goes where CustomAttributes says (`route=/model/ID/converse-stream`), or else by
    its form, with `model_id` where it names no model. What the route answers is passed on as it is, streamed
    if it is a stream.
    """

    def __init__(self, app: ASGIApp, model_id: str, limits: ApiLimits) -> None:
        self._app = app
        self._model_id = model_id
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked = scope["method"], scope["path"]
            if asked == ("GET", PING):
                _lead(scope, "/health/ready")
            elif asked == ("POST", INVOCATIONS):
                receive = await self._invoke(scope, receive)
        await self._app(scope, receive, send)

    async def _invoke(self, scope: Scope, receive: Receive) -> Receive:
        """Lead an invocation to its route; what that is to receive from. Raises ApiError."""
        request = Request(scope, receive)
        route = _named_route(request.headers.get(ATTRIBUTES, ""))
        scope[SCOPE_KEY] = LOCAL
        if route:
            _lead(scope, route)
            return receive
        body = await read_body(request, self._limits, errors.body_too_long(self._limits.max_body_bytes))
        try:
            members = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise errors.validation(f"The body is not JSON: {_FORMS}.") from None
        path, members = self._by_form(members if isinstance(members, dict) else {})
        _lead(scope, path)
        return replay(msgspec.json.encode(members), receive)

    def _by_form(self, members: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The route for a body without one, and the body that it takes. Raises ApiError."""
        if "messages" in members:
            return f"{openai.PREFIX}/chat/completions", {"model": self._model_id} | members
        if "prompt" in members:
            return f"/model/{quote(self._model_id, safe='')}/invoke", members
        raise errors.validation(f"The body has neither messages nor a prompt: {_FORMS}.")


def _named_route(attributes: str) -> str:
    """The value of `route` among `name=value` pairs between commas; "" without one. Raises ApiError."""
    pairs = (pair.strip().partition("=") for pair in attributes.split(","))
    route = next((value for name, _, value in pairs if name == "route"), "")
    if route and not route.startswith(_ROUTES):
        raise errors.validation(f"CustomAttributes: route {route} does not begin with {', '.join(_ROUTES)}")
    return route


def _lead(scope: Scope, path: str) -> None:
    scope["path"] = unquote(path)
