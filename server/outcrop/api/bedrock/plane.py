"""What all operations of the control plane work with."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from outcrop.api import errors
from outcrop.api.admission import ApiLimits
from outcrop.api.auth.bearer import ACCOUNT
from outcrop.api.bedrock.parameters import PageQuery
from outcrop.api.body import read_body
from outcrop.api.decode import decode
from outcrop.api.responses import json_response
from outcrop.api.shapes import Shape, check
from outcrop.api.smithy import Constraints
from outcrop.catalog.catalog import Catalog
from outcrop.ledger import resources
from outcrop.ledger.database import Database
from outcrop.ledger.resource import Resource

T = TypeVar("T")
SomeShape = TypeVar("SomeShape", bound=Shape)

_ID_LETTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The models, the state, and how much a client may send."""

    catalog: Catalog
    database: Database
    limits: ApiLimits

    async def read(self, request: Request, decoder: msgspec.json.Decoder[SomeShape]) -> SomeShape:
        """The checked body. Raises SerializationException and ValidationException."""
        body = await read_body(request, self.limits, errors.entity_too_large(self.limits.max_body_bytes))
        shape = decode(body, decoder)
        constraints = Constraints()
        check(shape, constraints)
        constraints.raise_if_violated()
        return shape

    async def run(self, work: Callable[[Session], T]) -> T:
        """The result of `work` in a transaction of the state, as of `Database.transact`. Raises
        ConflictException for a client's token that belongs to another request, and ValidationException for a
        page token of nobody's."""
        try:
            return await self.database.run(work)
        except resources.TokenReused:
            raise errors.token_reused() from None
        except resources.BadPageToken:
            raise errors.bad_page_token() from None

    async def page(
        self,
        wanted: resources.Wanted,
        query: PageQuery,
        member: str,
        shown: Callable[[Session, Resource], Mapping[str, object]],
    ) -> Response:
        """A page of a list: what `shown` says of each resource, under the answer's `member`."""

        def work(session: Session) -> dict[str, object]:
            found, token = resources.page(session, wanted, query.limit, query.next_token)
            return without_nulls(**{member: [shown(session, each) for each in found]}, nextToken=token)

        return json_response(await self.run(work))

    def arn(self, resource_type: str, identifier: str) -> str:
        """Of a resource that this server's one account owns."""
        return f"arn:aws:bedrock:{self.catalog.region}:{ACCOUNT}:{resource_type}/{identifier}"

    def new_resource(
        self,
        kind: str,
        name: str,
        status: str,
        request: Shape,
        *,
        token: str | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Resource:
        """A resource that is not kept yet. kind: also the type in its ARN. request: what it is created with,
        in which the client's token and the tags do not count."""
        identifier, now = new_id(), datetime.now(UTC)
        return Resource(
            kind=kind,
            id=identifier,
            arn=self.arn(kind, identifier),
            name=name,
            status=status,
            token=token,
            created_at=now,
            updated_at=now,
            ended_at=None,
            body={resources.REQUEST: fields_of(request)} | dict(body or {}),
        )


def existing(session: Session, kind: str, noun: str, identifier: str, *, by_name: bool = False) -> Resource:
    """What `resources.find` finds. noun: what clients call the kind. Raises ResourceNotFoundException."""
    found = resources.find(session, kind, identifier, by_name=by_name)
    if found is None:
        raise errors.resource_not_found(noun, identifier)
    return found


def new_id() -> str:
    """Twelve letters and digits, as the service's ids are."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(12))


_NOT_KEPT = frozenset(("clientRequestToken", "tags", "jobTags", "importedModelTags"))


def fields_of(shape: Shape) -> dict[str, Any]:
    """The members that are set, as JSON values, without those that belong to one call only."""
    return {
        name: value for name, value in _given(msgspec.to_builtins(shape)).items() if name not in _NOT_KEPT
    }


def _given(value: Any) -> Any:
    """Without nulls: absent members are left out, not null."""
    if isinstance(value, dict):
        return {name: _given(each) for name, each in value.items() if each is not None}
    return [_given(each) for each in value] if isinstance(value, list) else value


def without_nulls(**members: object) -> dict[str, object]:
    """An answer's members that there are."""
    return {name: value for name, value in members.items() if value is not None}
