"""Guardrails as calls find them: from the state, compiled once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from outcrop.api.guardrails.settings import GuardrailSettings
from outcrop.api.guardrails.shapes import DRAFT, KIND, VERSION_KIND
from outcrop.ledger import resources
from outcrop.ledger.database import Database
from outcrop.ledger.resource import Resource

FIELDS = "fields"
"""In the body of a guardrail or of a version: what it is, as UpdateGuardrail's request has it."""

_KEPT = 256  # compiled guardrails, those that were asked for last

_Found = tuple[Resource, Resource]
_Key = tuple[str, str, datetime]


class GuardrailStore:
    """The guardrails of one server's state."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._compiled: OrderedDict[_Key, GuardrailSettings] = OrderedDict()

    async def find(self, identifier: str, version: str) -> GuardrailSettings | None:
        """The guardrail of an id or ARN; version: a number or DRAFT. Every call asks the database whether it
        is there and when it changed, since another server may have changed it, and for all of it after a
        change. While the database is away this raises what it does: nothing is answered past a guardrail that
        cannot be read."""
        found = await self._find(identifier, version, with_body=False)
        if found is None:
            return None
        key = _key(*found, version)
        if key not in self._compiled:
            found = await self._find(identifier, version, with_body=True)
            if found is None:
                return None
            guardrail, row = found
            key = _key(guardrail, row, version)
            fields: dict[str, Any] = row.body[FIELDS]
            self._compiled[key] = await asyncio.to_thread(
                GuardrailSettings.of, guardrail.id, guardrail.arn, version, fields
            )
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return self._compiled[key]

    async def _find(self, identifier: str, version: str, *, with_body: bool) -> _Found | None:
        return await self._database.run(
            lambda session: found_version(session, identifier, version, with_body=with_body), urgent=True
        )


def found_version(
    session: Session, identifier: str, version: str, *, with_body: bool = True
) -> _Found | None:
    """A guardrail, and the row that has what it is in this version. with_body: as of `resources.find`."""
    guardrail = resources.find(session, KIND, identifier, with_body=with_body and version == DRAFT)
    if guardrail is None or version == DRAFT:
        return None if guardrail is None else (guardrail, guardrail)
    row = resources.find(session, VERSION_KIND, version_id(guardrail, version), with_body=with_body)
    return None if row is None else (guardrail, row)


def _key(guardrail: Resource, row: Resource, version: str) -> _Key:
    return guardrail.arn, version, row.updated_at


def version_id(guardrail: Resource, version: str) -> str:
    """The id of the resource that a version is."""
    return f"{guardrail.id}:{version}"
