"""Where the keys of a server are, by its settings."""

from __future__ import annotations

from outcrop.api.auth.keys import KeyStore
from outcrop.api.auth.shared_keys import SharedKeyStore
from outcrop.ledger.database import Database
from outcrop.settings import AuthSettings


def key_store(auth: AuthSettings, database: Database) -> KeyStore:
    """In the database of the server's state, where other servers may share that; in a file otherwise, or
    where the settings name one."""
    if auth.keys is None and database.shared:
        return SharedKeyStore(database, auth.key_file, auth.master_secret)
    return KeyStore(auth.key_file, auth.master_secret)
