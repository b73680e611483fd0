"""Typed reading of a checkpoint's configuration (config.json, params.json, GGUF metadata)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outcrop_compile.checkpoint.errors import CheckpointError
from outcrop_compile.config import LlamaConfig

_LARGEST = 1 << 31  # of any size in a configuration: the model's integers are int32
_FLOAT32 = 1e-37, 1e38  # what may become a float32 of its own


class Fields:
    """One configuration mapping. A null value counts as absent, as it does in Hugging Face's configs.

    Every method raises CheckpointError naming the file, the field, its value and what is supported.
    """

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where, self._values = where, values

    @classmethod
    def of_json(cls, path: Path) -> Fields:
        return cls(str(path), read_json(path))

    def get(self, name: str, default: Any = None) -> Any:
        value = self._values.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        """A positive integer; without a default the field is required."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LARGEST:
            raise self.refuse(name, "a positive integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number that float32 can hold; without a default the field is required."""
        value = self.get(name, default)
        smallest, largest = _FLOAT32
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(name, "a positive number")
        if not smallest < value < largest:
            raise self.refuse(name, "a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def section(self, name: str) -> Fields | None:
        """A nested mapping, or None where there is none."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.refuse(name, "a JSON object")
        return Fields(f"{self.where}: {name}", value)

    def expect(self, name: str, *supported: Any) -> Any:
        """The field's value, which must be one of `supported`; the first is what absence means."""
        value = self.get(name, supported[0])
        if value not in supported:
            raise self.refuse(name, " or ".join(repr(choice) for choice in supported))
        return value

    def forbid(self, *names: str) -> None:
        """Refuse fields that announce a feature Outcrop does not have."""
        for name in names:
            if self.get(name):
                raise self.refuse(name, "a checkpoint without it")

    def refuse(self, name: str, supported: str) -> CheckpointError:
        value = self._values.get(name)
        found = "is missing" if value is None else f"is {_shorten(value)}"
        return CheckpointError(f"{self.where}: {name} {found}; supported: {supported}")

    def config(self, **sizes: Any) -> LlamaConfig:
        """Build the LlamaConfig; what its own checks refuse becomes a CheckpointError."""
        try:
            return LlamaConfig(**sizes)
        except ValueError as error:
            raise CheckpointError(f"{self.where}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError, OSError."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds a JSON {type(value).__name__}, expected an object")
    return value


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
