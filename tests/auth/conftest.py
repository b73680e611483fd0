from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from outcrop.api.auth.keys import KeyStore

from .world import World


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "state" / "keys.json")


@pytest.fixture
def world(store: KeyStore) -> World:
    return World(store, datetime(2026, 11, 24, 10, 15, tzinfo=UTC))
