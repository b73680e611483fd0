"""Signature Version 4 in the query of a request: presigned calls, and the core of short-term API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from outcrop.api import errors
from outcrop.api.auth.canonical import query_pairs
from outcrop.api.auth.sigv4 import (
    ALGORITHM,
    CredentialScope,
    SignatureClaim,
    parse_time,
    signed_headers,
    unsupported_algorithm,
)

MAX_LIFETIME = timedelta(days=7)
_SIGNATURE = "X-Amz-Signature"
_REQUIRED = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires")


def is_presigned(query: bytes) -> bool:
    """Whether a query claims to hold a signature."""
    return b"X-Amz-Signature=" in query or b"X-Amz-Algorithm=" in query


def from_query(query: bytes, max_lifetime: timedelta = MAX_LIFETIME) -> SignatureClaim:
    """The claim of `X-Amz-Algorithm=…&X-Amz-Credential=…&…&X-Amz-Signature=…`.
    Raises IncompleteSignatureException or InvalidSignatureException."""
    pairs = query_pairs(query)
    given = _parameters(pairs)
    if given.get("X-Amz-Algorithm", ALGORITHM) != ALGORITHM:
        raise unsupported_algorithm(given["X-Amz-Algorithm"])
    if missing := [name for name in (*_REQUIRED, _SIGNATURE) if not given.get(name)]:
        raise errors.incomplete_signature(
            " ".join(f"AWS query-string parameters must include '{name}'." for name in missing)
        )
    parse_time(given["X-Amz-Date"])
    return SignatureClaim(
        scope=CredentialScope.parse(given["X-Amz-Credential"]),
        time=given["X-Amz-Date"],
        signed=signed_headers(given["X-Amz-SignedHeaders"]),
        signature=given[_SIGNATURE],
        pairs=[pair for pair in pairs if pair[0] != _SIGNATURE.encode()],
        token=given.get("X-Amz-Security-Token"),
        lifetime=_lifetime(given["X-Amz-Expires"], max_lifetime),
    )


def _parameters(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if not name.startswith(b"X-Amz-"):
            continue
        text = name.decode("latin-1")
        if text in found:
            raise errors.incomplete_signature(f"AWS query-string parameters include '{text[:64]}' twice.")
        found[text] = value.decode("latin-1")
    return found


def _lifetime(seconds: str, longest: timedelta) -> timedelta:
    limit = int(longest.total_seconds())
    if seconds.isascii() and seconds.isdigit() and len(seconds) < 9 and 1 <= int(seconds) <= limit:
        return timedelta(seconds=int(seconds))
    raise errors.incomplete_signature(
        f"X-Amz-Expires must be a number of seconds from 1 to {limit}. Got '{seconds[:64]}'."
    )
