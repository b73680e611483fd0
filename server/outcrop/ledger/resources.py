"""Finding, listing and keeping resources: what every kind of them has in common."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import and_, delete, or_, select
from sqlalchemy.orm import Session, defer

from outcrop.ledger.resource import Resource, Tag

REQUEST = "request"
"""In the body of a resource: what it was created with, which does not change."""


class TokenReused(ValueError):
    """A client's token has created another resource, from another request."""


class BadPageToken(ValueError):
    """A page token that no page has handed out."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which resources of a kind. name: a part of theirs. after, before: exclusive, of their creation. member:
    of their body, a name and the text that it is to have."""

    kind: str
    name: str | None = None
    status: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    oldest_first: bool = False
    member: tuple[str, str] | None = None


def add(session: Session, resource: Resource, tags: Mapping[str, str] | None = None) -> Resource:
    """Keep a new resource, its body having what it was created with under `REQUEST`. Where its client's token
    has created one before, that one is returned instead. Raises TokenReused."""
    if resource.token is not None:
        found = session.scalar(
            select(Resource).where(Resource.kind == resource.kind, Resource.token == resource.token)
        )
        if found is not None:
            if found.body.get(REQUEST) != resource.body.get(REQUEST):
                raise TokenReused(resource.token)
            return found
    session.add(resource)
    set_tags(session, resource.arn, tags or {})
    return resource


def find(
    session: Session, kind: str, identifier: str, *, by_name: bool = False, with_body: bool = True
) -> Resource | None:
    """By id or ARN, or also by name, of which the latest counts. with_body: False leaves its body in the
    database, for who knows by `updated_at` that he has it."""
    ways = [Resource.id == identifier, Resource.arn == identifier]
    if by_name:
        ways.append(Resource.name == identifier)
    query = select(Resource).where(Resource.kind == kind, or_(*ways)).order_by(Resource.created_at.desc())
    if not with_body:
        query = query.options(defer(Resource.body, raiseload=True))
    return session.scalars(query).first()


def has_namesake(session: Session, resource: Resource, name: str) -> bool:
    """Whether another resource of its kind has the name."""
    others = (Resource.kind == resource.kind, Resource.name == name, Resource.id != resource.id)
    return session.scalar(select(Resource.id).where(*others).limit(1)) is not None


def every(session: Session, kind: str, *statuses: str) -> list[Resource]:
    """All of a kind, or those of some statuses, oldest first."""
    query = select(Resource).where(Resource.kind == kind).order_by(Resource.created_at, Resource.id)
    if statuses:
        query = query.where(Resource.status.in_(statuses))
    return list(session.scalars(query))


def page(
    session: Session, wanted: Wanted, limit: int, token: str | None
) -> tuple[list[Resource], str | None]:
    """Up to `limit` resources from where `token` says, and the token of the next page, if there is one.
    Raises BadPageToken."""
    query = select(Resource).where(Resource.kind == wanted.kind)
    if wanted.name is not None:
        query = query.where(Resource.name.contains(wanted.name, autoescape=True))
    if wanted.status is not None:
        query = query.where(Resource.status == wanted.status)
    if wanted.after is not None:
        query = query.where(Resource.created_at > wanted.after)
    if wanted.before is not None:
        query = query.where(Resource.created_at < wanted.before)
    if wanted.member is not None:
        name, text = wanted.member
        query = query.where(Resource.body[name].as_string() == text)
    if token is not None:
        moment, identifier = _position(token)
        same = Resource.created_at == moment
        if wanted.oldest_first:
            later = or_(Resource.created_at > moment, and_(same, Resource.id > identifier))
        else:
            later = or_(Resource.created_at < moment, and_(same, Resource.id < identifier))
        query = query.where(later)
    order = (Resource.created_at, Resource.id)
    query = query.order_by(*(order if wanted.oldest_first else (each.desc() for each in order)))
    found = list(session.scalars(query.limit(limit + 1)))
    if len(found) <= limit:
        return found, None
    return found[:limit], _token(found[limit - 1])


def change(resource: Resource, now: datetime, status: str, **body: Any) -> None:
    """Give a resource another status, and write into its body."""
    resource.updated_at = now
    resource.status = status
    resource.body = resource.body | body  # another object: that is how SQLAlchemy sees the change


def remove(session: Session, resource: Resource) -> None:
    """Forget a resource and its tags."""
    session.execute(delete(Tag).where(Tag.arn == resource.arn))
    session.delete(resource)


def set_tags(session: Session, arn: str, tags: Mapping[str, str]) -> None:
    """Add tags, or change those of the same keys."""
    for key, value in tags.items():
        session.merge(Tag(arn=arn, key=key, value=value))


def tags_of(session: Session, arn: str) -> dict[str, str]:
    rows = session.scalars(select(Tag).where(Tag.arn == arn).order_by(Tag.key))
    return {tag.key: tag.value for tag in rows}


_POSITION = msgspec.json.Decoder(tuple[datetime, str])


def _token(last: Resource) -> str:
    position = msgspec.json.encode((last.created_at, last.id))
    return base64.urlsafe_b64encode(position).decode()


def _position(token: str) -> tuple[datetime, str]:
    try:
        moment, identifier = _POSITION.decode(base64.urlsafe_b64decode(token))
        return moment.astimezone(UTC), identifier
    except (ValueError, OverflowError):  # the latter where UTC's year is no year
        raise BadPageToken(token) from None
