"""The clients, and how their programs are run: each in an environment of its own, apart from the server's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from . import cases

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".venv-clients"
PATIENCE = 300.0


@dataclass(frozen=True)
class Client:
    """name: for people. program: what runs. environment: whose interpreter runs it: "server", the one of
    these tests; "python" or "async", those of `make clients`; or "node". lacks: calls that the client does
    not have, or not for this model. errors: the exception that a refused call raises in the user's program.
    own_words: calls whose prompt the client words itself. from_environment: whether the endpoint is given
    as AWS_ENDPOINT_URL alone."""

    name: str
    program: str
    environment: str
    lacks: frozenset[str]
    errors: Mapping[str, str]
    own_words: frozenset[str] = frozenset()
    from_environment: bool = False
    checks: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        everything = (*cases.EXPECTATIONS, *cases.MESSAGES)
        object.__setattr__(self, "checks", tuple(each for each in everything if each not in self.lacks))


def _client(
    name: str, program: str, environment: str, *, lacks: str = "", own_words: str = "",
    unknown_model: str, overlong: str, throttled: str, denied: str, from_environment: bool = False,
) -> Client:  # fmt: skip
    return Client(
        name,
        program,
        environment,
        frozenset(lacks.split()),
        {
            "unknown_model": unknown_model,
            "overlong": overlong,
            "throttled": throttled,
            "denied": denied,
        },
        frozenset(own_words.split()),
        from_environment,
    )


CLIENTS = (
    _client(
        "boto3", "with_boto3.py", "server", lacks="structured_by_tool agent", from_environment=True,
        unknown_model="ValidationException", overlong="ValidationException",
        throttled="ThrottlingException", denied="ClientError",
    ),
    _client(
        "aioboto3", "with_aioboto3.py", "async", lacks="structured structured_by_tool agent",
        from_environment=True, unknown_model="ValidationException", overlong="ValidationException",
        throttled="ThrottlingException", denied="ClientError",
    ),
    _client(
        "AWS CLI", "with_aws_cli.py", "python", from_environment=True,
        lacks="stream native_stream tool_stream structured_by_tool agent",
        unknown_model="CommandFailed", overlong="CommandFailed", throttled="CommandFailed",
        denied="CommandFailed",
    ),
    _client(
        "AWS SDK for JavaScript", "with_aws_sdk.mjs", "node", lacks="structured_by_tool agent",
        unknown_model="ValidationException", overlong="ValidationException",
        throttled="ThrottlingException", denied="BedrockRuntimeServiceException",
    ),
    _client(
        "Vercel AI SDK", "with_vercel_ai.mjs", "node",
        lacks="structured agent native native_stream count models",
        unknown_model="AI_APICallError", overlong="AI_APICallError", throttled="AI_APICallError",
        denied="AI_APICallError",
    ),
    _client(
        "LangChain", "with_langchain.py", "python", lacks="agent count models",
        own_words="native native_stream",
        unknown_model="ValidationException", overlong="ContextOverflowError",
        throttled="ThrottlingException", denied="ClientError",
    ),
    _client(
        "LiteLLM", "with_litellm.py", "python", lacks="structured_by_tool agent count models",
        own_words="native native_stream", unknown_model="BadRequestError", overlong="BadRequestError",
        throttled="RateLimitError", denied="APIError",
    ),
    _client(
        "Strands Agents", "with_strands.py", "python",
        lacks="structured_by_tool native native_stream models", unknown_model="ValidationException",
        overlong="ContextWindowOverflowException", throttled="ModelThrottledException",
        denied="ClientError",
    ),
    _client(
        "LlamaIndex", "with_llama_index.py", "async",
        # It sends no model id that is not on its list, so none that asks for a fault.
        lacks="stop structured agent native native_stream count models throttled",
        unknown_model="ValidationException", overlong="ValidationException",
        throttled="ThrottlingException", denied="ClientError",
    ),
    _client(
        "pydantic-ai", "with_pydantic_ai.py", "python", lacks="native native_stream models",
        unknown_model="ModelNotFoundError", overlong="ModelHTTPError", throttled="ModelHTTPError",
        denied="ModelHTTPError",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a program printed. versions: of its packages. results: what came back from each check."""

    versions: Mapping[str, str]
    transport: str
    results: Mapping[str, Mapping[str, Any]]


def interpreter(environment: str) -> str:
    """What runs the programs of an environment. Skips the test where it is not installed."""
    if environment == "server":
        return sys.executable
    if environment == "node":
        node = which("node")
        if node is None:
            pytest.skip("Node.js is not installed")
        if not (HERE / "js" / "node_modules").is_dir():
            pytest.skip("the JavaScript clients are not installed: make clients")
        return node
    python = ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"the client environment {python.parent.parent} is not installed: make clients")
    return str(python)


def variables(credentials: Mapping[str, str]) -> dict[str, str]:
    """The process environment of a client: nothing of the tests', and no AWS configuration of the user."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return kept | {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        **credentials,
    }


def run(client: Client, url: str, credentials: Mapping[str, str], checks: Sequence[str]) -> Outcome:
    """Run a client's program with these credentials, and read what it prints."""
    folder = "js" if client.environment == "node" else "scripts"
    endpoint = {"AWS_ENDPOINT_URL": url} if client.from_environment else {}
    done = subprocess.run(
        [interpreter(client.environment), str(HERE / folder / client.program), cases.task(url, checks)],
        env=variables(credentials) | endpoint,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))
