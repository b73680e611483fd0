"""`outcrop serve` with keys, as an operator meets it."""

from __future__ import annotations

import io
import shlex
import subprocess
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from demo import PATH
from serving import ANY_MODEL, COMMAND, PATIENCE, environment, serving

from outcrop.cli.display import Display
from outcrop.http_server import build_key_ring
from outcrop.ledger.database import Database
from outcrop.settings import load_key_settings

HELLO: Any = {
    "modelId": ANY_MODEL,
    "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
    "inferenceConfig": {"maxTokens": 2},
}


def outcrop(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, env=environment(**variables)
    )


def test_from_no_key_to_a_call(tmp_path: Path) -> None:
    home = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with serving(tmp_path, "--backend", "fake", "--auth", "required", **home) as server:
        assert "no key exists yet: nobody can call this server" in server.output
        assert httpx.get(f"{server.url}/metrics").status_code == 403
        with pytest.raises(ClientError, match="security token included in the request is invalid"):
            server.client().converse(**HELLO)
        made = outcrop("keys", "create", **home).stdout
        key = dict(shlex.split(line)[1].split("=", 1) for line in made.splitlines())
        client = boto3.client(
            "bedrock-runtime",
            endpoint_url=server.url,
            region_name="eu-west-1",
            aws_access_key_id=key["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        assert client.converse(**HELLO)["usage"]["outputTokens"] == 2
        answer = httpx.get(
            f"{server.url}/metrics", headers={"authorization": f"Bearer {key['AWS_BEARER_TOKEN_BEDROCK']}"}
        )
        assert answer.status_code == 200
        for secret in list(key.values())[1:]:
            assert secret not in server.output


def test_auth_off_is_refused_where_strangers_call() -> None:
    done = outcrop("serve", "--model", str(PATH), "--host", "0.0.0.0", "--auth", "off")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("outcrop: --auth: off would let everybody who reaches 0.0.0.0 call")
    assert len(done.stderr.splitlines()) == 1


def test_keys_that_cannot_be_read(tmp_path: Path) -> None:
    keys = tmp_path / "outcrop" / "keys.json"
    keys.parent.mkdir()
    keys.write_text("{")
    options = ("serve", "--model", str(PATH), "--backend", "fake", "--auth", "required", "--port", "0")
    done = outcrop(*options, XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"outcrop: {keys}: ")
    assert "Traceback" not in done.stderr


def test_access_keys_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = tmp_path / "outcrop.toml"
    config.write_text(
        '[[auth.credentials]]\naccess_key_id = "AKIDEXAMPLE"\nsecret_env = "EXAMPLE_SECRET"\n'
        'name = "shop"\ntenant = "t"\nmodels = ["meta.*"]\nrpm = 5\n'
    )
    auth, database = load_key_settings(config).auth, Database(None)
    with pytest.raises(ValueError, match="AKIDEXAMPLE is to be in the environment variable EXAMPLE_SECRET"):
        build_key_ring(auth, database)
    monkeypatch.setenv("EXAMPLE_SECRET", "s3cret")
    ring = build_key_ring(auth, database)
    assert not ring.empty(0)
    candidate = ring.signer("AKIDEXAMPLE", None, 0)
    grant: Any = candidate.grant
    assert (candidate.secret, grant.name, grant.tenant, grant.rpm, grant.tpm) == (
        "s3cret",
        "shop",
        "t",
        5,
        None,
    )
    assert len(grant.policy.statements) == 2


@pytest.mark.parametrize("access", ["keys", "no keys"])
def test_what_is_printed_where_a_key_is_needed(access: Any) -> None:
    out = io.StringIO()
    Display(out).ready("0.0.0.0", 80, "us-east-1", None, access=access, scheme="https")
    text = out.getvalue()
    assert 'eval "$(outcrop keys create)"' in text
    assert ("no key exists yet" in text) is (access == "no keys")
    assert "local" not in text
    assert '-H "Authorization: Bearer $AWS_BEARER_TOKEN_BEDROCK"' in text
    assert 'endpoint_url="https://127.0.0.1:80", region_name="us-east-1")' in text
