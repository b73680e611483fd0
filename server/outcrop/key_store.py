"""Where the keys of a server are, by its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outcrop.api.auth.keys import KeyStore
from outcrop.settings import AuthSettings

if TYPE_CHECKING:
    from outcrop.ledger.database import Database


def key_store(auth: AuthSettings, database: Database | None) -> KeyStore:
    """In the database of the server's state, where other servers may share that; in a file otherwise, or
    where the settings name one. database: may be None where it is not shared."""
    if auth.keys is None and database is not None and database.shared:
        from outcrop.api.auth.shared_keys import SharedKeyStore

        return SharedKeyStore(database, auth.key_file, auth.master_secret)
    return KeyStore(auth.key_file, auth.master_secret)
