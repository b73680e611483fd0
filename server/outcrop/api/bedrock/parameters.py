"""Parameters of a request that are in its path and its query, as a shape; and times as JSON has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from starlette.requests import Request

from outcrop.api import errors
from outcrop.api.shapes import Must, Shape, check
from outcrop.api.smithy import Constraints

SomeShape = TypeVar("SomeShape", bound=Shape)

MAX_PAGE = 1000
_INTEGER = re.compile(r"-?[0-9]{1,18}")


class PageQuery(Shape):
    """How much of a list, from where."""

    max_results: Annotated[int | None, Must(value=(1, MAX_PAGE))] = None
    next_token: Annotated[str | None, Must(size=(1, 2048), pattern=re.compile(r"\S*"))] = None

    @property
    def limit(self) -> int:
        return self.max_results or MAX_PAGE


class SortedQuery(PageQuery):
    """And in which order."""

    sort_by: Annotated[str | None, Must(one_of=("CreationTime",))] = None
    sort_order: Annotated[str | None, Must(one_of=("Ascending", "Descending"))] = None

    @property
    def oldest_first(self) -> bool:
        """The newest come first where nothing is said."""
        return self.sort_order == "Ascending"


def read_parameters(
    request: Request, shape: type[SomeShape], names: Mapping[str, str] | None = None
) -> SomeShape:
    """The members of `shape`, each from the path's label or the query's parameter of its name, or of the name
    that `names` gives it. Raises SerializationException and ValidationException."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(shape):
        name = field.encode_name
        wire = (names or {}).get(name, name)
        text = request.path_params.get(wire, request.query_params.get(wire))
        if text is not None:
            values[field.name] = _converted(_kinds(shape)[field.name], name, text)
    parameters = shape(**values)
    constraints = Constraints()
    check(parameters, constraints)
    constraints.raise_if_violated()
    return parameters


def timestamp(moment: datetime | None) -> str | None:
    """As the service writes it: ISO 8601, UTC, milliseconds."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@cache
def _kinds(shape: type[Shape]) -> dict[str, type]:
    """Each member's type, without what is said about it."""
    return {name: _plain(hint) for name, hint in get_type_hints(shape, include_extras=True).items()}


def _plain(hint: Any) -> type:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    kinds = [each for each in get_args(hint) if each is not type(None)]
    kind: type = kinds[0] if kinds else hint
    return kind


def _converted(kind: type, name: str, text: str) -> Any:
    if kind is int:
        if not _INTEGER.fullmatch(text):
            raise errors.serialization(f"STRING_VALUE cannot be converted to Integer at '{name}'")
        return int(text)
    if kind is datetime:
        try:
            moment = datetime.fromisoformat(text)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):  # the latter where UTC's year is no year
            raise errors.serialization(f"STRING_VALUE cannot be converted to Timestamp at '{name}'") from None
    return text
