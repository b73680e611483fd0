"""The AWS CLI, version 1. It has no streaming commands. Its endpoint comes from the environment:
AWS_ENDPOINT_URL."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import Result, load_task, report
from wire import Requests, answered

AWS = str(Path(sys.executable).with_name("aws"))

task = load_task()
requests = Requests(task)


class CommandFailed(Exception):
    """`aws` ended with another status than 0."""


def aws(*words: str) -> Any:
    done = subprocess.run([AWS, *words, "--output", "json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailed(done.stderr.strip())
    return json.loads(done.stdout)


def converse(request: dict[str, Any]) -> Any:
    return aws("bedrock-runtime", "converse", "--cli-input-json", json.dumps(request))


def tool_result() -> Result:
    return answered(converse(requests.tool_result(converse(requests.tool_named()))))


def structured() -> Result:
    answer = answered(converse(requests.structured()))
    return answer | {"value": json.loads(answer["text"])}


def native() -> Result:
    """The CLI writes the body of the answer to a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.json"
        aws(
            "bedrock-runtime", "invoke-model", "--model-id", task["model"],
            "--body", json.dumps(requests.native()), str(path),
        )  # fmt: skip
        body = json.loads(path.read_text())
    usage = [body["prompt_token_count"], body["generation_token_count"]]
    return {"text": body["generation"], "usage": usage, "stop": body["stop_reason"]}


def count() -> Result:
    counted = aws("bedrock-runtime", "count-tokens", "--cli-input-json", json.dumps(requests.count()))
    return {"tokens": counted["inputTokens"]}


def models() -> Result:
    listed = aws("bedrock", "list-foundation-models")
    return {"models": [each["modelId"] for each in listed["modelSummaries"]]}


report(
    ("awscli",),
    {
        "plain": lambda: answered(converse(requests.plain())),
        "system": lambda: answered(converse(requests.system())),
        "stop": lambda: answered(converse(requests.stop())),
        "unknown_model": lambda: answered(converse(requests.unknown_model())),
        "overlong": lambda: answered(converse(requests.overlong())),
        "throttled": lambda: answered(converse(requests.throttled())),
        "tool_auto": lambda: answered(converse(requests.tool_auto())),
        "tool_any": lambda: answered(converse(requests.tool_any())),
        "tool_named": lambda: answered(converse(requests.tool_named())),
        "tool_result": tool_result,
        "structured": structured,
        "native": native,
        "count": count,
        "models": models,
    },
)
