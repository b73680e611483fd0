"""JSON objects checked in the words of the validator that the service applies to native model bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TYPE_NAMES = {
    dict: "JSONObject",
    list: "JSONArray",
    str: "String",
    bool: "Boolean",
    int: "Integer",
    float: "BigDecimal",
    type(None): "Null",
}
_REPORTED = 100  # violations that one error lists
_INDEX = re.compile("0|[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds, both inclusive."""

    minimum: float
    maximum: float
    integer: bool = False

    def violations(self, value: object, path: str) -> list[str]:
        problem = self._problem(value)
        return [f"{path}: {problem}"] if problem else []

    def _problem(self, value: object) -> str | None:
        wanted = int if self.integer else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted):
            return _type_mismatch("Integer" if self.integer else "Number", value)
        if value < self.minimum:
            return f"{value} is not greater or equal to {self.minimum}"
        if value > self.maximum:
            return f"{value} is not less or equal to {self.maximum}"
        return None


@dataclass(frozen=True, slots=True)
class Text:
    """A string of at least some length."""

    min_length: int

    def violations(self, value: object, path: str) -> list[str]:
        if not isinstance(value, str):
            return [f"{path}: {_type_mismatch('String', value)}"]
        if len(value) < self.min_length:
            return [f"{path}: expected minLength: {self.min_length}, actual: {len(value)}"]
        return []


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of strings: so many at most, each of at least one character, and so many characters in all."""

    most: int
    characters: int

    def violations(self, value: object, path: str) -> list[str]:
        if not isinstance(value, list):
            return [f"{path}: {_type_mismatch('JSONArray', value)}"]
        if len(value) > self.most:
            return [f"{path}: expected maximum item count: {self.most}, found: {len(value)}"]
        found = []
        for index, text in enumerate(value):
            found += Text(min_length=1).violations(text, f"{path}/{index}")
        if not found and (characters := sum(map(len, value))) > self.characters:
            found.append(f"{path}: expected at most {self.characters} characters in all, found: {characters}")
        return found[:_REPORTED]


@dataclass(frozen=True, slots=True)
class NumberMap:
    """Numbers by index: an object whose keys are the decimal integers from 0 up to `keys`."""

    value: Number
    keys: int
    most: int

    def violations(self, value: object, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: {_type_mismatch('JSONObject', value)}"]
        if len(value) > self.most:
            return [f"{path}: maximum size: [{self.most}], found: [{len(value)}]"]
        found: list[str] = []
        for key, number in value.items():
            if _INDEX.fullmatch(key) and int(key) < self.keys:
                found += self.value.violations(number, f"{path}/{key}")
            else:
                found.append(f"{path}: extraneous key [{key}] is not permitted")
        return found[:_REPORTED]


Rule = Number | Text | Texts | NumberMap
"""What one member of an object must be."""


@dataclass(frozen=True, slots=True)
class ObjectSchema:
    """An object with exactly these members, of which some are required."""

    members: Mapping[str, Rule]
    required: tuple[str, ...] = ()

    def violations(self, document: object) -> list[str]:
        """Each as the service words it (`#/temperature: 7 is not less or equal to 1`); none if it fits."""
        if not isinstance(document, dict):
            return [f"#: {_type_mismatch('JSONObject', document)}"]
        found = [f"#: required key [{name}] not found" for name in self.required if name not in document]
        found += [
            f"#: extraneous key [{name}] is not permitted" for name in document if name not in self.members
        ]
        for name, member in self.members.items():
            if name in document:
                found += member.violations(document[name], f"#/{name}")
        return found[:_REPORTED]


def _type_mismatch(wanted: str, value: object) -> str:
    return f"expected type: {wanted}, found: {_TYPE_NAMES[type(value)]}"
