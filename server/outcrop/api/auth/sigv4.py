"""Signature Version 4: what a request claims about its signature, and whether that holds.

The words of every refusal are the service's. Anything a claim says is untrusted until `matches` says so;
the checks before it only spare the server the reading of a body that cannot be right.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from outcrop.api import errors
from outcrop.api.auth.canonical import RequestHead, canonical_request, query_pairs

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICES = frozenset(("bedrock", "bedrock-mantle"))
MAX_SKEW = timedelta(minutes=5)
EMPTY_HASH = hashlib.sha256().hexdigest()
"""The payload hash of a request without a body."""

_TERMINATOR = "aws4_request"
_BASIC_FORMAT = "%Y%m%dT%H%M%SZ"
_BASIC = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_ECHOED = 200


@dataclass(frozen=True, slots=True)
class CredentialScope:
    """For what a signing key is good: one day, one region, one service."""

    access_key_id: str
    date: str
    region: str
    service: str

    @classmethod
    def parse(cls, credential: str) -> CredentialScope:
        """`id/20261123/us-east-1/bedrock/aws4_request`. Raises IncompleteSignatureException or
        InvalidSignatureException."""
        parts = credential.split("/")
        if len(parts) != 5:
            raise errors.incomplete_signature(
                "Credential must have exactly 5 slash-delimited elements, "
                f"e.g. keyid/date/region/service/term, got '{credential[:_ECHOED]}'"
            )
        *named, terminator = parts
        if terminator != _TERMINATOR:
            raise errors.invalid_signature(
                "Credential should be scoped with a valid terminator: "
                f"'{_TERMINATOR}', not '{terminator[:_ECHOED]}'."
            )
        return cls(*named)

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/{_TERMINATOR}"


@dataclass(frozen=True, slots=True)
class SignatureClaim:
    """What a request says of its signature.

    time: as signed, `yyyymmddThhmmssZ`. signed: names of the signed headers, in lower case. pairs: the
    signed part of the query. lifetime: how long after `time` it holds; None for one made to be sent at once.
    """

    scope: CredentialScope
    time: str
    signed: tuple[str, ...]
    signature: str
    pairs: Sequence[tuple[bytes, bytes]]
    token: str | None = None
    lifetime: timedelta | None = None

    def check(self, now: datetime, region: str | None = None) -> None:
        """Refuse what no signature could mend: a wrong region (where one is given), service or date.
        Raises InvalidSignatureException."""
        scope = self.scope
        if region is not None and scope.region != region:
            raise errors.invalid_signature(
                f"Credential should be scoped to a valid region, not '{scope.region[:_ECHOED]}'. "
            )
        if scope.service not in SERVICES:
            raise errors.invalid_signature("Credential should be scoped to correct service: 'bedrock'. ")
        if "host" not in self.signed and ":authority" not in self.signed:
            raise errors.invalid_signature(
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
            )
        if scope.date != self.time[:8]:
            raise errors.invalid_signature(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{scope.date[:_ECHOED]}' != '{self.time[:8]}', from '{self.time}'."
            )
        self._check_time(now)

    def _check_time(self, now: datetime) -> None:
        signed = parse_time(self.time)
        stamp = now.strftime(_BASIC_FORMAT)
        minutes = int(MAX_SKEW.total_seconds()) // 60
        if signed > now + MAX_SKEW:
            latest = (now + MAX_SKEW).strftime(_BASIC_FORMAT)
            raise errors.invalid_signature(
                f"Signature not yet current: {self.time} is still later than {latest} "
                f"({stamp} + {minutes} min.)"
            )
        if self.lifetime is None and signed < now - MAX_SKEW:
            earliest = (now - MAX_SKEW).strftime(_BASIC_FORMAT)
            raise errors.invalid_signature(
                f"Signature expired: {self.time} is now earlier than {earliest} ({stamp} - {minutes} min.)"
            )
        if self.expired(now):
            raise errors.invalid_signature(
                f"Signature expired: {self.time} + {self.lifetime} is now earlier than {stamp}"
            )

    def expired(self, now: datetime) -> bool:
        """Whether the lifetime it was given is over."""
        return self.lifetime is not None and parse_time(self.time) + self.lifetime < now

    def matches(self, head: RequestHead, payload_hash: str, secret: str) -> bool:
        """Whether `secret` signed exactly this request."""
        request = canonical_request(head, self.pairs, self.signed, payload_hash)
        text = "\n".join((ALGORITHM, self.time, str(self.scope), hashlib.sha256(request).hexdigest()))
        key = _signing_key(secret, self.scope.date, self.scope.region, self.scope.service)
        expected = hmac.digest(key, text.encode(), "sha256").hex()
        return hmac.compare_digest(expected.encode(), self.signature.encode())


def from_header(head: RequestHead, authorization: str) -> SignatureClaim:
    """The claim of `Authorization: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`.
    Raises IncompleteSignatureException or InvalidSignatureException."""
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise unsupported_algorithm(algorithm)
    given = _parameters(rest)
    complaints = [
        f"Authorization header requires '{name}' parameter."
        for name in ("Credential", "Signature", "SignedHeaders")
        if not given.get(name)
    ]
    date_header, time = _time_of(head)
    if time is None:
        complaints.append(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
        )
    if complaints or time is None:
        raise errors.incomplete_signature(" ".join([*complaints, f"Authorization={algorithm}"]))
    signed = signed_headers(given["SignedHeaders"])
    token = head.value(b"x-amz-security-token")
    required = [date_header] + (["x-amz-security-token"] if token is not None else [])
    for name in required:
        if name not in signed:
            raise errors.invalid_signature(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")
    scope = CredentialScope.parse(given["Credential"])
    return SignatureClaim(scope, time, signed, given["Signature"], query_pairs(head.query), token)


def unsupported_algorithm(name: str) -> errors.ApiError:
    return errors.incomplete_signature(
        f"Unsupported AWS 'algorithm': '{name[:_ECHOED]}' (only {ALGORITHM} for now). "
    )


def signed_headers(listed: str) -> tuple[str, ...]:
    """The names in `host;x-amz-date`. Raises IncompleteSignatureException where one is named twice."""
    names = tuple(listed.lower().split(";"))
    if len(set(names)) != len(names):
        raise errors.incomplete_signature(f"'SignedHeaders' names a header twice: '{listed[:_ECHOED]}'")
    return names


def parse_time(stamp: str) -> datetime:
    """`20261123T101500Z`. Raises IncompleteSignatureException."""
    try:
        if _BASIC.fullmatch(stamp):
            return datetime.strptime(stamp, _BASIC_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise errors.incomplete_signature(
        f"Date must be in ISO-8601 'basic format'. Got '{stamp[:_ECHOED]}'. "
        "See http://en.wikipedia.org/wiki/ISO_8601"
    )


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in text.split(","):
        name, equals, value = each.strip().partition("=")
        if not equals:
            raise errors.incomplete_signature(
                f"'{name[:_ECHOED]}' not a valid key=value pair (missing equal-sign) in Authorization header."
            )
        if name in found:
            raise errors.incomplete_signature(f"Authorization header names '{name[:_ECHOED]}' twice.")
        found[name] = value
    return found


def _time_of(head: RequestHead) -> tuple[str, str | None]:
    """The header that dates the request, and the time as it is signed; None where there is no such header.
    Raises IncompleteSignatureException."""
    if (stamp := head.value(b"x-amz-date")) is not None:
        parse_time(stamp)
        return "x-amz-date", stamp
    date = head.value(b"date")
    if date is None or _BASIC.fullmatch(date):
        return "date", date
    try:
        parsed = parsedate_to_datetime(date)
        # One that ends in -0000 is in UTC and has no time zone.
        parsed = parsed.astimezone(UTC) if parsed.tzinfo else parsed
        return "date", parsed.strftime(_BASIC_FORMAT)
    except (ValueError, OverflowError):
        parse_time(date)
        raise


@functools.lru_cache(maxsize=4096)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Four HMACs that come out the same for all of a key's requests of one day."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, _TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
