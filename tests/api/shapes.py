"""Checks JSON against botocore's service models: required members, types, enums, nothing unknown."""

from __future__ import annotations

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape

_SESSION = botocore.session.get_session()
RUNTIME = _SESSION.get_service_model("bedrock-runtime")
CONTROL = _SESSION.get_service_model("bedrock")

_SCALARS = {
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
}


def assert_fits(value: object, shape: Shape, path: str = "") -> None:
    """Fails naming the path of the first thing that the shape does not allow."""
    if isinstance(shape, StructureShape):
        if shape.is_document_type:
            return
        assert isinstance(value, dict), path
        unknown = value.keys() - shape.members.keys()
        missing = set(shape.required_members) - value.keys()
        assert not unknown, f"{path} has unknown members {unknown}"
        assert not missing, f"{path} lacks {missing}"
        assert not shape.is_tagged_union or len(value) == 1, f"{path} sets {value.keys()}"
        for name, member in value.items():
            assert_fits(member, shape.members[name], f"{path}.{name}")
    elif isinstance(shape, ListShape):
        assert isinstance(value, list), path
        for index, member in enumerate(value):
            assert_fits(member, shape.member, f"{path}[{index}]")
    elif isinstance(shape, MapShape):
        assert isinstance(value, dict), path
    else:
        assert isinstance(value, _SCALARS[shape.type_name]), path
        assert not getattr(shape, "enum", None) or value in shape.enum, f"{path} is {value!r}"
