"""JSON bodies into shapes, and what does not fit into an error that names the parameter."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from outcrop.api.openai import errors

T = TypeVar("T")

_AT = re.compile(r"(?P<problem>.*) - at (?:`key` in )?`\$\.?(?P<path>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The body as the decoder's shape. Raises ValidationException."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        problem, param = _problem(str(error))
        raise errors.invalid(f"{param}: {problem}" if param else problem, param) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise errors.invalid("The request body is not valid JSON.", None) from None


def _problem(message: str) -> tuple[str, str | None]:
    """What is wrong, and with which parameter."""
    at = _AT.fullmatch(message)
    problem, path = (at["problem"], at["path"]) if at else (message, "")
    prefix = f"{path}." if path else ""
    if unknown := _UNKNOWN.fullmatch(problem):
        return "This server does not have this parameter. Remove it and try again.", prefix + unknown[1][:256]
    if missing := _MISSING.fullmatch(problem):
        return "This parameter is required.", prefix + missing[1]
    return problem, path or None
