"""The calls that `outcrop serve` prints when it is ready work as they are printed."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterator

import boto3
import httpx
import pytest

from outcrop.api.admission import ApiLimits
from outcrop.cli.display import Display

from ..api.doubles import ScriptedEngine
from ..api.server import Server, running

ODD_ID = 'my team\'s "llama" 100%/v1'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(ScriptedEngine(), demo=False, aliases=("llama", ODD_ID)) as server:
        yield server


def printed(host: str, port: int, model: str | None) -> tuple[str, str, str]:
    """The three calls: Python, and two for a shell."""
    out = io.StringIO()
    Display(out).ready(host, port, "eu-west-1", model)
    python, aws, curl = [block.partition("\n")[2] for block in out.getvalue().split("\n# ")[1:]]
    return python, aws, curl


def words(command: str) -> list[str]:
    """A command as a shell splits it; `shlex` knows no line continuation."""
    return shlex.split(command.replace("\\\n", ""))


@pytest.mark.parametrize("model", ["llama", ODD_ID])
def test_python(server: Server, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    python, _, _ = printed("127.0.0.1", server.port, model)
    variables: dict[str, object] = {}
    exec(compile(python, "pasted", "exec"), variables)
    variables["client"].close()  # type: ignore[attr-defined]
    assert capsys.readouterr().out == "Hello, world"


@pytest.mark.parametrize("model", ["llama", ODD_ID])
def test_aws_cli(server: Server, model: str) -> None:
    _, aws, _ = printed("127.0.0.1", server.port, model)
    key, secret, *command = words(aws)
    assert (key, secret) == ("AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local")
    assert command[:3] == ["aws", "bedrock-runtime", "converse"]
    options = dict(zip(command[3::2], command[4::2], strict=True))
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=options.pop("--endpoint-url"),
        region_name=options.pop("--region"),
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    answer = client.converse(
        modelId=options.pop("--model-id"), messages=json.loads(options.pop("--messages"))
    )
    client.close()
    assert answer["output"]["message"]["content"] == [{"text": "Hello, world"}]
    assert options == {}


@pytest.mark.parametrize("model", ["llama", ODD_ID])
def test_curl(server: Server, model: str) -> None:
    assert_curl_works(server, model)


def test_in_strict_mode() -> None:
    with running(ScriptedEngine(), limits=ApiLimits(strict=True)) as server:
        assert_curl_works(server, None)


def assert_curl_works(server: Server, model: str | None) -> None:
    _, _, curl = printed("127.0.0.1", server.port, model)
    program, quiet, url, *options = words(curl)
    assert (program, quiet) == ("curl", "-sS")
    given = dict(zip(options[::2], options[1::2], strict=True))
    name, _, value = given["-H"].partition(": ")
    answer = httpx.post(url, content=given["-d"], headers={name: value})
    assert answer.json()["output"]["message"]["content"] == [{"text": "Hello, world"}]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
        ("fd00::1", "http://[fd00::1]:8080"),
        ("models.example", "http://models.example:8080"),
    ],
)
def test_the_url_is_one_to_connect_to(host: str, url: str) -> None:
    out = io.StringIO()
    Display(out).ready(host, 8080, "us-east-1", None)
    assert f"Outcrop is ready on {url}\n" in out.getvalue()
    for call in printed(host, 8080, None):
        assert f"{url}/" in call or f"{url} " in call or f'{url}"' in call
        assert "us.meta.llama3-1-8b-instruct-v1:0" in call
