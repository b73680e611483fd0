"""Structures of a service model, with the constraints of their members declared beside the members.

A structure's members are optional in its type even where the service requires them: an absent one is a
ValidationException that names it, in words that only `check` knows. Unknown members are ignored, and null is
the same as absence, as in the service.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from outcrop.api.smithy import Constraints

_LONG = 1 << 16
"""Characters, far more than any member with a pattern may have."""

Steps = tuple[str | int, ...]
Checker = Callable[[Constraints, Steps, Any], None]


class Shape(msgspec.Struct, rename="camel", kw_only=True):
    """A structure: camelCase on the wire."""


class Union(Shape):
    """A structure of which exactly one member is set."""

    @property
    def chosen(self) -> str:
        """The wire name of the member that is set."""
        (name,) = given_members(self)
        return name


@dataclass(frozen=True, slots=True)
class Must:
    """What the service model demands of a member, written `Annotated[str | None, Must(...)]`.

    size: of a string, a list, a map or bytes. value: of a number. Bounds are inclusive, None is no bound.
    Members of lists and maps carry their own: `list[Annotated[str, Must(...)]]`.
    """

    required: bool = False
    size: tuple[int, int | None] | None = None
    value: tuple[int | None, int | None] = (None, None)
    pattern: re.Pattern[str] | None = None
    one_of: tuple[str, ...] = ()

    def check(self, constraints: Constraints, path: Steps, value: Any) -> None:
        if self.required:
            constraints.required(path, value)
        if value is None:
            return
        if self.size is not None:
            constraints.size(path, value, *self.size)
        least, most = self.value
        if least is not None:
            constraints.minimum(path, value, least)
        if most is not None:
            constraints.maximum(path, value, most)
        if self.one_of:
            constraints.one_of(path, value, self.one_of)
        # A whole body that is refused for its length already: a pattern that repeats a group would take a
        # hundred times its memory to say so again.
        if self.pattern is not None and value and not (self._is_too_long(value) and len(value) > _LONG):
            constraints.matches(path, value, self.pattern)

    def _is_too_long(self, text: str) -> bool:
        most = None if self.size is None else self.size[1]
        return most is not None and len(text) > most


REQUIRED = Must(required=True)


def check(shape: Shape, constraints: Constraints, path: Steps = ()) -> None:
    """Check a structure and everything in it against what its members declare."""
    for attribute, name, checker in _members(type(shape)):
        checker(constraints, (*path, name), getattr(shape, attribute))
    if isinstance(shape, Union):
        constraints.exactly_one(path, type(shape).__name__, member_names(shape), len(given_members(shape)))


def given_members(shape: Shape) -> list[str]:
    """The wire names of the members that are set."""
    fields = msgspec.structs.fields(type(shape))
    return [field.encode_name for field in fields if getattr(shape, field.name) is not None]


def member_names(shape: Shape) -> list[str]:
    """The wire names of all members."""
    return [field.encode_name for field in msgspec.structs.fields(type(shape))]


@cache
def _members(shape: type[Shape]) -> tuple[tuple[str, str, Checker], ...]:
    """The members that have anything to check: attribute, wire name and how."""
    hints = get_type_hints(shape, include_extras=True)
    found = ((field, _checker(hints[field.name])) for field in msgspec.structs.fields(shape))
    return tuple((field.name, field.encode_name, checker) for field, checker in found if checker is not None)


def _checker(hint: Any) -> Checker | None:
    demands: list[Must] = []
    if get_origin(hint) is Annotated:
        hint, *annotations = get_args(hint)
        demands = [each for each in annotations if isinstance(each, Must)]
    checkers: list[Checker] = [demand.check for demand in demands]
    if (inner := _inner_checker(_not_none(hint))) is not None:
        checkers.append(inner)
    if len(checkers) < 2:
        return checkers[0] if checkers else None

    def all_of(constraints: Constraints, path: Steps, value: Any) -> None:
        for checker in checkers:
            checker(constraints, path, value)

    return all_of


def _not_none(hint: Any) -> Any:
    if type(None) in get_args(hint):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    return hint


def _inner_checker(hint: Any) -> Checker | None:
    """How to check what a member holds: a structure, or the elements of a list or a map."""
    if isinstance(hint, type) and issubclass(hint, Shape):
        return _check_structure
    if get_origin(hint) is list:
        (element,) = map(_checker, get_args(hint))
        return None if element is None else _each_of_list(element)
    if get_origin(hint) is dict:
        key, value = map(_checker, get_args(hint))
        return None if key is value is None else _each_of_map(key, value)
    return None


def _check_structure(constraints: Constraints, path: Steps, value: Shape | None) -> None:
    if value is not None:
        check(value, constraints, path)


def _each_of_list(checker: Checker) -> Checker:
    def each(constraints: Constraints, path: Steps, value: list[Any] | None) -> None:
        for index, element in enumerate(value or ()):
            checker(constraints, (*path, index), element)

    return each


def _each_of_map(key_checker: Checker | None, value_checker: Checker | None) -> Checker:
    """Violations are reported at the map: its keys may be the client's own data."""

    def each(constraints: Constraints, path: Steps, value: Mapping[str, Any] | None) -> None:
        for key, element in (value or {}).items():
            if key_checker is not None:
                key_checker(constraints, path, key)
            if value_checker is not None:
                value_checker(constraints, path, element)

    return each
