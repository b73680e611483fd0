"""What calls find of guardrails that other servers make, change and delete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from outcrop.api.guardrails.settings import GuardrailSettings
from outcrop.api.guardrails.shapes import DRAFT, KIND, VERSION_KIND
from outcrop.api.guardrails.store import FIELDS, GuardrailStore, version_id
from outcrop.ledger import resources
from outcrop.ledger.database import Database
from outcrop.ledger.resource import Resource

ARN = "arn:aws:bedrock:us-east-1:123456789012:guardrail/abc"


def fields(word: str) -> dict[str, Any]:
    return {
        "name": "a", "blockedInputMessaging": f"not {word}", "blockedOutputsMessaging": "no",
        "wordPolicyConfig": {"wordsConfig": [{"text": word}]},
    }  # fmt: skip


def resource(kind: str, identifier: str, arn: str, word: str) -> Resource:
    now = datetime.now(UTC)
    return Resource(
        kind=kind, id=identifier, arn=arn, name="a", status="READY", created_at=now, updated_at=now,
        body={FIELDS: fields(word)},
    )  # fmt: skip


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """Those of two servers, on one file."""
    pair = Database(tmp_path / "state.db"), Database(tmp_path / "state.db")
    yield pair
    for database in pair:
        database.close()


def test_a_store_follows_the_changes_of_another_server(databases: tuple[Database, Database]) -> None:
    mine, others = databases
    store = GuardrailStore(mine)
    read: list[bool] = []  # of each query of guardrails, whether it took their bodies

    @event.listens_for(mine.open(), "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "FROM resource" in statement:
            read.append("resource.body" in statement)

    def change(work: Callable[[Session], None]) -> None:
        others.transact(work)
        read.clear()

    def find(identifier: str = "abc", version: str = DRAFT) -> GuardrailSettings | None:
        return asyncio.run(store.find(identifier, version))

    def create(session: Session) -> None:
        resources.add(session, resource(KIND, "abc", ARN, "one"))

    def update(session: Session) -> None:
        guardrail = resources.find(session, KIND, "abc")
        assert guardrail is not None
        resources.change(guardrail, datetime.now(UTC), "READY", **{FIELDS: fields("two")})

    def add_version(session: Session) -> None:
        guardrail = resources.find(session, KIND, "abc")
        assert guardrail is not None
        resources.add(session, resource(VERSION_KIND, version_id(guardrail, "1"), f"{ARN}:1", "one"))

    def remove_version(session: Session) -> None:
        row = resources.find(session, VERSION_KIND, "abc:1")
        assert row is not None
        session.delete(row)

    assert find() is None
    change(create)
    first = find()
    assert first is not None
    assert (first.blocked_input, read) == ("not one", [False, True])
    assert find() is find(ARN) is first
    assert read[2:] == [False, False]

    change(add_version)
    numbered = find(version="1")
    assert numbered is not None
    assert (numbered.blocked_input, numbered.version) == ("not one", "1")
    read.clear()
    assert find(version="1") is numbered
    assert not any(read)

    change(update)
    changed = find()
    assert changed is not None
    assert (changed.blocked_input, read) == ("not two", [False, True])
    assert find(version="1") is numbered

    change(remove_version)
    assert find(version="1") is None
    assert find() is changed
