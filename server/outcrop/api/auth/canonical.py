"""Signature Version 4's canonical form of a request, made from the bytes that came over the wire.

Nothing here is decoded and passed on: a signature covers what was sent, so that is what is put in order.
Source: AWS General Reference, "Create a signed AWS API request".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from starlette.types import Scope

_UNRESERVED = "-_.~"
_HOST = frozenset((b"host", b":authority"))


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request without its body. path and query: as sent, still encoded. headers: names in lower case."""

    method: str
    path: bytes
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]

    @classmethod
    def of(cls, scope: Scope) -> RequestHead:
        """The head of an ASGI request."""
        return cls(scope["method"], scope["raw_path"], scope["query_string"], scope["headers"])

    def values(self, name: bytes) -> list[bytes]:
        """What each header of that name says, in the order sent. `host` and HTTP/2's `:authority` are one
        header: clients sign it under either name."""
        names = _HOST if name in _HOST else {name}
        return [value for header, value in self.headers if header in names]

    def value(self, name: bytes) -> str | None:
        """The one value of a header; several are joined as in the canonical form. None if there is none."""
        values = self.values(name)
        return ",".join(value.decode("latin-1").strip() for value in values) if values else None


def canonical_path(raw: bytes) -> str:
    """The path with its `.`, `..` and empty segments resolved, then encoded once more: `%3A` becomes
    `%253A`. (Only S3 signs the path as it is.)"""
    segments: list[bytes] = []
    for segment in raw.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment)
    last = b"/" if segments and raw.endswith(b"/") else b""
    return quote_from_bytes(b"/" + b"/".join(segments) + last, safe="/" + _UNRESERVED)


def query_pairs(raw: bytes) -> list[tuple[bytes, bytes]]:
    """The decoded names and values of a query, in the order sent. A plus sign is a space, as it is to the
    routes: what was signed as `%20` may have been sent either way."""
    pairs = (pair.partition(b"=") for pair in raw.replace(b"+", b" ").split(b"&") if raw)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def canonical_query(pairs: Sequence[tuple[bytes, bytes]]) -> str:
    encoded = sorted(
        (quote_from_bytes(name, safe=_UNRESERVED), quote_from_bytes(value, safe=_UNRESERVED))
        for name, value in pairs
    )
    return "&".join(f"{name}={value}" for name, value in encoded)


def canonical_request(
    head: RequestHead, pairs: Sequence[tuple[bytes, bytes]], signed: Sequence[str], payload_hash: str
) -> bytes:
    """What is hashed and signed. pairs: of the query, without the signature if it is there. signed: names
    of the signed headers."""
    lines = [head.method.encode(), canonical_path(head.path).encode(), canonical_query(pairs).encode()]
    for name in signed:
        values = (b" ".join(value.split()) for value in head.values(name.encode("latin-1")))
        lines.append(name.encode("latin-1") + b":" + b",".join(values))
    return b"\n".join([*lines, b"", ";".join(signed).encode("latin-1"), payload_hash.encode()])
