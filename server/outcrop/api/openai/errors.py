"""The errors of the OpenAI routes: the table of `outcrop.api.errors`, in OpenAI's form."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from outcrop.api.error_kind import Kind
from outcrop.api.errors import ApiError
from outcrop.api.field_error import FieldError
from outcrop.api.responses import json_response

_TYPES = {403: "permission_error", 429: "rate_limit_error"}
"""OpenAI's name for what a status stands for; others are the client's fault or the server's."""


def response(error: ApiError) -> Response:
    """The error as an HTTP answer. Status and `x-amzn-ErrorType` are the table's, on every route alike."""
    return json_response(
        body_of(error), status=error.kind.status, headers={"x-amzn-ErrorType": error.kind.code}
    )


def event(error: ApiError) -> bytes:
    """The error as the last event of a stream that has already begun."""
    return b"data: " + msgspec.json.encode(body_of(error)) + b"\n\n"


def body_of(error: ApiError) -> dict[str, object]:
    """param: the member of the request that is at fault, null where it is not one alone."""
    server = error.kind in (Kind.MODEL_ERROR, Kind.MODEL_TIMEOUT) or error.kind.status >= 500
    kind = "server_error" if server else _TYPES.get(error.kind.status, "invalid_request_error")
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.members.get("param"),
            "code": error.members.get("code", error.kind.code),
        }
    }


def invalid(message: str, param: str | None) -> ApiError:
    """One member of the request, or all of it, is not as it must be."""
    return ApiError(Kind.VALIDATION, message, param=param)


def refuse(error: FieldError) -> ApiError:
    return invalid(str(error), error.path or None)


def model_not_found(model: str) -> ApiError:
    return ApiError(
        Kind.RESOURCE_NOT_FOUND,
        f"The model {model[:256]!r} does not exist. GET /openai/v1/models lists those of this server.",
        param="model",
        code="model_not_found",
    )
