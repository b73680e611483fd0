"""What was changed after it was signed, or never signed by who it says, is refused in the service's words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import Credentials

from outcrop.api.auth.session import new_session
from outcrop.api.errors import ApiError

from .world import STATIC, Sent, World, signed

NOW = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)
HEADERS = (("Content-Type", "application/json"), ("X-Amz-Meta", "a"))
UNSIGNED = "UNSIGNED-PAYLOAD"

MISMATCH = "The request signature we calculated does not match the signature you provided. "
INVALID, INCOMPLETE = "InvalidSignatureException", "IncompleteSignatureException"
UNKNOWN, MISSING = "UnrecognizedClientException", "MissingAuthenticationTokenException"

Tamper = Callable[[Sent], Sent]


def refused(world: World, sent: Sent, code: str, message: str = "") -> None:
    with pytest.raises(ApiError) as caught:
        world.accept(sent)
    assert (caught.value.kind.code, caught.value.kind.status) == (code, 403)
    assert caught.value.message.startswith(message)


def header(old: str, new: str, name: str = "authorization") -> Tamper:
    return lambda sent: sent.changing(name.encode(), old.encode(), new.encode())


def given(name: str, value: str | None) -> Tamper:
    return lambda sent: sent.with_header(name.encode(), None if value is None else value.encode())


def again(name: str, value: str) -> Tamper:
    """The header a second time."""
    return lambda sent: replace(sent, headers=(*sent.headers, (name.encode(), value.encode())))


def query(old: str, new: str) -> Tamper:
    return lambda sent: sent.changing_query(old.encode(), new.encode())


def last_digit(sent: Sent) -> Sent:
    value = sent.header(b"authorization")
    return sent.with_header(b"authorization", value[:-1] + (b"0" if value[-1:] != b"0" else b"1"))


def upper(sent: Sent) -> Sent:
    start, equals, signature = sent.header(b"authorization").rpartition(b"=")
    assert signature != signature.upper()
    return sent.with_header(b"authorization", start + equals + signature.upper())


TAMPERED: dict[str, tuple[Tamper, str, str]] = {
    "body": (lambda sent: replace(sent, body=sent.body + b" "), INVALID, MISMATCH),
    "no body": (lambda sent: replace(sent, body=b""), INVALID, MISMATCH),
    "method": (lambda sent: replace(sent, method="PUT"), INVALID, MISMATCH),
    "method's case": (lambda sent: replace(sent, method="post"), INVALID, MISMATCH),
    "path": (lambda sent: replace(sent, path=sent.path.replace(b"8b", b"70b")), INVALID, MISMATCH),
    "path decoded": (lambda sent: replace(sent, path=sent.path.replace(b"%3A", b":")), INVALID, MISMATCH),
    "path's end": (lambda sent: replace(sent, path=sent.path + b"/"), INVALID, MISMATCH),
    "query added": (lambda sent: replace(sent, query=sent.query + b"&c"), INVALID, MISMATCH),
    "query value": (query("a=1", "a=2"), INVALID, MISMATCH),
    "query name": (query("a=1", "A=1"), INVALID, MISMATCH),
    "query gone": (lambda sent: replace(sent, query=b""), INVALID, MISMATCH),
    "host": (given("host", "evil.example"), INVALID, MISMATCH),
    "no host": (given("host", None), INVALID, MISMATCH),
    "two hosts": (again("host", "evil.example"), INVALID, MISMATCH),
    "signed header": (given("x-amz-meta", "b"), INVALID, MISMATCH),
    "signed header gone": (given("content-type", None), INVALID, MISMATCH),
    "signed header twice": (again("x-amz-meta", "b"), INVALID, MISMATCH),
    "later": (given("x-amz-date", "20261124T101501Z"), INVALID, MISMATCH),
    "another day": (given("x-amz-date", "20261123T101500Z"), INVALID, "Date in Credential scope does not"),
    "no date": (given("x-amz-date", None), INCOMPLETE, "Authorization header requires existence of either"),
    "no such date": (given("x-amz-date", "20261324T101500Z"), INCOMPLETE, "Date must be in ISO-8601 'basic"),
    "no date at all": (given("x-amz-date", "soon"), INCOMPLETE, "Date must be in ISO-8601 'basic format'."),
    "bad Date": (lambda sent: given("date", "x")(given("x-amz-date", None)(sent)), INCOMPLETE, "Date must"),
    "date unsigned": (header(";x-amz-date", ""), INVALID, "'x-amz-date' must be a 'SignedHeader'"),
    "host unsigned": (header(";host", ""), INVALID, "'Host' or ':authority' must be a 'SignedHeader'"),
    "fewer signed": (header("content-type;", ""), INVALID, MISMATCH),
    "signed twice": (header(";host", ";host;host"), INCOMPLETE, "'SignedHeaders' names a header twice"),
    "signature": (last_digit, INVALID, MISMATCH),
    "signature cut": (lambda sent: given("authorization", None)(sent).with_header(
        b"authorization", sent.header(b"authorization")[:-1]), INVALID, MISMATCH),
    "signature's case": (upper, INVALID, MISMATCH),
    "no signature": (header(", Signature=", ", Sig="), INCOMPLETE, "Authorization header requires 'Sig"),
    "no headers": (header("SignedHeaders=", "S="), INCOMPLETE, "Authorization header requires 'Sig"),
    "no credential": (header("Credential=", "C="), INCOMPLETE, "Authorization header requires 'Credential'"),
    "twice": (header(", Sig", ", Signature=0, Sig"), INCOMPLETE, "Authorization header names 'Signature'"),
    "no pairs": (header("Credential=", ""), INCOMPLETE, "'AKIDEXAMPLE/20261124/us-east-1/bedrock/aws4_req"),
    "algorithm": (header("SHA256", "SHA512"), INCOMPLETE, "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA512'"),
    "another scheme": (given("authorization", "Basic eDp5"), INCOMPLETE, "Unsupported AWS 'algorithm': 'Ba"),
    "unsigned": (given("authorization", None), MISSING, "Missing Authentication Token"),
    "empty": (given("authorization", " "), MISSING, "Missing Authentication Token"),
    "two signatures": (again("authorization", "Bearer x"), INCOMPLETE, "There must be one Authorization"),
    "key": (header("AKIDEXAMPLE", "AKIDEXAMPLF"), UNKNOWN, "The security token included in the request is"),
    "key's case": (header("AKIDEXAMPLE", "akidexample"), UNKNOWN, "The security token included in the requ"),
    "no key": (header("AKIDEXAMPLE", ""), UNKNOWN, "The security token included in the request is invalid."),
    "region": (header("us-east-1", "us-west-2"), INVALID, MISMATCH),
    "service": (header("/bedrock/", "/bedrock-mantle/"), INVALID, MISMATCH),
    "other service": (header("/bedrock/", "/s3/"), INVALID, "Credential should be scoped to correct service"),
    "scope's day": (header("/20261124/", "/20261125/"), INVALID, "Date in Credential scope does not match"),
    "terminator": (header("aws4_request", "aws5_request"), INVALID, "Credential should be scoped with a val"),
    "short scope": (header("/bedrock", ""), INCOMPLETE, "Credential must have exactly 5 slash-delimited el"),
    "token unsigned": (given("x-amz-security-token", "t"), INVALID, "'x-amz-security-token' must be a 'Sig"),
    "content hash": (given("x-amz-content-sha256", "0" * 64), INVALID, MISMATCH),
    "unsigned payload": (given("x-amz-content-sha256", UNSIGNED), INVALID, MISMATCH),
    "streaming": (given("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), INVALID, MISMATCH),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_tampered(world: World, what: str) -> None:
    tamper, code, message = TAMPERED[what]
    sent = signed(NOW, url="/model/llama3-8b-v1%3A0/converse?a=1&b=2", headers=HEADERS)
    world.accept(sent)
    refused(world, tamper(sent), code, message)
    world.accept(sent)


PRESIGNED: dict[str, tuple[Tamper, str, str]] = {
    "query": (query("a=1", "a=2"), INVALID, MISMATCH),
    "longer": (query("Expires=60", "Expires=61"), INVALID, MISMATCH),
    "much longer": (query("Expires=60", "Expires=604801"), INCOMPLETE, "X-Amz-Expires must be a number"),
    "for ever": (query("Expires=60", "Expires=-1"), INCOMPLETE, "X-Amz-Expires must be a number"),
    "no expiry": (query("X-Amz-Expires=60&", ""), INCOMPLETE, "AWS query-string parameters must include 'X"),
    "signature gone": (query("X-Amz-Signature", "Sig"), INCOMPLETE, "AWS query-string parameters must incl"),
    "algorithm": (query("SHA256", "SHA1"), INCOMPLETE, "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA1'"),
    "date": (query("101500Z", "101501Z"), INVALID, MISMATCH),
    "bad date": (query("101500Z", "10150Z"), INCOMPLETE, "Date must be in ISO-8601 'basic format'."),
    "repeated": (query("a=1", "a=1&X-Amz-Expires=60"), INCOMPLETE, "AWS query-string parameters include 'X-"),
    "key": (query("AKIDEXAMPLE", "AKIDEXAMPLF"), UNKNOWN, ""),
    "host": (given("host", "evil.example"), INVALID, MISMATCH),
    "body": (lambda sent: replace(sent, body=b"x"), INVALID, MISMATCH),
    "path": (lambda sent: replace(sent, path=b"/model/x/converse"), INVALID, MISMATCH),
    "token": (query("a=1", "a=1&X-Amz-Security-Token=t"), UNKNOWN, ""),
}  # fmt: skip


@pytest.mark.parametrize("what", PRESIGNED)
def test_tampered_in_the_query(world: World, what: str) -> None:
    tamper, code, message = PRESIGNED[what]
    sent = signed(NOW, method="GET", url="/foundation-models?a=1", body=b"", headers=(), presign=60)
    world.accept(sent)
    refused(world, tamper(sent), code, message)


# -- time --------------------------------------------------------------------------------------------


def test_replayed_outside_the_window(world: World) -> None:
    sent = signed(NOW)
    for seconds in (0, 299, 1):
        world.pass_time(seconds=seconds)
        world.accept(sent)
    world.pass_time(seconds=1)
    message = (
        "Signature expired: 20261124T101500Z is now earlier than 20261124T101501Z (20261124T102001Z - 5 min.)"
    )
    refused(world, sent, INVALID, message)


def test_from_the_future(world: World) -> None:
    world.accept(signed(NOW + timedelta(minutes=5)))
    message = (
        "Signature not yet current: 20261124T102001Z is still later than 20261124T102000Z "
        "(20261124T101500Z + 5 min.)"
    )
    refused(world, signed(NOW + timedelta(minutes=5, seconds=1)), INVALID, message)
    presigned = signed(NOW + timedelta(minutes=5, seconds=1), method="GET", body=b"", presign=600)
    refused(world, presigned, INVALID, message)


def test_across_midnight(world: World) -> None:
    world.now = datetime(2026, 11, 24, 23, 59, 59, tzinfo=UTC)
    world.accept(signed(datetime(2026, 11, 25, 0, 1, tzinfo=UTC)))
    world.now = datetime(2026, 11, 25, 0, 1, tzinfo=UTC)
    world.accept(signed(datetime(2026, 11, 24, 23, 59, 59, tzinfo=UTC)))


# -- keys --------------------------------------------------------------------------------------------


def test_a_wrong_secret(world: World) -> None:
    refused(world, signed(NOW, Credentials(STATIC.grant.key_id, "wrong")), INVALID, MISMATCH)
    key, credentials, _ = world.key()
    world.accept(signed(NOW, credentials))
    refused(world, signed(NOW, Credentials(key.id, "wrong")), INVALID, MISMATCH)


def test_a_secret_that_was_derived_for_nobody(world: World) -> None:
    world.key()
    secret = world.store.master().secret_access_key("OUTCNOBODY")
    refused(world, signed(NOW, Credentials("OUTCNOBODY", secret)), UNKNOWN)


def test_only_the_configured_region(world: World) -> None:
    world.accept(signed(NOW, region="eu-west-1"))
    world.region = "us-east-1"
    world.restart()
    world.accept(signed(NOW))
    message = "Credential should be scoped to a valid region, not 'eu-west-1'. "
    refused(world, signed(NOW, region="eu-west-1"), INVALID, message)


def test_session_tokens_that_are_none(world: World) -> None:
    key, credentials, _ = world.key()
    until = int(NOW.timestamp()) + 3600
    made, other = (new_session(key.id, until, world.store.master()) for _ in range(2))
    whole = (made.access_key_id, made.secret_access_key, made.session_token)
    world.accept(signed(NOW, Credentials(*whole)))
    altered = made.session_token[:-4] + ("AAAA" if made.session_token[-4:] != "AAAA" else "BBBB")
    for key_id, secret, token in [
        (*whole[:2], other.session_token),
        (*whole[:2], altered),
        (*whole[:2], "x"),
        (*whole[:2], ""),
        (*whole[:2], "é"),
        (*whole[:2], None),
        (credentials.access_key, credentials.secret_key, made.session_token),
        (key.id, made.secret_access_key, made.session_token),
        (STATIC.grant.key_id, STATIC.secret, made.session_token),
    ]:
        sent = signed(NOW, Credentials(key_id, secret, token))
        refused(world, sent, UNKNOWN, "The security token included in the request is invalid.")
    refused(world, signed(NOW, Credentials(whole[0], "wrong", whole[2])), INVALID, MISMATCH)


def test_keys_that_are_over(world: World) -> None:
    _, ending, bearer = world.key(name="ending", expires=int(NOW.timestamp()) + 60)
    revoked, ended, _ = world.key(name="ended")
    world.accept(signed(NOW, ended))
    world.store.revoke("ended", NOW.timestamp())
    refused(world, signed(NOW, ended), UNKNOWN)
    world.accept(signed(NOW, ending))
    world.pass_time(seconds=60)
    refused(world, signed(NOW, ending), "ExpiredTokenException")
    with pytest.raises(ApiError, match="Bearer Token has expired"):
        world.bearer(bearer)
    assert world.store.read()[revoked.id].revoked == int(NOW.timestamp())
