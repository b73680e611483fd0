"""Random JSON schemas of the kinds that people write for tools and answers."""

from __future__ import annotations

import random
from typing import Any

Schema = dict[str, Any]

_PATTERNS = ("^[a-z]{2,5}$", "^(red|green|blue)$", "^[A-Z][0-9]{3}$", r"^\d{4}-\d{2}-\d{2}$", "^a+b?c*$")
_WORDS = ("name", "size", "city", "unit", "count", "tags", "when", "note")


def random_schema(rng: random.Random) -> Schema:
    """An object, array or union, with definitions that it may refer to."""
    definitions = {name: _value(rng, 1, ()) for name in ("point", "label")}
    top = rng.choice((_object, _object, _object, _array, _union))
    return {**top(rng, 3, tuple(definitions)), "$defs": definitions}


def _value(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    kinds = [_string, _number, _integer, _enum, _constant, _boolean]
    if depth > 0:
        kinds += [_object, _array, _union]
    if names:
        kinds.append(_reference)
    return rng.choice(kinds)(rng, depth, names)


def _object(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    keys = rng.sample(_WORDS, rng.randrange(1, 5))
    return {
        "type": "object",
        "properties": {key: _value(rng, depth - 1, names) for key in keys},
        "required": [key for key in keys if rng.random() < 0.7],
        "additionalProperties": False,
    }


def _array(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    least = rng.randrange(3)
    items = _value(rng, depth - 1, names)
    return {"type": "array", "items": items, "minItems": least, "maxItems": least + rng.randrange(4)}


def _union(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    return {"anyOf": [_value(rng, depth - 1, names) for _ in range(rng.randrange(2, 4))]}


def _reference(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    return {"$ref": f"#/$defs/{rng.choice(names)}"}


def _string(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    if rng.random() < 0.4:
        return {"type": "string", "pattern": rng.choice(_PATTERNS)}
    least = rng.randrange(4)
    return {"type": "string", "minLength": least, "maxLength": least + rng.randrange(20)}


def _integer(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    least = rng.randrange(-50, 50)
    return {"type": "integer", "minimum": least, "maximum": least + rng.randrange(1000)}


def _number(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    least = round(rng.uniform(-9, 9), 2)
    return {"type": "number", "minimum": least, "exclusiveMaximum": least + 7.5}


def _enum(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    return {"enum": rng.sample([*_WORDS, 1, 2.5, True, None, 'Zürich "quoted"'], 3)}


def _constant(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    return {"const": rng.choice([*_WORDS, 0, False])}


def _boolean(rng: random.Random, depth: int, names: tuple[str, ...]) -> Schema:
    return {"type": rng.choice(["boolean", "null"])}
