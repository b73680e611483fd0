"""Checks JSON against botocore's service models: required members, types, enums, bounds, nothing unknown."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape

_SESSION = botocore.session.get_session()
RUNTIME = _SESSION.get_service_model("bedrock-runtime")
CONTROL = _SESSION.get_service_model("bedrock")

_SCALARS = {
    "string": str,
    "blob": str,  # base64
    "timestamp": str,  # ISO 8601
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
}

_WIDER_IN_TRUTH = {
    "PromptRouterArn": r"arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:"
    "(default-)?prompt-router/[a-zA-Z0-9-:.]+"
}
"""Patterns that the service itself goes beyond: its model has the ARNs of default prompt routers alone."""

_LONGER_IN_TRUTH = ("BrandedName",)
"""Strings that the service itself lets grow beyond its model: "Llama 3.1 8B Instruct" has 21 characters."""


def assert_fits(
    value: object, shape: Shape, path: str = "", *, unmodelled: Collection[str] = (), nulls: bool = False
) -> None:
    """Fails naming the path of the first thing that the shape does not allow.

    unmodelled: members that the service is known to add to the outermost structure. nulls: whether a
    missing member may be null, as in a body that a client wrote; the service leaves such members out.
    """
    if isinstance(shape, StructureShape):
        if shape.is_document_type:
            return
        assert isinstance(value, dict), f"{path} is {value!r}"
        if nulls:
            value = {name: member for name, member in value.items() if member is not None}
        unknown = value.keys() - shape.members.keys() - set(unmodelled)
        missing = set(shape.required_members) - value.keys()
        assert not unknown, f"{path} has unknown members {unknown}"
        assert not missing, f"{path} lacks {missing}"
        assert not shape.is_tagged_union or len(value) == 1, f"{path} sets {list(value)}"
        for name in value.keys() & shape.members.keys():
            assert_fits(value[name], shape.members[name], f"{path}.{name}", nulls=nulls)
    elif isinstance(shape, ListShape):
        assert isinstance(value, list), f"{path} is {value!r}"
        for index, member in enumerate(value):
            assert_fits(member, shape.member, f"{path}[{index}]", nulls=nulls)
    elif isinstance(shape, MapShape):
        assert isinstance(value, dict), f"{path} is {value!r}"
        for key, member in value.items():
            assert_fits(key, shape.key, f"{path} key")
            assert_fits(member, shape.value, f"{path}[{key!r}]", nulls=nulls)
    else:
        wanted = _SCALARS[shape.type_name]
        assert isinstance(value, wanted), f"{path} is {value!r}"
        assert wanted is bool or not isinstance(value, bool), f"{path} is {value!r}"
    _assert_bounds(value, shape, path)


def _assert_bounds(value: object, shape: Shape, path: str) -> None:
    bounds = shape.metadata
    assert "enum" not in bounds or value in bounds["enum"], f"{path} is {value!r}"
    if isinstance(value, str) and "pattern" in bounds:
        pattern = _WIDER_IN_TRUTH.get(shape.name, bounds["pattern"])
        assert re.fullmatch(pattern, value), f"{path} is {value!r}, not {pattern}"
    if shape.type_name == "blob":
        assert isinstance(value, str)
        value = base64.b64decode(value, validate=True)
    if shape.name in _LONGER_IN_TRUTH:
        return
    size = value if isinstance(value, (int, float)) else len(value) if hasattr(value, "__len__") else None
    if size is not None:
        assert bounds.get("min", size) <= size <= bounds.get("max", size), f"{path} is {value!r}: {bounds}"
