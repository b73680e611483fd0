from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres_server import PostgresServer, postgres_server, programs


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    found = programs()
    if found is None:
        pytest.skip("there is no PostgreSQL: apt-get install postgresql, or put its initdb on the PATH")
    with postgres_server(found) as server:
        yield server


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """Of an empty database."""
    return postgres.new_database()
