"""The errors of the Anthropic routes: the table of `outcrop.api.errors`, in Anthropic's form."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from outcrop.api import errors
from outcrop.api.error_kind import Kind
from outcrop.api.errors import ApiError
from outcrop.api.field_error import FieldError
from outcrop.api.responses import json_response

_TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Anthropic's name for what a status stands for; others are the server's fault."""


def response(error: ApiError) -> Response:
    """The error as an HTTP answer. Status and `x-amzn-ErrorType` are the table's, on every route alike."""
    return json_response(
        body_of(error), status=error.kind.status, headers={"x-amzn-ErrorType": error.kind.code}
    )


def event(error: ApiError) -> bytes:
    """The error as the last event of a stream that has already begun."""
    return b"event: error\ndata: " + msgspec.json.encode(body_of(error)) + b"\n\n"


def body_of(error: ApiError) -> dict[str, object]:
    kind = _TYPES.get(error.kind.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def refuse(error: FieldError) -> ApiError:
    """One member of the request is not as it must be."""
    path = ".".join(error.steps)
    return errors.validation(f"{path}: {error.problem}" if path else error.problem)


def model_not_found(model: str) -> ApiError:
    return ApiError(Kind.RESOURCE_NOT_FOUND, f"model: {model[:256]}")
