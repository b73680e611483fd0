"""Temporary credentials: an id, a secret and a token that says, under seal, whose they are and until when.

Nothing is stored of them. They end with their time or with the key they were made from.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass

import msgspec

from outcrop.api.auth.master import MasterSecret

ID_PREFIX = "OUTS"
_SEAL_BYTES = 32


class Session(msgspec.Struct, frozen=True, array_like=True):
    """id: its access key id. key_id: of the key it stands for. expires: seconds since the epoch."""

    id: str
    key_id: str
    expires: int

    def token(self, master: MasterSecret) -> str:
        """The session token that goes with the credentials."""
        payload = msgspec.json.encode(self)
        return base64.b64encode(master.seal(payload) + payload).decode()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an AWS client is configured with."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""


def open_session(token: str, master: MasterSecret) -> Session | None:
    """The session of a token that this server sealed; None for any other."""
    try:
        sealed = base64.b64decode(token.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    seal, payload = sealed[:_SEAL_BYTES], sealed[_SEAL_BYTES:]
    if not hmac.compare_digest(master.seal(payload), seal):
        return None
    return msgspec.json.decode(payload, type=Session)


def new_session(key_id: str, expires: int, master: MasterSecret) -> Credentials:
    """Temporary credentials for a key. expires: seconds since the epoch."""
    session = Session(ID_PREFIX + new_id(), key_id, expires)
    return Credentials(session.id, master.session_secret(session.id), session.token(master))


def new_id() -> str:
    """16 letters and digits, as at the end of an AWS access key id."""
    return base64.b32encode(secrets.token_bytes(10)).decode()
