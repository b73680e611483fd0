"""The schema of a database: which version it has, and bringing it to the one that this server knows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

from outcrop.ledger.connect import DatabaseError

if TYPE_CHECKING:
    from alembic.config import Config

logging.getLogger("alembic").setLevel(logging.WARNING)  # that all is as it was is no news

_LOCK = 0x6F757463726F70
"""Of PostgreSQL's advisory locks, the one that a server has while it changes the schema."""


class NewerSchema(DatabaseError):
    """A newer Outcrop has changed the database, and there is no way back."""


def upgrade(engine: Engine) -> None:
    """Run the migrations that the database has not seen, in one transaction. Raises NewerSchema."""
    from alembic import command

    shared = engine.dialect.name == "postgresql"  # SQLite's transactions are one after the other anyway
    if shared:  # what it sees is to be as of after the lock
        engine = engine.execution_options(isolation_level="READ COMMITTED")
    with engine.begin() as connection:
        if shared:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if pending(connection):
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def pending(connection: Connection) -> list[str]:
    """The migrations that the database has not seen, oldest first. Raises NewerSchema."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    revision = MigrationContext.configure(connection).get_current_revision()
    known = [each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions()]
    if revision is not None and revision not in known:
        raise NewerSchema(
            f"the schema of the state's database has version {revision}, and this Outcrop knows {known[0]}: "
            "a newer one has been at it. Upgrade this server, or give it a database of its own (`state`)"
        )
    return known[: known.index(revision) if revision else None][::-1]


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "outcrop.ledger:migrations")
    return config
