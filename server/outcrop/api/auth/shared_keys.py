"""The keys of servers that share a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from outcrop.api.auth.keys import Key, KeyStore, KeyStoreError
from outcrop.ledger.api_key import ApiKey
from outcrop.ledger.connect import reason_of
from outcrop.ledger.database import Database
from outcrop.ledger.watch import watch


class SharedKeyStore(KeyStore):
    """Keys in the database of the servers' state. A server looks once a second whether they have changed;
    while the database is away it goes by what it saw last.

    The master secret is not in the database, which would then hold all that it takes to sign as any key: it
    comes from the environment or a file, on each host the same, and which one it is told by a fingerprint
    beside each key. path: of the file of keys that there would be without a database; the master secret's
    is beside it."""

    def __init__(self, database: Database, path: Path, master: str | None = None) -> None:
        super().__init__(path, master)
        self._database = database
        self._seen: tuple[int, dict[str, Key] | KeyStoreError] | None = None

    @property
    def place(self) -> str:
        return "the keys in the database"

    def read(self) -> dict[str, Key]:
        """Every key by its id; while `follow` runs, as it saw them last. Raises KeyStoreError."""
        with self._explained():
            found = (self._seen or self._database.transact(self._look))[1]
        if isinstance(found, KeyStoreError):
            raise found
        return found

    def stamp(self) -> tuple[int, ...] | None:
        """The revision that `follow` saw last."""
        return None if self._seen is None else (self._seen[0],)

    async def follow(self) -> None:
        """Look for changes until cancelled."""
        await watch(self._see, "changes of keys are not seen")

    async def _see(self) -> None:
        revision = await self._database.run(_revision)
        if self._seen is None or revision != self._seen[0]:
            self._seen = await self._database.run(self._look)

    def _look(self, session: Session) -> tuple[int, dict[str, Key] | KeyStoreError]:
        rows = session.scalars(select(ApiKey).order_by(ApiKey.revision)).all()
        revision = rows[-1].revision if rows else 0
        try:
            return revision, self._checked(rows)
        except KeyStoreError as error:
            return revision, error

    def _checked(self, rows: Sequence[ApiKey]) -> dict[str, Key]:
        """Raises KeyStoreError for keys that are of no use on this host."""
        mine = self.master().fingerprint()
        if any(row.master != mine for row in rows):
            raise KeyStoreError(
                f"{self.place} were made with another master secret than this host has: give every host the "
                f"same, in OUTCROP_MASTER_SECRET or in {self.master_path}"
            )
        try:
            return {row.id: msgspec.convert(row.document, Key) for row in rows}
        except msgspec.ValidationError as error:
            raise KeyStoreError(f"{self.place}: {error}") from None

    def _change(self, change: Callable[[Mapping[str, Key]], Key]) -> Key:
        def work(session: Session) -> Key:
            revision, keys = self._look(session)
            if isinstance(keys, KeyStoreError):
                raise keys
            key = change(keys)
            session.merge(
                ApiKey(
                    id=key.id,
                    revision=revision + 1,
                    master=self.master().fingerprint(),
                    document=msgspec.to_builtins(key),
                )
            )
            return key

        with self._explained():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # for the master secret
            return self._database.transact(work)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What a database raises, as KeyStoreError."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            raise KeyStoreError(f"{self.place}: {reason_of(error)}") from error


def _revision(session: Session) -> int:
    return session.scalar(select(func.max(ApiKey.revision))) or 0
