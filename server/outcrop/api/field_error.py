"""A member of a JSON body that is not as it must be, before a protocol's own words are found for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import msgspec

from outcrop.api.errors import ApiError

T = TypeVar("T")

Fault = Literal["unknown", "missing", "value"]

_AT = re.compile(r"(?P<problem>.*) - at (?:`key` in )?`\$\.?(?P<path>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_VARIANT = re.compile(r"Invalid value (.*)", re.DOTALL)
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")
_SHOWN = 256


class FieldError(Exception):
    """path: of the member, as `messages[0].content`; "" for the body as a whole. problem: what is wrong with
    it and, where that is not plain, what to do. fault: whether the member is one that is not known here, one
    that is missing, or one of a wrong value."""

    def __init__(self, path: str, problem: str, fault: Fault = "value") -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem
        self.fault = fault

    @property
    def steps(self) -> Sequence[str]:
        """The path's steps: `messages`, `0`, `content`."""
        return [step for step in _INDEX.sub(r".\1", self.path).split(".") if step]


Refuse = Callable[[FieldError], ApiError]
"""How a protocol says it."""


def unsupported(path: str, advice: str) -> FieldError:
    """A member that is known, but cannot be honoured here."""
    return FieldError(path, f"this is not supported here; {advice}")


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The body as the decoder's shape. Raises FieldError."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise FieldError("", "The request body is not valid JSON.") from None
    except RecursionError:
        raise FieldError("", "The request body is nested too deeply.") from None


def _field_error(message: str) -> FieldError:
    at = _AT.fullmatch(message)
    problem, path = (at["problem"], at["path"]) if at else (message, "")
    prefix = f"{path}." if path else ""
    if unknown := _UNKNOWN.fullmatch(problem):
        advice = "This server does not have this parameter. Remove it and try again."
        return FieldError(prefix + unknown[1][:_SHOWN], advice, "unknown")
    if missing := _MISSING.fullmatch(problem):
        return FieldError(prefix + missing[1], "This parameter is required.", "missing")
    if variant := _VARIANT.fullmatch(problem):
        return FieldError(path, f"{variant[1][:_SHOWN]} is not supported here.")
    return FieldError(path, problem)
