"""Resources that a server has to know of before it is asked for them, such as other names of its models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from sqlalchemy import select
from sqlalchemy.orm import Session

from outcrop.ledger.database import Database
from outcrop.ledger.resource import Resource
from outcrop.ledger.watch import watch


@dataclass(frozen=True, slots=True)
class Follower:
    """Is told of the resources of a kind: of each that there is, and again when it was changed, and of the id
    of each that is gone. Servers are told of their own doings, too, which must then change nothing."""

    kind: str
    appeared: Callable[[Resource], Awaitable[None]]
    gone: Callable[[str], Awaitable[None]]


Look = Callable[[], Awaitable[None]]
"""Returns when followers know what is in the database now."""


class Followed:
    """Tells followers what this server or any other on the database makes and deletes, within a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers: dict[str, Follower] = {}
        self._known: dict[tuple[str, str], datetime] = {}
        self._looking = asyncio.Lock()
        self._watch: asyncio.Task[NoReturn] | None = None

    def add(self, follower: Follower) -> None:
        self._followers[follower.kind] = follower

    async def start(self) -> None:
        """Tell of what there is, and go on looking. Raises DatabaseError."""
        await self.look()
        self._watch = asyncio.create_task(watch(self.look, "what other servers make is not seen"))

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def look(self) -> None:
        """As of `Look`. Whoever makes or deletes a resource calls it, and does not tell the follower by
        itself: what another server deletes before this one has looked would never be known to be gone."""
        async with self._looking:
            found = await self._database.run(self._find)
            new = {key for key, changed in found.items() if self._known.get(key) != changed}
            made = await self._database.run(lambda session: self._get(session, new)) if new else []
            for resource in made:  # before what went, whose place they may take
                await self._followers[resource.kind].appeared(resource)
                self._known[resource.kind, resource.id] = resource.updated_at
            for kind, identifier in self._known.keys() - found.keys():
                await self._followers[kind].gone(identifier)
                del self._known[kind, identifier]

    def _find(self, session: Session) -> dict[tuple[str, str], datetime]:
        """When each was last changed."""
        query = select(Resource.kind, Resource.id, Resource.updated_at).where(
            Resource.kind.in_(self._followers)
        )
        return {(kind, identifier): changed for kind, identifier, changed in session.execute(query)}

    def _get(self, session: Session, new: Collection[tuple[str, str]]) -> list[Resource]:
        query = (
            select(Resource)
            .where(Resource.kind.in_(self._followers), Resource.id.in_([identifier for _, identifier in new]))
            .order_by(Resource.created_at, Resource.id)
        )
        return [each for each in session.scalars(query) if (each.kind, each.id) in new]
