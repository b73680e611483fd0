"""Hypothesis strategies for requests of the service: as its model has them, spoilt a little, and spoilt as
bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from hypothesis import strategies as st

from . import surface
from .members import valid_values
from .service import Wire

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def values(shape: Shape, key: tuple[str, str] = ("", "")) -> st.SearchStrategy[Any]:
    """JSON values that the shape takes; where the model does not tell what means something, examples."""
    if key in surface.EXAMPLES:
        return st.sampled_from(surface.EXAMPLES[key])
    if isinstance(shape, StructureShape):
        return json_values if shape.is_document_type else _structures(shape)
    if isinstance(shape, ListShape):
        least = shape.metadata.get("min", 0)
        return st.lists(values(shape.member, (shape.name, "[]")), min_size=least, max_size=least + 2)
    if isinstance(shape, MapShape):
        key_values = values(shape.key, (shape.name, "{key}"))
        least = shape.metadata.get("min", 0)
        return st.dictionaries(
            key_values, values(shape.value, (shape.name, "{value}")), min_size=least, max_size=least + 1
        )
    if shape.type_name == "blob":
        return st.binary(min_size=1, max_size=20).map(lambda data: base64.b64encode(data).decode())
    if shape.type_name == "string" and not {"enum", "pattern"} & shape.metadata.keys():
        return st.text(min_size=shape.metadata.get("min", 0), max_size=12)
    return st.sampled_from(valid_values(shape, key))


def _structures(shape: StructureShape) -> st.SearchStrategy[dict[str, Any]]:
    found = {
        name: st.deferred(lambda name=name, member=member: values(member, (shape.name, name)))
        for name, member in shape.members.items()
        if member.serialization.get("location") not in ("uri", "header", "querystring")
    }
    if shape.is_tagged_union:
        alone = [st.fixed_dictionaries({name: value}) for name, value in found.items()]
        preferred = surface.PREFERRED.get(shape.name)
        return st.one_of(*([alone[list(found).index(preferred)]] * 4 if preferred else []), *alone)
    required = {name: found.pop(name) for name in shape.required_members if name in found}
    return st.fixed_dictionaries(required, optional=found)


def documents(operation: OperationModel) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies of an operation whose body is JSON of the model's own; they ask for short answers."""
    shape = operation.input_shape
    if operation.name == "CountTokens":
        return values(shape)

    def short(body: dict[str, Any]) -> dict[str, Any]:
        return body | {"inferenceConfig": body.get("inferenceConfig", {}) | {"maxTokens": 3}}

    return values(shape).map(short)


@st.composite
def spoilt(draw: st.DrawFn, sound: st.SearchStrategy[Any]) -> Any:
    """A JSON value with up to three places in it replaced, left out or doubled."""
    value = json.loads(json.dumps(draw(sound)))
    for _ in range(draw(st.integers(0, 3))):
        value = _spoil(value, draw)
    return value


def _spoil(value: Any, draw: st.DrawFn) -> Any:
    """Walk down to a random place and spoil what is there."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        name = draw(st.sampled_from(sorted(value)))
        match draw(st.integers(0, 9)):
            case 0:
                return {key: each for key, each in value.items() if key != name}
            case 1:
                return value | {draw(st.text(max_size=8)): draw(json_values)}
            case _:
                return value | {name: _spoil(value[name], draw)}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        index = draw(st.integers(0, len(value) - 1))
        match draw(st.integers(0, 9)):
            case 0:
                return value[:index] + value[index + 1 :]
            case 1:
                return [*value, value[index]]
            case _:
                return [*value[:index], _spoil(value[index], draw), *value[index + 1 :]]
    return draw(json_values)


def _cut(body: bytes, draw: st.DrawFn) -> bytes:
    return body[: draw(st.integers(0, len(body)))]


def _insert(body: bytes, draw: st.DrawFn) -> bytes:
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.binary(min_size=1, max_size=8)) + body[at:]


def _nest(body: bytes, draw: st.DrawFn) -> bytes:
    depth = draw(st.sampled_from([100, 1000, 100_000]))
    opened, closed = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")]))
    return b'{"additionalModelRequestFields":' + opened * depth + b"1" + closed * depth + b"}"


def _enlarge_number(body: bytes, draw: st.DrawFn) -> bytes:
    number = draw(
        st.sampled_from([b"1e999", b"-0", b"9" * 5000, b"0." + b"1" * 5000, b"1E+400", b"-", b"NaN"])
    )
    return b'{"inferenceConfig":{"maxTokens":' + number + b',"temperature":' + number + b"}," + body[1:]


def _double_keys(body: bytes, draw: st.DrawFn) -> bytes:
    return body[:-1] + b"," + body[1:]


def _break_encoding(body: bytes, draw: st.DrawFn) -> bytes:
    broken = draw(
        st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\\ud800", b"\x00", b"\xef\xbb\xbf"])
    )
    return body.replace(b"Hi", b"Hi" + broken) if draw(st.booleans()) else broken + body


_ABUSES: list[Callable[[bytes, st.DrawFn], bytes]] = [
    _cut,
    _insert,
    _nest,
    _enlarge_number,
    _double_keys,
    _break_encoding,
]


@st.composite
def abused(draw: st.DrawFn, operation: OperationModel) -> Wire:
    """A sound request whose body was mishandled on its way."""
    wire = Wire.of(operation, surface.request(operation))
    body = draw(st.sampled_from(_ABUSES))(wire.body, draw)
    return Wire(wire.method, wire.path, body, wire.headers)
