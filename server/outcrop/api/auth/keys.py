"""The keys of a server: a JSON file that `outcrop keys` writes, and that a running server reads again when
it has changed.

The file holds no secret: of a bearer token it has the hash, and SigV4 secrets are derived (see
`outcrop.api.auth.master`). It is replaced as a whole, so nobody ever reads half of it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from outcrop.api.auth.bearer import fingerprint, new_long_term
from outcrop.api.auth.master import MasterSecret, MasterSecretError
from outcrop.api.auth.policy import Policy
from outcrop.api.auth.session import new_id

ID_PREFIX = "OUTC"
MASTER_NAME = "master.key"
MAX_TENANT = 256
"""Characters of a tenant's name, as the ledger has room for."""
_VERSION = 1


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """created, expires, revoked: seconds since the epoch. policy: an IAM policy document; None for
    everything. rpm, tpm: requests and tokens a minute. bearer_sha256: of its long-term API key."""

    id: str
    created: int
    bearer_sha256: str
    name: str = ""
    tenant: str = ""
    policy: dict[str, Any] | None = None
    rpm: int | None = None
    tpm: int | None = None
    expires: int | None = None
    revoked: int | None = None

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "active" if self.expires is None or now < self.expires else "expired"


class _File(msgspec.Struct):
    version: int
    keys: list[Key]


class KeyStoreError(ValueError):
    """The keys cannot be read or written; the message says why and what to do."""


class KeyStore:
    """Keys and the master secret beside them. path: of the JSON file. master: the secret, where it comes from
    the environment and not from a file."""

    def __init__(self, path: Path, master: str | None = None) -> None:
        self.path = path
        self._given_master = master

    # -- reading -----------------------------------------------------------------------------------

    def read(self) -> dict[str, Key]:
        """Every key by its id; none where there is no file yet. Raises KeyStoreError."""
        try:
            content = msgspec.json.decode(self.path.read_bytes(), type=_File)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise KeyStoreError(f"{self.path}: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise KeyStoreError(f"{self.path}: {error}") from None
        if content.version != _VERSION:
            raise KeyStoreError(f"{self.path}: version {content.version} of this file is not known here")
        return {key.id: key for key in content.keys}

    def master(self, *, create: bool = False) -> MasterSecret:
        """The secret that the keys' are derived from. Where there is none it is made, if `create` says so;
        otherwise the answer is one that fits no key. Raises KeyStoreError."""
        path = self.master_path
        try:
            if self._given_master is not None:
                return MasterSecret(self._given_master)
            return MasterSecret.load_or_create(path) if create else MasterSecret.load(path)
        except FileNotFoundError:
            return MasterSecret.random()
        except MasterSecretError as error:
            raise KeyStoreError(str(error)) from None
        except OSError as error:
            raise KeyStoreError(f"{path}: {error.strerror}") from None

    @property
    def master_path(self) -> Path:
        """Of the master secret, unless the environment has it."""
        return self.path.with_name(MASTER_NAME)

    @property
    def place(self) -> str:
        """Where the keys are, for whoever reads a complaint."""
        return str(self.path)

    def stamp(self) -> tuple[int, ...] | None:
        """What differs whenever the file was written anew; None without a file. One system call."""
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    async def follow(self) -> None:
        """See to it that `stamp` and `read` tell of changes; a file need only be looked at."""

    # -- writing -----------------------------------------------------------------------------------

    def create(self, now: float, **fields: Any) -> tuple[Key, str]:
        """A new key and its long-term API key, which is shown once and stored nowhere. fields: of Key.
        Raises KeyStoreError, PolicyError."""
        if fields.get("policy") is not None:
            Policy.parse(fields["policy"])
        if len(fields.get("tenant", "")) > MAX_TENANT:
            raise KeyStoreError(f"the name of a tenant may have {MAX_TENANT} characters")
        key_id = ID_PREFIX + new_id()
        bearer = new_long_term(key_id)
        key = Key(id=key_id, created=int(now), bearer_sha256=fingerprint(bearer), **fields)

        def add(keys: Mapping[str, Key]) -> Key:
            self.master(create=True)
            return key

        return self._change(add), bearer

    def revoke(self, name: str, now: float) -> Key:
        """End a key, found by id or name. Raises KeyStoreError where there is none."""

        def end(keys: Mapping[str, Key]) -> Key:
            key = find(keys, name)
            return msgspec.structs.replace(key, revoked=key.revoked or int(now))

        return self._change(end)

    def _change(self, change: Callable[[Mapping[str, Key]], Key]) -> Key:
        """Write what `change` makes of the keys that there are, a new one or another state of one; one writer
        at a time."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self.path.with_suffix(".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = self.read()
                key = change(keys)
                self._write({**keys, key.id: key})
                return key
        except OSError as error:
            raise KeyStoreError(f"{error.filename or self.path}: {error.strerror}") from None

    def _write(self, keys: Mapping[str, Key]) -> None:
        content = msgspec.json.format(msgspec.json.encode(_File(_VERSION, list(keys.values()))), indent=2)
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)  # of mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise


def find(keys: Mapping[str, Key], name: str) -> Key:
    """A key by its id, or by a name that only one key that is not revoked has. Raises KeyStoreError."""
    if name in keys:
        return keys[name]
    named = [key for key in keys.values() if key.name == name and key.revoked is None]
    if len(named) == 1:
        return named[0]
    reason = "there is no such key" if not named else "several keys have this name; give the id"
    raise KeyStoreError(f"{name}: {reason}")
