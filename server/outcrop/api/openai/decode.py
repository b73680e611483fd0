"""JSON bodies into shapes, and what does not fit into an error that names the parameter."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from outcrop.api import field_error
from outcrop.api.field_error import FieldError
from outcrop.api.openai import errors

T = TypeVar("T")


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The body as the decoder's shape. Raises ValidationException."""
    try:
        return field_error.decode(body, decoder)
    except FieldError as error:
        raise errors.refuse(error) from None
