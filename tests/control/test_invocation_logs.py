"""Invocation logs as boto3 configures them, in moto's S3 and in a folder."""

from __future__ import annotations

import gzip
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError
from s3_server import CREDENTIALS, s3_server

from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.invocation_log import delivery
from outcrop.api.job_runner import JobOptions
from outcrop.ledger.database import Database
from outcrop.storage import Storage

from ..api.doubles import Script, ScriptedEngine
from ..api.server import Server, eventually, running
from ..conformance.causes import keyed
from .conftest import client_of

MODEL = "meta.llama3-8b-instruct-v1:0"
QUESTION: list[Any] = [{"role": "user", "content": [{"text": "Hi"}]}]
BUCKET = "logs"
Record = dict[str, Any]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Its name is short enough for a bucket's."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def control(folder: Path) -> ControlOptions:
    return ControlOptions(Storage(folder), JobOptions(side_by_side=0), log_seconds=0)


@pytest.fixture
def server(control: ControlOptions) -> Iterator[Server]:
    with running(ScriptedEngine(), demo=False, control=control) as server:
        yield server


@pytest.fixture
def bedrock(server: Server) -> Any:
    return client_of(server.url, "bedrock")


def put(bedrock: Any, folder: Path, **more: Any) -> None:
    place = {"bucketName": f"file://{folder}", "keyPrefix": "p"}
    bedrock.put_model_invocation_logging_configuration(loggingConfig={"s3Config": place} | more)


def files(folder: Path) -> list[str]:
    """Those of logs and bodies, below the prefix."""
    found = (path.relative_to(folder).as_posix() for path in (folder / "p").rglob("*.json.gz"))
    return sorted(found)


def records(folder: Path, count: int) -> list[Record]:
    """So many, once they are there, by the order in which they came."""

    def read() -> list[Record]:
        names = [name for name in files(folder) if "/data/" not in name]
        return [
            json.loads(line)
            for name in names
            for line in gzip.decompress((folder / name).read_bytes()).splitlines()
        ]

    eventually(lambda: len(read()) >= count)
    return read()


def record(folder: Path) -> Record:
    (only,) = records(folder, 1)
    return only


# -- what is written -------------------------------------------------------------------------------


def test_a_conversation_in_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as url:
        s3 = boto3.client("s3", endpoint_url=url)
        s3.create_bucket(Bucket=BUCKET)
        control = ControlOptions(Storage(None, url), JobOptions(side_by_side=0), log_seconds=0)
        with running(ScriptedEngine(), demo=False, control=control) as server:
            bedrock = client_of(server.url, "bedrock")
            config = {"s3Config": {"bucketName": BUCKET, "keyPrefix": "team/"}}
            bedrock.put_model_invocation_logging_configuration(loggingConfig=config)
            assert bedrock.get_model_invocation_logging_configuration()["loggingConfig"] == config
            answer = client_of(server.url, "bedrock-runtime").converse(
                modelId=f"us.{MODEL}", messages=QUESTION, requestMetadata={"team": "a"}
            )
        keys = [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
        base = "team/AWSLogs/000000000000/BedrockModelInvocationLogs"
        logs = [key for key in keys if key.endswith(".json.gz")]
        assert sorted(keys) == sorted([f"{base}/amazon-bedrock-logs-permission-check", *logs])
        written = gzip.decompress(s3.get_object(Bucket=BUCKET, Key=logs[0])["Body"].read())
    told = json.loads(written)
    hour = told["timestamp"][:13].replace("-", "/").replace("T", "/")
    assert logs[0].startswith(f"{base}/us-east-1/{hour}/")
    body = {"messages": QUESTION, "requestMetadata": {"team": "a"}}
    metadata = answer.pop("ResponseMetadata")
    assert told == {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": told["timestamp"],
        "accountId": "000000000000",
        "identity": {"arn": "arn:aws:iam::000000000000:user/local"},
        "region": "us-east-1",
        "requestId": metadata["RequestId"],
        "operation": "Converse",
        "modelId": f"us.{MODEL}",
        "input": {
            "inputContentType": "application/json",
            "inputBodyJson": body,
            "inputTokenCount": answer["usage"]["inputTokens"],
            "cacheReadInputTokenCount": 0,
            "cacheWriteInputTokenCount": 0,
        },
        "output": {
            "outputContentType": "application/json",
            "outputBodyJson": answer,
            "outputTokenCount": answer["usage"]["outputTokens"],
        },
        "requestMetadata": {"team": "a"},
    }


TOOLS = {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}]}


def test_a_stream_is_told_as_an_answer(server: Server, bedrock: Any, folder: Path) -> None:
    server.engine.script = Script(pieces=(b"Well", b", ", b'{"name": "f", "parameters": {"a": 1}}'))
    put(bedrock, folder)
    body = {"messages": QUESTION, "toolConfig": TOOLS}
    httpx.post(f"{server.url}/model/{MODEL}/converse-stream", json=body).raise_for_status()
    whole = httpx.post(f"{server.url}/model/{MODEL}/converse", json=body).json()
    told = [each["output"]["outputBodyJson"] for each in records(folder, 2)]
    for answer in (*told, whole):
        del answer["metrics"]
        for block in answer["output"]["message"]["content"]:
            block.get("toolUse", {}).pop("toolUseId", None)
    assert told == [whole, whole]


def test_the_chunks_of_a_native_stream(server: Server, bedrock: Any, folder: Path) -> None:
    put(bedrock, folder)
    headers = {"x-amzn-bedrock-request-metadata": '{"a": "b"}'}
    httpx.post(
        f"{server.url}/model/{MODEL}/invoke-with-response-stream", json={"prompt": "Hi"}, headers=headers
    )
    told = record(folder)
    assert told["operation"] == "InvokeModelWithResponseStream"
    assert told["input"]["inputBodyJson"] == {"prompt": "Hi"}
    chunks = told["output"]["outputBodyJson"]
    assert "".join(chunk["generation"] for chunk in chunks) == "Hello, world"
    counts = chunks[-1]["amazon-bedrock-invocationMetrics"]
    assert told["input"]["inputTokenCount"] == counts["inputTokenCount"]
    assert told["output"]["outputTokenCount"] == counts["outputTokenCount"]
    assert told["requestMetadata"] == {"a": "b"}


@pytest.mark.parametrize(
    ("path", "operation", "stream"),
    [
        ("/openai/v1/chat/completions", "createChatCompletion", False),
        ("/openai/v1/chat/completions", "createChatCompletion", True),
        ("/anthropic/v1/messages", "createMessage", True),
    ],
)
def test_other_surfaces(
    server: Server, bedrock: Any, folder: Path, path: str, operation: str, stream: bool
) -> None:
    put(bedrock, folder)
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 50,
        "stream": stream,
    }
    httpx.post(server.url + path, json=body).raise_for_status()
    told = record(folder)
    assert (told["operation"], told["modelId"]) == (operation, MODEL)
    assert told["input"]["inputBodyJson"] == body
    assert told["output"]["outputTokenCount"] == len("Hello, world") + 1
    assert told["input"]["inputTokenCount"] > 0
    assert isinstance(told["output"]["outputBodyJson"], list) is stream


def test_large_bodies_are_objects_of_their_own(server: Server, bedrock: Any, folder: Path) -> None:
    server.engine.context = 1 << 20
    server.engine.script = Script(pieces=(b"a" * 100, b"b" * 110_000))
    put(bedrock, folder)
    prompt = "word " * 30_000
    httpx.post(f"{server.url}/model/{MODEL}/invoke", json={"prompt": prompt}).raise_for_status()
    told = record(folder)
    request_id = told["requestId"]
    bodies = [name for name in files(folder) if "/data/" in name]
    assert [name.rpartition("/")[2] for name in bodies] == [
        f"{request_id}_input.json.gz",
        f"{request_id}_output.json.gz",
    ]
    source, answer = (json.loads(gzip.decompress((folder / name).read_bytes())) for name in bodies)
    assert told["input"]["inputBodyS3Path"] == f"file://{folder}/{bodies[0]}"
    assert told["output"]["outputBodyS3Path"] == f"file://{folder}/{bodies[1]}"
    assert "inputBodyJson" not in told["input"]
    assert source == {"prompt": prompt}
    assert answer["generation"] == "a" * 100 + "b" * 110_000


def test_what_is_not_to_be_delivered(server: Server, bedrock: Any, folder: Path) -> None:
    runtime = client_of(server.url, "bedrock-runtime")
    document = {"name": "d", "format": "txt", "source": {"bytes": b"Some words."}}
    question = [{"role": "user", "content": [{"text": "Hi"}, {"document": document}]}]
    for switch in ("imageDataDeliveryEnabled", "textDataDeliveryEnabled"):
        put(bedrock, folder, **{switch: False})
        runtime.converse(modelId=MODEL, messages=question)
    without_document, without_text = records(folder, 2)
    content = without_document["input"]["inputBodyJson"]["messages"][0]["content"]
    assert content == [{"text": "Hi"}, {"document": {"name": "d", "format": "txt", "source": {}}}]
    assert without_text["input"].keys() >= {"inputContentType", "inputTokenCount"}
    assert "inputBodyJson" not in without_text["input"]
    assert "outputBodyJson" not in without_text["output"]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (Script(error=RuntimeError("a defect")), "InternalServerException"),
        (Script(error=RuntimeError("a defect"), fail_after=1), "InternalServerException"),
    ],
)
def test_errors(server: Server, bedrock: Any, folder: Path, script: Script, code: str) -> None:
    server.engine.script = script
    put(bedrock, folder)
    httpx.post(f"{server.url}/model/{MODEL}/converse-stream", json={"messages": QUESTION})
    assert record(folder)["errorCode"] == code


def test_a_body_that_is_no_json(server: Server, bedrock: Any, folder: Path) -> None:
    put(bedrock, folder)
    httpx.post(f"{server.url}/model/{MODEL}/converse", content=b'{"a"')
    told = record(folder)
    assert told["errorCode"] == "SerializationException"
    assert told["input"]["inputBodyJson"] == '{"a"'


# -- when it is written ----------------------------------------------------------------------------


def test_nothing_without_a_configuration(server: Server, bedrock: Any, folder: Path) -> None:
    runtime = client_of(server.url, "bedrock-runtime")
    assert "loggingConfig" not in bedrock.get_model_invocation_logging_configuration()
    runtime.converse(modelId=MODEL, messages=QUESTION)
    put(bedrock, folder)
    bedrock.delete_model_invocation_logging_configuration()
    runtime.converse(modelId=MODEL, messages=QUESTION)
    put(bedrock, folder)
    answer = runtime.converse(modelId=MODEL, messages=QUESTION)
    assert record(folder)["requestId"] == answer["ResponseMetadata"]["RequestId"]


def test_a_configuration_outlives_the_server(control: ControlOptions, folder: Path) -> None:
    state = str(folder / "state.db")
    for _ in range(2):
        with running(ScriptedEngine(), demo=False, control=control, database=Database(state)) as server:
            bedrock = client_of(server.url, "bedrock")
            if not bedrock.get_model_invocation_logging_configuration().get("loggingConfig"):
                put(bedrock, folder)
            client_of(server.url, "bedrock-runtime").converse(modelId=MODEL, messages=QUESTION)
    assert len(records(folder, 2)) == 2


def test_a_configuration_of_another_server(control: ControlOptions, folder: Path) -> None:
    state = str(folder / "state.db")
    with (
        running(ScriptedEngine(), demo=False, control=control, database=Database(state)) as first,
        running(ScriptedEngine(), demo=False, control=control, database=Database(state)) as second,
    ):
        put(client_of(first.url, "bedrock"), folder)

        def logged() -> bool:
            client_of(second.url, "bedrock-runtime").converse(modelId=MODEL, messages=QUESTION)
            return bool(files(folder))

        eventually(logged)


def test_what_waits_is_written_at_the_end(folder: Path) -> None:
    control = ControlOptions(Storage(folder), JobOptions(side_by_side=0), log_seconds=3600)
    with running(ScriptedEngine(), demo=False, control=control) as server:
        put(client_of(server.url, "bedrock"), folder)
        for _ in range(3):
            client_of(server.url, "bedrock-runtime").converse(modelId=MODEL, messages=QUESTION)
        assert files(folder) == []
    assert len(files(folder)) == 1
    assert len(records(folder, 3)) == 3


# -- what cannot be --------------------------------------------------------------------------------


def refusal(bedrock: Any, config: dict[str, Any]) -> str:
    with pytest.raises(ClientError) as error:
        bedrock.put_model_invocation_logging_configuration(loggingConfig=config)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    return str(error.value)


def test_destinations_that_are_none(bedrock: Any, folder: Path) -> None:
    role = "arn:aws:iam::000000000000:role/logs"
    watch = {"cloudWatchConfig": {"logGroupName": "a", "roleArn": role}}
    assert "Remove cloudWatchConfig" in refusal(bedrock, watch)
    assert "Name a bucket in s3Config" in refusal(bedrock, {})
    assert "names no place" in refusal(bedrock, {"s3Config": {"bucketName": "No_Bucket"}})
    assert "names no place" in refusal(bedrock, {"s3Config": {"bucketName": "logs", "keyPrefix": "a\0"}})
    assert "is not in" in refusal(bedrock, {"s3Config": {"bucketName": "file:///etc"}})
    (folder / "p").touch()
    config = {"s3Config": {"bucketName": f"file://{folder}", "keyPrefix": "p"}}
    assert f"file://{folder}/p" in refusal(bedrock, config)
    assert "loggingConfig" not in bedrock.get_model_invocation_logging_configuration()


def dropped(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    name = 'outcrop_invocation_log_records_total{outcome="dropped"} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def test_a_destination_that_fails_later(
    server: Server,
    bedrock: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(delivery, "_PAUSES", (0.01,))
    put(bedrock, folder)
    (folder / "p").rename(folder / "away")
    (folder / "p").touch()
    with caplog.at_level(logging.WARNING):
        answer = client_of(server.url, "bedrock-runtime").converse(modelId=MODEL, messages=QUESTION)
        assert answer["stopReason"] == "end_turn"
        eventually(lambda: dropped(server) == 1)
    messages = [each.getMessage() for each in caplog.records if each.name == delivery.__name__]
    assert [each.partition(":")[0] for each in messages] == [
        "invocation logs are not delivered yet",
        "the logs of 1 invocations are lost",
    ]


def test_more_than_may_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "MOST_WAITING", 500)
    control = ControlOptions(Storage(folder), JobOptions(side_by_side=0), log_seconds=3600)
    with running(ScriptedEngine(), demo=False, control=control) as server:
        put(client_of(server.url, "bedrock"), folder)
        for _ in range(4):
            client_of(server.url, "bedrock-runtime").converse(modelId=MODEL, messages=QUESTION)
        lost = dropped(server)
    assert 0 < lost < 4
    assert len(records(folder, 1)) == 4 - lost
    assert len([each for each in caplog.records if "wait to be delivered" in each.getMessage()]) == 1


def test_who_may_configure_it() -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "bedrock:*", "Resource": "*"},
            {"Effect": "Deny", "Action": "bedrock:PutModelInvocation*", "Resource": "*"},
        ],
    }
    with keyed(policy=policy) as (http, headers):
        body = {"loggingConfig": {"s3Config": {"bucketName": "logs"}}}
        assert http.put("/logging/modelinvocations", json=body, headers=headers).status_code == 403
        assert http.get("/logging/modelinvocations", headers=headers).status_code == 200
