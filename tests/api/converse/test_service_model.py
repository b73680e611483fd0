"""The shapes against botocore's: every member, and every constraint of every member."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from outcrop.api import shapes
from outcrop.api.bedrock_runtime.models import ConverseRequest, CountTokensRequest
from outcrop.api.shapes import Must

from ..shapes import RUNTIME

# Ours may ask for more than the model does, where the service is known to.
STRICTER = {"additionalModelResponseFieldPaths.[]"}


def walk(theirs: Shape, hint: Any, path: str, found: list[tuple[str, Shape, Must, Any]]) -> None:
    must = Must()
    if get_origin(hint) is Annotated:
        hint, *annotations = get_args(hint)
        (must,) = annotations
    if type(None) in get_args(hint):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    found.append((path, theirs, must, hint))
    if isinstance(theirs, StructureShape):
        if theirs.is_document_type:
            assert hint is Any, path
            return
        hints = get_type_hints(hint, include_extras=True)
        ours = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(hint)}
        members = {name: each for name, each in theirs.members.items() if name != "modelId"}
        assert ours.keys() == members.keys(), path
        for name, member in members.items():
            walk(member, ours[name], f"{path}.{name}".lstrip("."), found)
    elif isinstance(theirs, ListShape):
        walk(theirs.member, *get_args(hint), f"{path}.[]", found)
    elif isinstance(theirs, MapShape):
        key, value = get_args(hint)
        walk(theirs.key, key, f"{path}.key", found)
        walk(theirs.value, value, f"{path}.value", found)


def members(operation: str, shape: type[shapes.Shape]) -> list[tuple[str, Shape, Must, Any]]:
    found: list[tuple[str, Shape, Must, Any]] = []
    walk(RUNTIME.operation_model(operation).input_shape, shape, "", found)
    return found


MEMBERS = [*members("ConverseStream", ConverseRequest), *members("CountTokens", CountTokensRequest)]


def test_there_is_something_to_compare() -> None:
    assert len(MEMBERS) > 150


@pytest.mark.parametrize("theirs", [shape for _, shape, _, _ in MEMBERS if isinstance(shape, StructureShape)])
def test_unions_and_what_is_required(theirs: StructureShape) -> None:
    for path, shape, _, hint in MEMBERS:
        if shape is theirs and not theirs.is_document_type:
            assert issubclass(hint, shapes.Union) == bool(getattr(theirs, "is_tagged_union", False)), path
            required = set(theirs.required_members) - {"modelId"}
            hints = get_type_hints(hint, include_extras=True)
            ours = {
                field.encode_name
                for field in msgspec.structs.fields(hint)
                if any(isinstance(each, Must) and each.required for each in get_args(hints[field.name])[1:])
            }
            assert ours == required, path


@pytest.mark.parametrize(("path", "theirs", "must"), [each[:3] for each in MEMBERS])
def test_constraints(path: str, theirs: Shape, must: Must) -> None:
    if path in STRICTER:
        return
    low, high = theirs.metadata.get("min"), theirs.metadata.get("max")
    if theirs.type_name in ("integer", "long", "float", "double"):
        assert must.value == (low, high)
    else:
        assert must.size == (None if low is high is None else (low or 0, high))
    pattern = theirs.metadata.get("pattern")
    assert (must.pattern.pattern if must.pattern else None) == pattern
    assert list(must.one_of) == (theirs.enum if isinstance(theirs, StringShape) else [])
