"""JSON bodies into shapes, and what does not fit into the service's SerializationException."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from outcrop.api import errors
from outcrop.api.errors import ApiError

T = TypeVar("T")

_MISMATCH = re.compile(r"Expected `([^`]+)`, got `(\w+)`(?: - at `\$\.?(.*)`)?")
_AT = re.compile(r"(.*) - at `\$\.?(.*)`")
_FOUND = {
    "str": "STRING_VALUE cannot be converted to {}",
    "int": "NUMBER_VALUE cannot be converted to {}",
    "float": "NUMBER_VALUE cannot be converted to {}",
    "bool": "BOOLEAN_VALUE cannot be converted to {}",
    "null": "NULL_VALUE cannot be converted to {}",
    "array": "Start of list found where not expected",
    "object": "Start of structure or map found where not expected",
}
_WANTED = {"int": "Integer", "float": "Float", "str": "String", "array": "List", "object": "Structure"}


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The body as the decoder's shape; no body at all is an empty structure.

    Raises SerializationException, naming the member, for wrong types and for what is not JSON: trailing
    characters, NaN, lone surrogates, invalid UTF-8, nesting beyond reason.
    """
    try:
        return decoder.decode(body or b"{}")
    except msgspec.ValidationError as exc:
        raise _mismatch(str(exc)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise errors.serialization("The request body is not valid JSON.") from None
    except RecursionError:
        raise errors.serialization("The request body is nested too deeply.") from None


def _mismatch(message: str) -> ApiError:
    if match := _MISMATCH.fullmatch(message):
        wanted, found, path = match.groups()
        wanted = wanted.removesuffix(" | null")
        problem = _FOUND.get(found, f"Unexpected {found}").format(_WANTED.get(wanted, wanted))
    elif match := _AT.fullmatch(message):
        problem, path = match.groups()
    else:
        problem, path = message, None
    return errors.serialization(f"{problem} at '{path}'" if path else problem)
