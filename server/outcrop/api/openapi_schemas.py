"""JSON Schemas of the shapes that requests are decoded into, with the constraints that are checked then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from outcrop.api.shapes import Must, Shape, Union

_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    Any: {},
    msgspec.Raw: {},
}
_SIZES = {
    str: ("minLength", "maxLength"),
    list: ("minItems", "maxItems"),
    dict: ("minProperties", "maxProperties"),
}


class Schemas:
    """Schemas of structures, each written once into `components` and referred to by name."""

    def __init__(self) -> None:
        self.components: dict[str, dict[str, Any]] = {}

    def of(self, hint: Any) -> dict[str, Any]:
        """The schema of a type as annotations write it. That a member may be null, which is the same as
        leaving it out, is not said."""
        if get_origin(hint) is Annotated:
            hint, *annotations = get_args(hint)
            demands = [each for each in annotations if isinstance(each, Must)]
            return self.of(hint) | _constraints(_not_none(hint), demands)
        hint = _not_none(hint)
        if isinstance(hint, type) and issubclass(hint, Shape):
            return self._structure(hint)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            # Other APIs have names that the service's shapes have too.
            prefix = hint.__module__.split(".")[-2].capitalize()
            (schema,), components = msgspec.json.schema_components(
                [hint], ref_template=f"#/components/schemas/{prefix}{{name}}"
            )
            self.components |= {f"{prefix}{name}": each for name, each in components.items()}
            return schema
        arguments = get_args(hint)
        if get_origin(hint) is list:
            return {"type": "array", "items": self.of(arguments[0])}
        if get_origin(hint) is dict:
            return {
                "type": "object",
                "propertyNames": self.of(arguments[0]),
                "additionalProperties": self.of(arguments[1]),
            }
        return dict(_SCALARS[hint])

    def _structure(self, shape: type[Shape]) -> dict[str, Any]:
        name = shape.__name__
        if name not in self.components:
            self.components[name] = {}  # there while its members are described: one may refer to it
            hints = get_type_hints(shape, include_extras=True)
            fields = msgspec.structs.fields(shape)
            schema: dict[str, Any] = {
                "type": "object",
                "properties": {field.encode_name: self.of(hints[field.name]) for field in fields},
            }
            required = [f.encode_name for f in fields if f.required or _is_required(hints[f.name])]
            if required:
                schema["required"] = required
            if issubclass(shape, Union):
                schema |= {"minProperties": 1, "maxProperties": 1}
            self.components[name].update(schema)
        return {"$ref": f"#/components/schemas/{name}"}


def _not_none(hint: Any) -> Any:
    if type(None) in get_args(hint):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    return hint


def _is_required(hint: Any) -> bool:
    return any(isinstance(each, Must) and each.required for each in getattr(hint, "__metadata__", ()))


def _constraints(hint: Any, demands: Iterable[Must]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for must in demands:
        if must.size is not None and (names := _SIZES.get(get_origin(hint) or hint)):
            found |= _bounds(names, must.size)
        found |= _bounds(("minimum", "maximum"), must.value)
        if must.pattern is not None:
            found["pattern"] = f"^(?:{must.pattern.pattern})$"
        if must.one_of:
            found["enum"] = list(must.one_of)
    return found


def _bounds(names: tuple[str, str], bounds: tuple[int | None, int | None]) -> dict[str, int]:
    return {name: bound for name, bound in zip(names, bounds, strict=True) if bound is not None}
