"""A server's keys and clock, and botocore as the client that signs: the oracle of these tests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import botocore.auth
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from outcrop.api.auth.authenticator import Authenticator, Pending
from outcrop.api.auth.canonical import RequestHead
from outcrop.api.auth.keyring import AccessKey, Grant, KeyRing
from outcrop.api.auth.keys import Key, KeyStore
from outcrop.api.auth.principal import Principal

STATIC = AccessKey(Grant("AKIDEXAMPLE", "existing"), "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
HOST = "localhost:8080"


@dataclass(frozen=True)
class Sent:
    """A request as it is on the wire."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""

    @property
    def head(self) -> RequestHead:
        return RequestHead(self.method, self.path, self.query, self.headers)

    def with_header(self, name: bytes, value: bytes | None) -> Sent:
        """The request with this header changed, added or, for None, taken out."""
        kept = tuple(each for each in self.headers if each[0] != name)
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def header(self, name: bytes) -> bytes:
        (value,) = (value for each, value in self.headers if each == name)
        return value

    def changing(self, name: bytes, old: bytes, new: bytes) -> Sent:
        """The request with `old` in a header made `new`; it must be there."""
        value = self.header(name)
        assert old in value
        return self.with_header(name, value.replace(old, new))

    def changing_query(self, old: bytes, new: bytes) -> Sent:
        assert old in self.query
        return replace(self, query=self.query.replace(old, new))


@dataclass
class World:
    store: KeyStore
    now: datetime
    region: str | None = None
    elapsed: float = 0.0
    ring: KeyRing = field(init=False)
    authenticator: Authenticator = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A server that has just started on the same files."""
        self.ring = KeyRing(self.store, [STATIC])
        self.authenticator = Authenticator(
            self.ring, region=self.region, now=lambda: self.now, clock=lambda: self.elapsed
        )

    def pass_time(self, **duration: float) -> None:
        self.now += timedelta(**duration)
        self.elapsed += timedelta(**duration).total_seconds()

    def key(self, **fields: Any) -> tuple[Key, Credentials, str]:
        """A new key, its credentials and its bearer token."""
        key, bearer = self.store.create(self.now.timestamp(), **fields)
        return key, Credentials(key.id, self.store.master().secret_access_key(key.id)), bearer

    def accept(self, sent: Sent) -> Principal:
        """The principal of a request. Raises ApiError."""
        found = self.authenticator.begin(sent.head, "192.0.2.7")
        if isinstance(found, Pending):
            return self.authenticator.finish(found, hashlib.sha256(sent.body).hexdigest())
        return found

    def bearer(self, token: str) -> Principal:
        return self.accept(Sent("GET", b"/", b"", ((b"authorization", f"Bearer {token}".encode()),)))


@contextmanager
def client_clock(now: datetime) -> Iterator[None]:
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=now):
        yield


def signed(
    now: datetime,
    credentials: Credentials | None = None,
    *,
    method: str = "POST",
    url: str = "/model/meta.llama3-8b-instruct-v1%3A0/converse",
    body: bytes = b'{"messages": []}',
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),),
    params: dict[str, str] | None = None,
    region: str = "us-east-1",
    service: str = "bedrock",
    presign: int | None = None,
) -> Sent:
    """A request as botocore signs and then sends it. presign: in the query, for so many seconds."""
    request = AWSRequest(method, f"http://{HOST}{url}", data=body, params=params)
    for name, value in headers:
        request.headers.add_header(name, value)
    if credentials is None:
        credentials = Credentials(STATIC.grant.key_id, STATIC.secret)
    signer = (
        SigV4Auth(credentials, service, region)
        if presign is None
        else SigV4QueryAuth(credentials, service, region, expires=presign)
    )
    with client_clock(now):
        signer.add_auth(request)
    target = urlsplit(request.prepare().url)  # what is prepared has no repeated headers any more
    wire = [(b"host", HOST.encode())]
    for name, value in request.headers.items():
        wire.append((name.lower().encode(), str(value).encode("latin-1")))
    return Sent(method, target.path.encode() or b"/", target.query.encode(), tuple(wire), body)


def short_term(now: datetime, credentials: Credentials, lifetime: int = 43_200, **changes: str) -> str:
    """As aws-bedrock-token-generator makes them: a presigned call, less its scheme."""
    request = AWSRequest(
        changes.get("method", "POST"),
        changes.get("url", "https://bedrock.amazonaws.com/"),
        headers={"host": "bedrock.amazonaws.com"},
        params={"Action": changes.get("action", "CallWithBearerToken")},
    )
    with client_clock(now):
        service, region = changes.get("service", "bedrock"), changes.get("region", "us-east-1")
        SigV4QueryAuth(credentials, service, region, expires=lifetime).add_auth(request)
    address = request.url.removeprefix("https://") + "&Version=1"
    return "bedrock-api-key-" + base64.b64encode(address.encode()).decode()
