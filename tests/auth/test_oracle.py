"""Whatever botocore signs is accepted, byte for byte as it would be sent."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.api.auth.canonical import canonical_path, canonical_query, query_pairs
from outcrop.api.auth.keys import KeyStore
from outcrop.api.auth.session import new_session
from outcrop.api.errors import ApiError

from .world import STATIC, Sent, World, short_term, signed

NOW = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)
NOWHERE = KeyStore(Path("/nonexistent/keys.json"))

SEGMENTS = st.one_of(
    st.text(max_size=12).map(lambda text: quote(text, safe="")),
    st.text(alphabet="abz:@!$&'()*+,;=-._~%2FfAa", max_size=12).filter(lambda text: "?" not in text),
    st.sampled_from(["", ".", "..", "...", "meta.llama3-8b-instruct-v1:0", "%2e%2e", "a%2Fb", "%253A"]),
)
PATHS = st.lists(SEGMENTS, max_size=6).map(lambda parts: "/" + "/".join(parts))
PARAMS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=5)
NAMES = st.sampled_from(["X-Amz-Meta", "X-Custom", "Accept", "Content-Type", "x-stainless-arch", "X-Empty"])
VALUES = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=6).map(tuple)


@given(
    url=PATHS, params=PARAMS, headers=HEADERS, body=st.binary(max_size=200),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    service=st.sampled_from(["bedrock", "bedrock-mantle"]),
    region=st.sampled_from(["us-east-1", "eu-central-1", "ap-southeast-2"]),
    seconds=st.integers(-300, 300),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_signed_in_a_header(
    url: str, params: dict[str, str], headers: tuple[tuple[str, str], ...], body: bytes,
    method: str, service: str, region: str, seconds: int,
) -> None:  # fmt: skip
    world = World(NOWHERE, NOW)
    sent = signed(
        NOW + timedelta(seconds=seconds), method=method, url=url, params=params, headers=headers,
        body=body, service=service, region=region,
    )  # fmt: skip
    assert world.accept(sent).key_id == STATIC.grant.key_id
    with pytest.raises(ApiError):
        world.accept(replace(sent, body=body + b"x"))


@given(url=PATHS, params=PARAMS, headers=HEADERS, seconds=st.integers(1, 604_800))
@settings(max_examples=200, deadline=None)
def test_signed_in_the_query(
    url: str, params: dict[str, str], headers: tuple[tuple[str, str], ...], seconds: int
) -> None:
    world = World(NOWHERE, NOW)
    sent = signed(NOW, method="GET", url=url, params=params, headers=headers, body=b"", presign=seconds)
    assert world.accept(sent).key_id == STATIC.grant.key_id
    world.pass_time(seconds=seconds)
    world.accept(sent)
    world.pass_time(seconds=1)
    with pytest.raises(ApiError, match="Signature expired"):
        world.accept(sent)


def test_the_authority_of_http2_is_the_host(world: World) -> None:
    """The AWS SDK for JavaScript signs `:authority`; servers show it as `host`."""
    sent = signed(NOW, headers=((":authority", "localhost:8080"),))
    listed = b":authority;host;"
    assert listed in sent.header(b"authorization")
    world.accept(sent.with_header(b":authority", None))


@pytest.mark.parametrize("date", ["header", "both"])
def test_a_date_header_will_do(world: World, date: str) -> None:
    sent = signed(NOW, headers=(("Date", "now"),))
    assert sent.header(b"date") == b"Tue, 24 Nov 2026 10:15:00 -0000"
    if date == "both":  # then the other one counts
        sent = signed(NOW).with_header(b"date", b"yesterday")
    world.accept(sent)


def test_repeated_and_empty_headers(world: World) -> None:
    sent = signed(NOW, headers=(("X-A", "b   b"), ("X-A", ""), ("X-A", " a"), ("X-Empty", "")))
    assert [value for name, value in sent.headers if name == b"x-a"] == [b"b   b", b"", b" a"]
    world.accept(sent)


def test_a_content_hash_that_is_right(world: World) -> None:
    digest = "1ac3f7a4fa6ee0f4bf0fb5bd4a1b70d7ea6c6c1e44b6a6f0fbb1ac6a9f3b3d3c"
    world.accept(signed(NOW, body=b"", headers=(("X-Amz-Content-SHA256", EMPTY),)))
    with pytest.raises(ApiError, match="does not match"):
        world.accept(signed(NOW, body=b"", headers=(("X-Amz-Content-SHA256", digest),)))


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_temporary_credentials(world: World) -> None:
    key, _, _ = world.key(name="parent", tenant="team", rpm=5)
    until = int(NOW.timestamp()) + 3600
    made = new_session(key.id, until, world.store.master())
    credentials = Credentials(made.access_key_id, made.secret_access_key, made.session_token)
    for presign in (None, 60):
        principal = world.accept(signed(NOW, credentials, body=b"", presign=presign))
        assert (principal.key_id, principal.tenant) == (key.id, "team")
    world.pass_time(seconds=3600)
    with pytest.raises(ApiError) as caught:
        world.accept(signed(world.now, credentials))
    assert caught.value.kind.code == "ExpiredTokenException"


def test_sessions_end_with_their_key(world: World) -> None:
    key, _, _ = world.key()
    made = new_session(key.id, int(NOW.timestamp()) + 3600, world.store.master())
    credentials = Credentials(made.access_key_id, made.secret_access_key, made.session_token)
    world.accept(signed(NOW, credentials))
    world.store.revoke(key.id, NOW.timestamp())
    with pytest.raises(ApiError) as caught:
        world.accept(signed(NOW, credentials))
    assert caught.value.kind.code == "UnrecognizedClientException"


# -- the parts, on examples of the AWS documentation ------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "canonical"),
    {
        "/": "/", "//": "/", "": "/", "/./": "/", "/foo/..": "/", "/foo/bar/../..": "/", "/./foo": "/foo",
        "//foo//": "/foo/", "/a/../../b": "/b", "/%20/foo": "/%2520/foo", "/%E1%88%B4": "/%25E1%2588%25B4",
        "/a:b": "/a%3Ab", "/a%3Ab": "/a%253Ab", "/-._~0aZ": "/-._~0aZ", "/a/%2E%2E/b": "/a/%252E%252E/b",
    }.items(),
)  # fmt: skip
def test_canonical_paths(raw: str, canonical: str) -> None:
    assert canonical_path(raw.encode()) == canonical


@pytest.mark.parametrize(
    ("raw", "canonical"),
    {
        "": "", "a": "a=", "a=": "a=", "b=2&a=1": "a=1&b=2", "a=2&a=1": "a=1&a=2", "a=b=c": "a=b%3Dc",
        "a=%2f": "a=%2F", "a=+": "a=%20", "a=%2B": "a=%2B", "a=%20": "a=%20", "%41=1": "A=1",
        "a=%zz": "a=%25zz", "a-b=1&a=1": "a=1&a-b=1", "%E1%88%B4=bar": "%E1%88%B4=bar", "a=~_.-": "a=~_.-",
    }.items(),
)  # fmt: skip
def test_canonical_queries(raw: str, canonical: str) -> None:
    assert canonical_query(query_pairs(raw.encode())) == canonical


# -- API keys ----------------------------------------------------------------------------------------


def test_short_term_keys(world: World) -> None:
    key, credentials, _ = world.key(name="me")
    token = short_term(NOW, credentials)
    principal = world.bearer(token)
    assert principal.key_id == key.id
    assert principal.context["bedrock:bearertokentype"] == "SHORT_TERM"
    assert world.bearer(token.rstrip("=")).key_id == key.id
    world.pass_time(seconds=43_200)
    world.bearer(token)
    world.pass_time(seconds=1)
    with pytest.raises(ApiError, match="Bearer Token has expired"):
        world.bearer(token)


def test_short_term_keys_of_temporary_credentials(world: World) -> None:
    key, _, _ = world.key()
    made = new_session(key.id, int(NOW.timestamp()) + 3600, world.store.master())
    credentials = Credentials(made.access_key_id, made.secret_access_key, made.session_token)
    token = short_term(NOW, credentials)
    assert world.bearer(token).key_id == key.id
    world.pass_time(seconds=3600)
    with pytest.raises(ApiError):
        world.bearer(token)


def test_long_term_keys(world: World) -> None:
    key, _, token = world.key(name="me", tenant="team")
    principal = world.bearer(token)
    assert (principal.key_id, principal.tenant) == (key.id, "team")
    assert principal.arn == "arn:aws:iam::000000000000:user/me"
    assert principal.context["bedrock:bearertokentype"] == "LONG_TERM"
    for scheme in (b"Bearer ", b"bearer ", b"BEARER  "):
        world.accept(Sent("GET", b"/", b"", ((b"authorization", scheme + token.encode()),)))


def other_base64(token: str) -> str:
    head, tail = token[:-2], token[-2:]
    return head + ("A" if tail[0] != "A" else "B") + tail[1:]


SHORT_TERM_TRICKS = {
    "longer than 12 hours": {"lifetime": 43_201},
    "another call": {"action": "ListUsers"},
    "another method": {"method": "GET"},
    "another path": {"url": "https://bedrock.amazonaws.com/x"},
    "another host": {"url": "https://bedrock.example.com/"},
    "another service": {"service": "s3"},
}


@pytest.mark.parametrize("trick", SHORT_TERM_TRICKS)
def test_short_term_keys_that_are_none(world: World, trick: str) -> None:
    _, credentials, _ = world.key()
    refuse_bearer(world, short_term(NOW, credentials, **SHORT_TERM_TRICKS[trick]))  # type: ignore[arg-type]


def test_bearers_that_are_none(world: World) -> None:
    key, credentials, token = world.key()
    good = short_term(NOW, credentials)
    decoded = base64.b64decode(good.removeprefix("bedrock-api-key-"))
    later = decoded.replace(b"X-Amz-Expires=43200", b"X-Amz-Expires=43199")
    world.store.revoke(world.key()[0].id, 0)
    revoked, revoked_credentials, revoked_token = world.key()
    world.store.revoke(revoked.id, 0)
    wrong = [
        "", "x", "é", "ABSK", "ABSK!", token + "x", token[:-8], other_base64(token), key.id,
        "ABSK" + base64.b64encode(f"BedrockAPIKey-{key.id}-at-000000000000:x".encode()).decode(),
        "ABSK" + base64.b64encode(b"BedrockAPIKey-nobody-at-000000000000:x").decode(),
        "bedrock-api-key-", "bedrock-api-key-!!", "bedrock-api-key-" + base64.b64encode(later).decode(),
        "bedrock-api-key-" + base64.b64encode(decoded + b"&Version=2").decode(),
        short_term(NOW + timedelta(minutes=6), credentials),
        short_term(NOW, Credentials(key.id, "wrong")),
        short_term(NOW, Credentials("nobody", "wrong")),
        short_term(NOW, revoked_credentials), revoked_token,
    ]  # fmt: skip
    for bearer in wrong:
        refuse_bearer(world, bearer)
    world.bearer(good)


def refuse_bearer(world: World, token: str) -> None:
    with pytest.raises(ApiError) as caught:
        world.bearer(token)
    assert caught.value.kind.code == "AccessDeniedException"
    assert caught.value.message == "Authentication failed: Please make sure your API Key is valid."
