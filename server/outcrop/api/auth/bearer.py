"""Amazon Bedrock API keys, as `Authorization: Bearer` carries them.

A short-term key is a presigned call that is never sent: `bedrock-api-key-` and the base64 of a signed
`POST https://bedrock.amazonaws.com/?Action=CallWithBearerToken`, which whoever knows the secret can verify
without asking anybody. A long-term key is a secret of its own, `ABSK` and the base64 of
`BedrockAPIKey-{id}-at-{account}:{secret}`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import replace
from datetime import timedelta

from outcrop.api import errors
from outcrop.api.auth import presigned
from outcrop.api.auth.canonical import RequestHead
from outcrop.api.auth.sigv4 import EMPTY_HASH, SignatureClaim
from outcrop.api.errors import ApiError

MAX_LIFETIME = timedelta(hours=12)
ACCOUNT = "000000000000"
"""The account that this server's keys and principals belong to: it has but one."""

_SHORT_PREFIX = "bedrock-api-key-"
_LONG_PREFIX = "ABSK"
_HOST = "bedrock.amazonaws.com"
_URL = f"{_HOST}/?".encode()
_LONG = re.compile(rf"BedrockAPIKey-([A-Za-z0-9_]{{1,128}})-at-{ACCOUNT}:[A-Za-z0-9_-]+")
_VERSION = (b"Version", b"1")
"""Added to the address after it was signed."""


def is_short_term(token: str) -> bool:
    return token.startswith(_SHORT_PREFIX)


def short_term_claim(token: str) -> tuple[SignatureClaim, RequestHead]:
    """What a short-term key claims, and the call that its signature is of. Raises AccessDeniedException for
    what is no such key; whether it holds remains to be seen."""
    address = _decode(token.removeprefix(_SHORT_PREFIX))
    if not address.startswith(_URL):
        raise errors.invalid_bearer()
    query = address.removeprefix(_URL)
    try:
        claim = presigned.from_query(query, MAX_LIFETIME)
    except ApiError:
        raise errors.invalid_bearer() from None
    pairs = [pair for pair in claim.pairs if pair != _VERSION]
    if pairs.count((b"Action", b"CallWithBearerToken")) != 1 or claim.signed != ("host",):
        raise errors.invalid_bearer()
    head = RequestHead("POST", b"/", query, [(b"host", _HOST.encode())])
    return replace(claim, pairs=pairs), head


def short_term_holds(claim: SignatureClaim, head: RequestHead, secret: str) -> bool:
    """Whether `secret` signed the key."""
    return claim.matches(head, EMPTY_HASH, secret)


def new_long_term(key_id: str) -> str:
    """A long-term key of its own for the key `key_id`: 256 random bits."""
    named = f"BedrockAPIKey-{key_id}-at-{ACCOUNT}:{secrets.token_urlsafe(32)}"
    return _LONG_PREFIX + base64.b64encode(named.encode()).decode()


def long_term_key_id(token: str) -> str:
    """Whose key it says it is. Raises AccessDeniedException."""
    if not token.startswith(_LONG_PREFIX):
        raise errors.invalid_bearer()
    match = _LONG.fullmatch(_decode(token.removeprefix(_LONG_PREFIX)).decode("latin-1"))
    if match is None:
        raise errors.invalid_bearer()
    return match[1]


def fingerprint(token: str) -> str:
    """What is stored of a long-term key. Its secret is random and long, so one round of hashing is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise errors.invalid_bearer() from None
