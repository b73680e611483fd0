"""A running server that asks who is calling: real clients over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
import httpx
import openai
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from starlette.routing import Route

from outcrop.api.admission import ApiLimits
from outcrop.api.auth.authenticator import Authenticator, utc_now
from outcrop.api.auth.keyring import KeyRing
from outcrop.api.auth.keys import KeyStore
from outcrop.api.auth.middleware import PUBLIC_PATHS
from outcrop.api.auth.policy import models_policy
from outcrop.api.auth.session import new_session
from outcrop.engine.client import EngineUnavailable

from ..api.doubles import Script, ScriptedEngine
from ..api.server import Server, eventually, running
from .world import STATIC, short_term, signed

MODEL = "meta.llama3-8b-instruct-v1:0"
CONVERSE = f"/model/{MODEL}/converse"
HELLO = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
BODY = json.dumps(HELLO).encode()
COMPLETION = json.dumps({"model": MODEL, "prompt": "Hi"}).encode()
CHAT = json.dumps({"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}).encode()
BODIES = {
    "/openai/v1/completions": COMPLETION,
    "/openai/v1/chat/completions": CHAT,
    "/openai/v1/responses": json.dumps({"model": MODEL, "input": "Hi"}).encode(),
    "/anthropic/v1/messages": CHAT,
    "/anthropic/v1/messages/count_tokens": json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    ).encode(),
}
"""Of calls whose model is known by their body alone."""
DENY_ALL = {"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore(tmp_path_factory.mktemp("state") / "keys.json")


def guarded(store: KeyStore) -> Authenticator:
    return Authenticator(KeyRing(store, [STATIC]), region=None, now=utc_now, clock=lambda: 0.0)


@pytest.fixture(scope="module")
def shared_server(shared_store: KeyStore) -> Iterator[Server]:
    limits = ApiLimits(max_body_bytes=100_000)
    with running(ScriptedEngine(), limits=limits, authenticator=guarded(shared_store)) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    shared_server.engine.script = Script()
    shared_server.engine.requests.clear()
    return shared_server


@pytest.fixture(params=["http/1.1", "h2c"])
def http(server: Server, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    h2c = request.param == "h2c"
    with httpx.Client(base_url=server.url, http1=not h2c, http2=h2c, timeout=20) as client:
        yield client


class Caller:
    """A key and the ways to call with it."""

    def __init__(self, store: KeyStore, **fields: Any) -> None:
        self.store = store
        self.key, self.bearer = store.create(datetime.now(UTC).timestamp(), **fields)
        self.credentials = Credentials(self.key.id, store.master().secret_access_key(self.key.id))

    @property
    def token(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.bearer}"}

    def boto3(self, server: Server, service: str = "bedrock-runtime") -> Any:
        return client(server, self.credentials, service)


def client(server: Server, credentials: Credentials, service: str = "bedrock-runtime") -> Any:
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        aws_session_token=credentials.token,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def caller(shared_store: KeyStore) -> Caller:
    return Caller(shared_store, name="me", tenant="team")


def sign(
    server: Server, credentials: Credentials, method: str, path: str, body: bytes = b"", **headers: str
) -> dict[str, str]:
    request = AWSRequest(method, server.url + path, headers=headers, data=body)
    SigV4Auth(credentials, "bedrock", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def error(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["x-amzn-requestid"]
    assert isinstance(message(answer), str)
    return answer.status_code, answer.headers["x-amzn-errortype"]


def message(answer: httpx.Response) -> Any:
    """An error's words: AWS puts them elsewhere than OpenAI and Anthropic do."""
    body = answer.json()
    nested = answer.url.path.startswith(("/openai/", "/anthropic/"))
    return body["error"]["message"] if nested else body["message"]


# -- nobody is let in by default -------------------------------------------------------------------


def every_call(server: Server) -> list[tuple[str, str]]:
    """Method and path of every route there is, HEAD apart: its answers have no body to look at."""
    calls = []
    for route in server.app.routes:
        assert isinstance(route, Route)
        path = re.sub(r"\{[^}]+\}", MODEL, route.path)
        calls += [(method, path) for method in sorted(route.methods or ()) if method != "HEAD"]
    expected = {("GET", "/metrics"), ("GET", "/foundation-models"), ("POST", CONVERSE)}
    assert expected | {("POST", "/openai/v1/completions"), ("GET", "/openai/v1/models")} < set(calls)
    return calls


def test_only_health_answers_without_credentials(server: Server, http: httpx.Client) -> None:
    answered = set()
    for method, path in every_call(server):
        answer = http.request(method, path, content=b"")
        if answer.status_code == 200:
            answered.add(path)
        else:
            assert error(answer) == (403, "MissingAuthenticationTokenException")
    assert answered == {"/health/live", "/health/ready"}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/nothing",
        "/health",
        "/health/live/",
        "//health/live",
        "/health/live/../metrics",
    ],
)
def test_no_other_path_answers_either(http: httpx.Client, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "TRACE"):
        assert error(http.request(method, path)) == (403, "MissingAuthenticationTokenException")


def test_a_key_that_may_nothing_gets_nowhere(
    server: Server, http: httpx.Client, shared_store: KeyStore
) -> None:
    nobody = Caller(shared_store, policy=DENY_ALL)
    for method, path in every_call(server):
        if path in PUBLIC_PATHS:
            continue
        body = BODIES.get(path, b"")
        headers = sign(server, nobody.credentials, method, path, body)
        answer = http.request(method, path, content=body, headers=headers)
        assert error(answer) == (403, "AccessDeniedException"), (method, path)
        assert "with an explicit deny in an identity-based policy" in message(answer)
    assert error(http.get("/metrics", headers=nobody.token)) == (403, "AccessDeniedException")


def test_unauthenticated_calls_cost_no_engine_and_no_memory(server: Server, http: httpx.Client) -> None:
    """A stranger's body is not kept, however large; one with a signature to check is, up to the limit."""
    assert error(http.post(CONVERSE, content=b"x" * 399_000)) == (403, "MissingAuthenticationTokenException")
    nobody = Credentials("OUTCNOBODY", "x")
    for size, code in [(100_000, (403, "UnrecognizedClientException")),
                       (100_001, (413, "RequestEntityTooLargeException"))]:  # fmt: skip
        body = b"x" * size
        headers = sign(server, nobody, "POST", CONVERSE, body)
        assert error(http.post(CONVERSE, content=body, headers=headers)) == code
    native = CONVERSE.replace("converse", "invoke")
    headers = sign(server, nobody, "POST", native, b"x" * 100_001)
    assert error(http.post(native, content=b"x" * 100_001, headers=headers)) == (400, "ValidationException")
    assert server.engine.requests == []


# -- who is let in -----------------------------------------------------------------------------------


def test_boto3(server: Server, caller: Caller) -> None:
    runtime = caller.boto3(server)
    answer = runtime.converse(modelId=MODEL, **HELLO)
    assert answer["output"]["message"]["content"][0]["text"] == "Hello, world"
    stream = runtime.converse_stream(modelId=f"us.{MODEL}", **HELLO)["stream"]
    assert "Hello, world" in "".join(
        event["contentBlockDelta"]["delta"]["text"] for event in stream if "contentBlockDelta" in event
    )
    native = json.dumps({"prompt": "Hi"})
    arn = f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"
    for model in (MODEL, arn):
        assert b"Hello, world" in runtime.invoke_model(modelId=model, body=native)["body"].read()
    models = caller.boto3(server, "bedrock").list_foundation_models(byProvider="Meta AI")
    assert models["modelSummaries"] == []


@pytest.mark.parametrize("kind", ["static", "session"])
def test_boto3_with_other_credentials(server: Server, caller: Caller, kind: str) -> None:
    if kind == "static":
        credentials = Credentials(STATIC.grant.key_id, STATIC.secret)
    else:
        until = int(datetime.now(UTC).timestamp()) + 60
        made = new_session(caller.key.id, until, caller.store.master())
        credentials = Credentials(made.access_key_id, made.secret_access_key, made.session_token)
    answer = client(server, credentials).converse(modelId=MODEL, **HELLO)
    assert answer["output"]["message"]["content"][0]["text"] == "Hello, world"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, with its key, both in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = path.with_name("key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "1", "-subj", "/CN=outcrop", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", path],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


def test_api_keys_over_https(
    shared_store: KeyStore, caller: Caller, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The AWS SDKs send API keys over HTTPS alone; a signature holds there as well."""
    with running(ScriptedEngine(), authenticator=guarded(shared_store), certificate=certificate) as server:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        answers = [caller.boto3(server).converse(modelId=MODEL, **HELLO)]
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", caller.bearer)
        answers.append(client(server, Credentials("x", "y")).converse(modelId=MODEL, **HELLO))
        short = short_term(datetime.now(UTC), caller.credentials)
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", short)
        answers.append(client(server, Credentials("x", "y")).converse(modelId=MODEL, **HELLO))
        for answer in answers:
            assert answer["output"]["message"]["content"][0]["text"] == "Hello, world"
        with httpx.Client(verify=ssl.create_default_context(cafile=certificate), http2=True) as http:
            answer = http.get(f"{server.url}/metrics", headers=caller.token)
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", short[:-8])
        with pytest.raises(ClientError, match="Please make sure your API Key is valid"):
            client(server, Credentials("x", "y")).converse(modelId=MODEL, **HELLO)


def test_openai_s_client_uses_api_keys(server: Server, caller: Caller, shared_store: KeyStore) -> None:
    """What its policy says of the model that a body names holds, streaming or not."""
    hello = {"model": MODEL, "prompt": "Hi"}
    with openai.OpenAI(base_url=f"{server.url}/openai/v1", api_key=caller.bearer) as client:
        assert client.completions.create(**hello).choices[0].text == "Hello, world"
    other = Caller(shared_store, policy=models_policy(["mistral.*"]))
    with openai.OpenAI(base_url=f"{server.url}/openai/v1", api_key=other.bearer) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        for stream in (False, True):
            with pytest.raises(openai.PermissionDeniedError, match="not authorized to perform") as refused:
                client.completions.create(**hello, stream=stream)
            assert refused.value.code == "AccessDeniedException"


def test_refusals_reach_boto3_as_exceptions(server: Server, caller: Caller) -> None:
    wrong = {
        "UnrecognizedClientException": Credentials("OUTCNOBODY", "x"),
        "InvalidSignatureException": Credentials(caller.key.id, "x"),
    }
    for code, credentials in wrong.items():
        with pytest.raises(ClientError) as caught:
            client(server, credentials).converse(modelId=MODEL, **HELLO)
        assert caught.value.response["Error"]["Code"] == code
    runtime = Caller(caller.store, policy=models_policy(["mistral.*"])).boto3(server)
    with pytest.raises(runtime.exceptions.AccessDeniedException, match="not authorized to perform"):
        runtime.converse(modelId=MODEL, **HELLO)


@pytest.mark.parametrize(
    ("path", "status"),
    {
        CONVERSE: 200,
        CONVERSE.replace(":", "%3A"): 200,
        # What a signature normalizes is still not the name of a model.
        CONVERSE.replace("/meta", "/./x/..//meta"): 400,
    }.items(),
)
def test_signed_over_both_protocols(
    server: Server, http: httpx.Client, caller: Caller, path: str, status: int
) -> None:
    """Over HTTP/2 the signed host is what came as `:authority`."""
    raw = httpx.URL(server.url).copy_with(raw_path=path.encode())  # as it is, dots and all
    headers = sign(server, caller.credentials, "POST", path, BODY, **{"content-type": "application/json"})
    assert http.post(raw, content=BODY, headers=headers).status_code == status
    tampered = http.post(raw, content=BODY + b" ", headers=headers)
    assert error(tampered) == (403, "InvalidSignatureException")


def test_the_authority_is_signed_by_its_own_name(server: Server, caller: Caller) -> None:
    """As the AWS SDK for JavaScript does it."""
    authority = server.url.removeprefix("http://")
    with httpx.Client(base_url=server.url, http1=False, http2=True) as http:
        request = AWSRequest("POST", server.url + CONVERSE, data=BODY, headers={":authority": authority})

        class Signer(SigV4Auth):
            def headers_to_sign(self, request: AWSRequest) -> Any:
                found = super().headers_to_sign(request)
                del found["host"]
                return found

        Signer(caller.credentials, "bedrock", "us-east-1").add_auth(request)
        headers = {name: value for name, value in request.headers.items() if name != ":authority"}
        assert "SignedHeaders=:authority;x-amz-date," in headers["Authorization"]
        assert http.post(CONVERSE, content=BODY, headers=headers).status_code == 200
        headers["Authorization"] = headers["Authorization"].replace("=:authority;", "=")
        assert error(http.post(CONVERSE, content=BODY, headers=headers)) == (403, "InvalidSignatureException")


def test_presigned(server: Server, http: httpx.Client, caller: Caller) -> None:
    sent = signed(
        datetime.now(UTC), caller.credentials, method="GET", url="/foundation-models?byProvider=Meta",
        headers=(("Host", server.url.removeprefix("http://")),), body=b"", presign=60,
    )  # fmt: skip
    target = f"{sent.path.decode()}?{sent.query.decode()}"
    assert http.get(target).json()["modelSummaries"]
    assert error(http.get(target.replace("Meta", "Meto"))) == (403, "InvalidSignatureException")


def test_every_answer_is_dated(http: httpx.Client) -> None:
    """Clients with a wrong clock set theirs by it."""
    date = parsedate_to_datetime(http.get("/metrics").headers["date"])
    assert abs(date - datetime.now(UTC)) < timedelta(minutes=5)


# -- keys that change while the server runs --------------------------------------------------------


def test_a_revoked_key_is_refused_at_once(server: Server, http: httpx.Client, caller: Caller) -> None:
    assert http.get("/foundation-models", headers=caller.token).status_code == 200
    caller.store.revoke(caller.key.id, 1)
    answer = http.get("/foundation-models", headers=caller.token)
    assert error(answer) == (403, "AccessDeniedException")
    assert answer.json()["message"] == "Authentication failed: Please make sure your API Key is valid."
    headers = sign(server, caller.credentials, "GET", "/foundation-models")
    assert error(http.get("/foundation-models", headers=headers)) == (403, "UnrecognizedClientException")


def test_a_server_that_began_without_keys(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "state" / "keys.json")
    authenticator = guarded(store)
    with running(ScriptedEngine(), authenticator=authenticator) as server, httpx.Client() as http:
        caller = Caller(store)
        assert http.get(f"{server.url}/metrics", headers=caller.token).status_code == 200
        headers = sign(server, caller.credentials, "GET", "/metrics")
        assert http.get(f"{server.url}/metrics", headers=headers).status_code == 200
        store.path.write_text("{")
        assert error(http.get(f"{server.url}/metrics", headers=caller.token)) == (
            403,
            "AccessDeniedException",
        )
        store.path.unlink()
        assert http.get(f"{server.url}/metrics", headers=caller.token).status_code == 403


def test_readiness_keeps_the_reason_of_a_failure_to_itself(shared_store: KeyStore) -> None:
    engine = ScriptedEngine(start_error=EngineUnavailable("/models/llama: out of memory"))
    with (
        running(engine, authenticator=guarded(shared_store), wait_ready=False) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        eventually(lambda: http.get("/health/ready").json()["models"] == {MODEL: "failed"})
