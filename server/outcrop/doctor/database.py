"""Whether the database that servers share can be used."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from outcrop.doctor.findings import Finding, State
from outcrop.ledger import schema
from outcrop.ledger.connect import DatabaseError, cannot, connect

_CHECK = "database"


def database_finding(state: str) -> Finding:
    """state: a URL of PostgreSQL's. Nothing is changed there."""
    try:
        engine = connect(state)
        try:
            with engine.connect() as connection:
                version = connection.execute(text("SHOW server_version")).scalar_one()
                pending = schema.pending(connection)
        finally:
            engine.dispose()
    except DatabaseError as error:
        return Finding(_CHECK, State.FAILED, "cannot be used", str(error))
    except SQLAlchemyError as error:
        return Finding(_CHECK, State.FAILED, "cannot be used", str(cannot(state, error)))
    seen = f"PostgreSQL {version}"
    if pending:
        seen += f"; the next server that starts brings its schema to version {pending[-1]}"
    return Finding(_CHECK, State.OK, seen)
