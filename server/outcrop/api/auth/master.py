"""The one secret of a server, from which those of its keys are derived.

A SigV4 signature can be checked only by who knows the secret that made it, so a hash of the secret, which
is enough for a bearer token, will not do. Rather than keep each key's secret in a file, they are all derived
from one that is: `HMAC(master secret, key id)`. The list of keys then holds nothing that opens anything; it
can be copied, read and put under version control. Whoever has the master secret can sign as any key that is
in the list: it lives in a file of its own that only the owner may read, or in the environment.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import stat
from pathlib import Path

_BYTES = 32
_MIN_LENGTH = 32


class MasterSecretError(ValueError):
    """The master secret cannot be used; the message says why and what to do."""


class MasterSecret:
    """Derives; never shown."""

    def __init__(self, secret: str) -> None:
        if len(secret) < _MIN_LENGTH:
            raise MasterSecretError(f"the master secret needs at least {_MIN_LENGTH} characters")
        self._secret = secret.encode()

    @classmethod
    def random(cls) -> MasterSecret:
        """One that nothing was ever derived from."""
        return cls(secrets.token_hex(_BYTES))

    @classmethod
    def load(cls, path: Path) -> MasterSecret:
        """Raises MasterSecretError, also where others may read the file, and FileNotFoundError."""
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise MasterSecretError(f"{path}: others may read this file; run chmod 600 on it")
            try:
                return cls(file.read(4096).decode("ascii").strip())
            except (UnicodeDecodeError, MasterSecretError) as error:
                raise MasterSecretError(f"{path}: {error}") from None

    @classmethod
    def load_or_create(cls, path: Path) -> MasterSecret:
        """As `load`; a file that is not there is written first."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls.load(path)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(_BYTES)}\n")
            file.flush()
            os.fsync(file.fileno())
        return cls.load(path)

    def secret_access_key(self, key_id: str) -> str:
        """The SigV4 secret of a key, 40 characters as AWS's are."""
        return base64.b64encode(self._derive("access key", key_id.encode())[:30]).decode()

    def session_secret(self, session_id: str) -> str:
        """The SigV4 secret of temporary credentials."""
        return base64.b64encode(self._derive("session key", session_id.encode())[:30]).decode()

    def seal(self, payload: bytes) -> bytes:
        """What proves that this server wrote `payload`: 32 bytes."""
        return self._derive("session token", payload)

    def fingerprint(self) -> str:
        """What tells it from others, 32 characters."""
        return self._derive("fingerprint", b"")[:16].hex()

    def _derive(self, purpose: str, subject: bytes) -> bytes:
        return hmac.digest(self._secret, f"outcrop {purpose}\0".encode() + subject, "sha256")
