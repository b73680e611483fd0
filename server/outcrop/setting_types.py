"""The types of settings: how their values are written."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:([KMG])(?:i?B)?|B)?\s*", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes of 512M, 2GiB, 1.5G or a plain number. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write bytes or a number with K, M or G, such as 512M")
    return int(Decimal(match[1]) * _UNITS[(match[2] or "").upper()])


def _parse_bytes(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def parse_object(value: Any) -> Any:
    """A mapping, also as JSON, as the command line has it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"this is no JSON: {error}") from None


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder")
    return path


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path}: there is no such folder")
    return path


Bytes = Annotated[int, BeforeValidator(_parse_bytes)]
ExistingPath = Annotated[Path, AfterValidator(_existing)]
ExistingFolder = Annotated[Path, AfterValidator(_folder)]
Name = Annotated[str, Field(min_length=1, max_length=2048)]
