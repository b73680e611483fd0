"""Logs as JSON."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from demo import PATH
from serving import ANY_MODEL, serving


def test_json_logs_have_the_id_that_the_client_was_given_and_nothing_that_was_said(tmp_path: Path) -> None:
    config = tmp_path / "outcrop.toml"
    config.write_text(
        '[telemetry]\nlog_format = "json"\n'
        f'[[models]]\npath = "{PATH}"\nbackend = "fake"\nmax_model_len = 64\n'
    )
    with serving(tmp_path, "--config", str(config)) as server, closing(server.client()) as client:
        messages = [{"role": "user", "content": [{"text": "canary"}]}]
        answer = client.converse(modelId=ANY_MODEL, messages=messages, inferenceConfig={"maxTokens": 5})
        said = answer["output"]["message"]["content"][0]["text"]
        lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
    (line,) = [
        each for each in lines if each["logger"] == "outcrop.access" and each["operation"] == "Converse"
    ]
    assert line["request_id"] == answer["ResponseMetadata"]["RequestId"]
    assert (line["status"], line["level"]) == (200, "info")
    assert 0 < line["seconds"] < 60
    text = json.dumps(lines)
    assert "canary" not in text
    assert not said.strip() or said not in text
    assert any(each["message"].startswith("engine ready") for each in lines)
