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

_Key = tuple[str, str, datetime]


class GuardrailStore:
    """The guardrails of one server's state."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._compiled: OrderedDict[_Key, GuardrailSettings] = OrderedDict()

    async def find(self, identifier: str, version: str) -> GuardrailSettings | None:
        """The guardrail of an id or ARN; version: a number or DRAFT. While the database is away this
        raises what it does: nothing is answered past a guardrail that cannot be read."""
        found = await self._database.run(
            lambda session: found_version(session, identifier, version), urgent=True
        )
        if found is None:
            return None
        guardrail, row = found
        key = (guardrail.arn, version, row.updated_at)
        settings = self._compiled.get(key)
        if settings is None:
            fields: dict[str, Any] = row.body[FIELDS]
            settings = await asyncio.to_thread(
                GuardrailSettings.of, guardrail.id, guardrail.arn, version, fields
            )
            self._compiled[key] = settings
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return settings


def found_version(session: Session, identifier: str, version: str) -> tuple[Resource, Resource] | None:
    """A guardrail, and the row that has what it is in this version."""
    guardrail = resources.find(session, KIND, identifier)
    if guardrail is None or version == DRAFT:
        return None if guardrail is None else (guardrail, guardrail)
    row = resources.find(session, VERSION_KIND, version_id(guardrail, version))
    return None if row is None else (guardrail, row)


def version_id(guardrail: Resource, version: str) -> str:
    """The id of the resource that a version is."""
    return f"{guardrail.id}:{version}"
