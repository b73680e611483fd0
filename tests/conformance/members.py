"""Every member of an operation's input, with values that it takes and values that break each of its rules."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from . import surface

Place = Callable[[Any], dict[str, Any]]
"""Puts a value of one member into an otherwise valid request."""

OMIT = object()
"""As a value: the member is left out."""

_TYPES: dict[str, Any] = {
    "string": "text",
    "number": 5,
    "boolean": True,
    "list": [],
    "structure": {},
}
_JSON_TYPES = {
    "string": "string",
    "blob": "string",
    "timestamp": "string",
    "integer": "number",
    "long": "number",
    "float": "number",
    "double": "number",
    "boolean": "boolean",
    "list": "list",
    "structure": "structure",
    "map": "structure",
}
_LONGEST_SHOWN = 10_000
_SAMPLES = ("a", "0", "1", "abc", "meta.llama3-8b-instruct-v1:0", "DRAFT", "012345678901", "s3://bucket/key")
_MISFITS = ("?", "a b", "§\n")
"""What hardly any pattern takes; the last is nothing that a header may hold."""


@dataclass(frozen=True, slots=True)
class Member:
    """path: as in `messages[].content[].text`. owner: the shape it is a member of; name: its name there
    (`[]` of a list, `{key}` and `{value}` of a map). refusal: the words with which this server refuses
    every request that has it, "" if it takes it."""

    path: str
    owner: Shape
    name: str
    shape: Shape
    required: bool
    place: Place
    refusal: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """By which the tables of `surface` know it, wherever its owner is used."""
        return self.owner.name, self.name

    @property
    def location(self) -> str | None:
        """`uri`, `header` or `querystring`; None in a body."""
        if not isinstance(self.owner, StructureShape):
            return None
        if self.owner.serialization.get("payload") == self.name:
            return "payload"
        location: str | None = self.shape.serialization.get("location")
        return location

    @property
    def named(self) -> str:
        """A pattern for messages that name the member's path, in any of the service's notations."""
        names = re.findall(r"\w+", re.sub(r"\{\w+\}", "", self.path))
        return ".*".join(map(re.escape, names))


def members(operation: OperationModel) -> Iterator[Member]:
    """Every member of the operation's input, of its members, and so on."""
    if operation.input_shape is not None and operation.name not in surface.NOT_OFFERED:
        base = surface.request(operation)
        yield from _inside(operation, operation.input_shape, lambda value: base | value, "", "")


def _inside(
    operation: OperationModel, shape: Shape, place: Place, path: str, refusal: str
) -> Iterator[Member]:
    for child in _children(shape, place, path):
        place_child, around = child.place, surface.PLACES.get(child.key)
        if around is not None:
            place_child = _around(operation, around)
        member = replace(child, place=place_child, refusal=surface.REFUSED.get(child.key, refusal))
        yield replace(member, place=_without_omitted(member.place))
        yield from _inside(operation, member.shape, member.place, member.path, member.refusal)


def _around(operation: OperationModel, around: Place) -> Place:
    return lambda value: surface.conversation(operation, around(value))


def _without_omitted(place: Place) -> Place:
    return lambda value: _drop_omitted(place(value))


def _drop_omitted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_omitted(each) for key, each in value.items() if each is not OMIT}
    return [_drop_omitted(each) for each in value] if isinstance(value, list) else value


def _children(shape: Shape, place: Place, path: str) -> Iterator[Member]:
    if isinstance(shape, StructureShape):
        if shape.is_document_type:
            return
        for name, inner in shape.members.items():
            required = name in shape.required_members
            siblings = {} if shape.is_tagged_union else minimal(shape)
            yield Member(
                f"{path}.{name}".removeprefix("."),
                shape,
                name,
                inner,
                required,
                _beside(place, siblings, name),
            )
    elif isinstance(shape, ListShape):
        yield Member(f"{path}[]", shape, "[]", shape.member, False, lambda value: place([value]))
    elif isinstance(shape, MapShape):
        value = example(shape.value, (shape.name, "{value}"))
        key = example(shape.key, (shape.name, "{key}"))
        yield Member(f"{path}{{key}}", shape, "{key}", shape.key, False, lambda given: place({given: value}))
        yield Member(
            f"{path}{{value}}", shape, "{value}", shape.value, False, lambda given: place({key: given})
        )


def _beside(place: Place, siblings: dict[str, Any], name: str) -> Place:
    def put(value: Any) -> dict[str, Any]:
        return place(siblings | {name: value})

    return put


# -- values that fit -------------------------------------------------------------------------------


def minimal(shape: StructureShape) -> dict[str, Any]:
    """The required members alone, and what the service's rules ask for besides. Of a union, none."""
    required = {name: example(shape.members[name], (shape.name, name)) for name in shape.required_members}
    located = {name for name in required if shape.members[name].serialization.get("location") == "uri"}
    return {name: value for name, value in required.items() if name not in located} | surface.BESIDE.get(
        shape.name, {}
    )


def example(shape: Shape, key: tuple[str, str] = ("", "")) -> Any:
    """One value that fits."""
    return valid_values(shape, key)[0]


def valid_values(shape: Shape, key: tuple[str, str] = ("", "")) -> list[Any]:
    """Values that fit: each of an enumeration, both ends of a range, the shortest and the longest."""
    if key in surface.EXAMPLES:
        return surface.EXAMPLES[key]
    if isinstance(shape, StructureShape):
        if shape.is_document_type:
            return [{}, {"a": [1, None, "b", True, 0.5]}]
        if shape.is_tagged_union:
            name = surface.PREFERRED.get(shape.name, next(iter(shape.members)))
            return [{name: example(shape.members[name], (shape.name, name))}]
        return [minimal(shape)]
    if isinstance(shape, ListShape):
        element = example(shape.member, (shape.name, "[]"))
        most = shape.metadata.get("max", 2)
        return [[element], [element] * most, *([[]] if not shape.metadata.get("min") else [])]
    if isinstance(shape, MapShape):
        entry = {example(shape.key, (shape.name, "{key}")): example(shape.value, (shape.name, "{value}"))}
        return [entry, *([{}] if not shape.metadata.get("min") else [])]
    return _valid_scalars(shape)


def _valid_scalars(shape: Shape) -> list[Any]:
    bounds = shape.metadata
    match shape.type_name:
        case "boolean":
            return [True, False]
        case "integer" | "long":
            return sorted({bounds.get("min", 0), bounds.get("max", 7)}, reverse=True)
        case "float" | "double":
            return [bounds.get("min", 0), bounds.get("max", 1), 0.5, 1e-300]
        case "blob":
            return [base64.b64encode(b"x" * max(1, bounds.get("min", 0))).decode()]
        case _:
            return _valid_strings(shape)


def _valid_strings(shape: Shape) -> list[str]:
    bounds = shape.metadata
    if "enum" in bounds:
        return list(bounds["enum"])
    lengths = {max(1, bounds.get("min", 0)), *([bounds["max"]] if bounds.get("max", 1 << 20) <= 2048 else [])}
    texts = [*_SAMPLES, *("a" * length for length in sorted(lengths))]
    found = [text for text in texts if _fits(text, shape)]
    assert found, f"no sample fits {shape.name}: {bounds}"
    return [found[0], found[-1]]


def _fits(text: str, shape: Shape) -> bool:
    bounds = shape.metadata
    pattern = bounds.get("pattern")
    long_enough = bounds.get("min", 0) <= len(text) <= bounds.get("max", len(text))
    return long_enough and (pattern is None or re.fullmatch(pattern, text) is not None)


# -- values that do not ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule of a member broken by one request, and the error that tells so."""

    rule: str
    params: dict[str, Any]
    code: str
    says: str


def violations(member: Member) -> Iterator[Violation]:
    """Each rule that the member has, broken once or more."""
    for rule, code, value in _violating_values(member):
        says = surface.SAYS.get(member.key, member.named)
        yield Violation(rule, member.place(value), code, says)


def _violating_values(member: Member) -> Iterator[tuple[str, str, Any]]:
    shape = member.shape
    if member.required and member.location is None:
        yield "left out", "ValidationException", OMIT
        yield "null", "ValidationException", None
    if member.location is None and not _is_document(shape) and member.name != "{key}":
        own = _JSON_TYPES[shape.type_name]
        for kind, value in _TYPES.items():
            if kind != own:
                yield f"a {kind}", "SerializationException", value
        if shape.type_name == "blob":
            yield "not base64", "SerializationException", "!"
        if shape.type_name in ("integer", "long"):
            yield "a fraction", "SerializationException", 1.5
        if member.name in ("[]", "{value}"):
            yield "null", "SerializationException", None
    if member.location == "querystring" and shape.type_name in ("integer", "timestamp"):
        yield "text", "SerializationException", "soon"
    if member.location != "payload":
        for rule, value in _outside_bounds(shape):
            if member.location != "header" or (str(value).isprintable() and str(value).isascii()):
                yield rule, "ValidationException", value
    if isinstance(shape, StructureShape) and shape.is_tagged_union:
        yield "no member of a union", "ValidationException", {}
        names = list(shape.members)[:2]
        if len(names) == 2:  # a union of one member cannot have two
            both = {name: example(shape.members[name], (shape.name, name)) for name in names}
            yield "two members of a union", "ValidationException", both


def _outside_bounds(shape: Shape) -> Iterator[tuple[str, Any]]:
    bounds = shape.metadata
    least, most = bounds.get("min"), bounds.get("max")
    if "enum" in bounds:
        yield "no value of the enumeration", "nonesuch"
        yield "an empty value of the enumeration", ""
        return
    if shape.type_name in ("integer", "long", "float", "double"):
        if least is not None:
            yield "below the minimum", least - 1
        if most is not None:
            yield "above the maximum", most + 1
        return
    if least:
        yield "too short", _sized(shape, least - 1)
    if most is not None and most <= _LONGEST_SHOWN:
        yield "too long", _sized(shape, most + 1)
    if "pattern" in bounds:
        for text in _MISFITS:
            if not re.fullmatch(bounds["pattern"], text):
                yield f"not the pattern: {text!r}", text


def _sized(shape: Shape, length: int) -> Any:
    if isinstance(shape, ListShape):
        return [example(shape.member, (shape.name, "[]"))] * length
    if isinstance(shape, MapShape):
        value = example(shape.value, (shape.name, "{value}"))
        return {f"key{number}": value for number in range(length)}
    if shape.type_name == "blob":
        return base64.b64encode(b"x" * length).decode()
    return "a" * length


def _is_document(shape: Shape) -> bool:
    return isinstance(shape, StructureShape) and shape.is_document_type
