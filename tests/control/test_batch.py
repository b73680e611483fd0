"""Batch jobs over moto's server as S3: what goes in comes out once, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from s3_server import CREDENTIALS, s3_server
from serving import eventually

from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.job_runner import JobOptions
from outcrop.storage import Storage

from ..api.server import Server, running
from ..conformance.engine import FakeEngine
from .conftest import client_of

MODEL = "meta.llama3-8b-instruct-v1:0"
ROLE = "arn:aws:iam::000000000000:role/batch"
ENDED = {"Completed", "Failed", "Stopped", "PartiallyCompleted", "Expired"}


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3_url)
    client.create_bucket(Bucket="jobs")
    yield client
    for each in client.list_objects_v2(Bucket="jobs").get("Contents", ()):
        client.delete_object(Bucket="jobs", Key=each["Key"])


@pytest.fixture
def server(s3: Any, s3_url: str, tmp_path: Path) -> Iterator[Server]:
    control = ControlOptions(Storage(tmp_path, s3_url), JobOptions(lease_seconds=1))
    with running(FakeEngine(), demo=False, control=control) as server:
        yield server


@pytest.fixture
def bedrock(server: Server) -> Any:
    return client_of(server.url, "bedrock")


def native(number: int, **more: Any) -> dict[str, Any]:
    return {
        "recordId": f"CALL{number:07}",
        "modelInput": {"prompt": f"Count to {number}", "max_gen_len": 3} | more,
    }


def lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def start(
    bedrock: Any, source: str = "s3://jobs/in/a.jsonl", target: str = "s3://jobs/out/", **more: Any
) -> str:
    made = bedrock.create_model_invocation_job(
        **{"jobName": "job", "roleArn": ROLE, "modelId": MODEL}
        | {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": source}}}
        | {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": target}}}
        | more
    )
    arn: str = made["jobArn"]
    return arn


def finished(bedrock: Any, arn: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(bedrock.get_model_invocation_job(jobIdentifier=arn))
        return found["status"] in ENDED

    eventually(ended)
    return found


def output(s3: Any, arn: str, name: str = "a.jsonl.out") -> list[dict[str, Any]]:
    body = s3.get_object(Bucket="jobs", Key=f"out/{arn.rpartition('/')[2]}/{name}")["Body"].read()
    return [json.loads(line) for line in body.decode().splitlines()]


def counts(job: dict[str, Any]) -> tuple[int, ...]:
    return tuple(job[f"{name}RecordCount"] for name in ("total", "processed", "success", "error"))


def test_native_bodies(bedrock: Any, s3: Any) -> None:
    records = [native(number) for number in range(40)]
    s3.put_object(Bucket="jobs", Key="in/a.jsonl", Body=lines(records))
    arn = start(bedrock)
    job = finished(bedrock, arn)
    assert job["status"] == "Completed", job
    assert counts(job) == (40, 40, 40, 0)
    assert job["endTime"] >= job["submitTime"]
    found = output(s3, arn)
    assert [(each["recordId"], each["modelInput"]) for each in found] == [
        (each["recordId"], each["modelInput"]) for each in records
    ]
    outputs = [each["modelOutput"] for each in found]
    # The model's draws may end a turn early.
    assert {each["generation_token_count"] for each in outputs if each["stop_reason"] == "length"} == {3}
    (manifest,) = output(s3, arn, "manifest.json.out")
    assert manifest == {
        "totalRecordCount": 40,
        "processedRecordCount": 40,
        "successRecordCount": 40,
        "errorRecordCount": 0,
        "inputTokenCount": sum(each["modelOutput"]["prompt_token_count"] for each in found),
        "outputTokenCount": sum(each["generation_token_count"] for each in outputs),
    }


def test_a_name_of_hyphens_is_refused_at_once(bedrock: Any) -> None:
    """A pattern that tries every way to cut them would hold up the whole server."""
    with pytest.raises(bedrock.exceptions.ValidationException):
        start(bedrock, jobName="a" + "-" * 61 + "!")
    with pytest.raises(bedrock.exceptions.ValidationException):
        start(bedrock, clientRequestToken="a" + "-" * 255)


def test_conversations(bedrock: Any, s3: Any) -> None:
    conversation = {
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
        "inferenceConfig": {"maxTokens": 2},
    }
    s3.put_object(Bucket="jobs", Key="in/a.jsonl", Body=lines([{"modelInput": conversation}] * 2))
    arn = start(bedrock, modelInvocationType="Converse", modelId=f"us.{MODEL}")
    assert finished(bedrock, arn)["status"] == "Completed"
    found = output(s3, arn)
    assert [each["modelOutput"]["stopReason"] for each in found] == ["max_tokens"] * 2
    assert len({each["recordId"] for each in found}) == 2  # made up, and not twice


def test_records_that_cannot_be_answered(bedrock: Any, s3: Any) -> None:
    body = (
        lines([native(0), native(1, temperature=7), {"recordId": "X"}])
        + b"{oops\n\n[1]\n"
        + lines([native(2)])
    )
    s3.put_object(Bucket="jobs", Key="in/a.jsonl", Body=body)
    arn = start(bedrock)
    job = finished(bedrock, arn)
    assert (job["status"], counts(job)) == ("Completed", (6, 6, 2, 4))
    found = output(s3, arn)
    assert [each.get("recordId") for each in found] == [
        "CALL0000000",
        "CALL0000001",
        None,
        None,
        None,
        "CALL0000002",
    ]
    assert found[1]["error"]["errorCode"] == 400
    assert "temperature: 7 is not less or equal to 1" in found[1]["error"]["errorMessage"]
    assert "modelInput" in found[2]["error"]["errorMessage"]
    assert "not valid JSON" in found[3]["error"]["errorMessage"]


def test_a_prefix_of_files(bedrock: Any, s3: Any) -> None:
    s3.put_object(Bucket="jobs", Key="in/more/b.jsonl", Body=lines([native(1), native(2)]))
    s3.put_object(Bucket="jobs", Key="in/a.jsonl", Body=lines([native(3)]))
    s3.put_object(Bucket="jobs", Key="in/notes.txt", Body=b"not for this")
    arn = start(bedrock, "s3://jobs/in")
    assert counts(finished(bedrock, arn)) == (3, 3, 3, 0)
    assert [each["recordId"] for each in output(s3, arn, "more/b.jsonl.out")] == [
        "CALL0000001",
        "CALL0000002",
    ]
    assert len(output(s3, arn)) == 1


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://jobs/in/none.jsonl", "There is no .jsonl file at s3://jobs/in/none.jsonl"),
        ("s3://jobs/none/", "There is no .jsonl file"),
        ("s3://jobs/empty.jsonl", "has no records"),
        ("s3://jobs/binary.jsonl", "is not UTF-8"),
        ("s3://nonesuch/in/", "NoSuchBucket"),
    ],
)
def test_no_input(bedrock: Any, s3: Any, uri: str, message: str) -> None:
    s3.put_object(Bucket="jobs", Key="empty.jsonl", Body=b"\n\n")
    s3.put_object(Bucket="jobs", Key="binary.jsonl", Body=b"\xff\xfe{}")
    job = finished(bedrock, start(bedrock, uri))
    assert job["status"] == "Failed"
    assert message in job["message"]


def test_files_of_this_machine(bedrock: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines([native(1)]))
    arn = start(bedrock, f"file://{tmp_path}/in.jsonl", f"file://{tmp_path}/out")
    assert finished(bedrock, arn)["status"] == "Completed"
    written = (tmp_path / "out" / arn.rpartition("/")[2] / "in.jsonl.out").read_text()
    assert json.loads(written)["recordId"] == "CALL0000001"


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "file://{folder}/../x.jsonl"])
def test_files_that_are_none_of_its_business(bedrock: Any, tmp_path: Path, uri: str) -> None:
    with pytest.raises(ClientError, match="the folder that jobs of this server may use"):
        start(bedrock, uri.format(folder=tmp_path))


def test_files_where_no_folder_is_set() -> None:
    with (
        running(FakeEngine(), demo=False) as server,
        pytest.raises(ClientError, match=r"storage\.folder"),
    ):
        start(client_of(server.url, "bedrock"), "file:///etc/x.jsonl")


def test_a_job_that_is_stopped(bedrock: Any, s3: Any, server: Server) -> None:
    s3.put_object(Bucket="jobs", Key="in/a.jsonl", Body=lines([native(number) for number in range(5000)]))
    arn = start(bedrock)
    eventually(
        lambda: bedrock.get_model_invocation_job(jobIdentifier=arn).get("processedRecordCount", 0) > 20
    )
    bedrock.stop_model_invocation_job(jobIdentifier=arn)
    job = finished(bedrock, arn)
    assert job["status"] == "Stopped"
    assert 20 < job["processedRecordCount"] == len(output(s3, arn)) < 5000
    with pytest.raises(ClientError, match="Stopped") as error:
        bedrock.stop_model_invocation_job(jobIdentifier=arn)
    assert error.value.response["Error"]["Code"] == "ConflictException"
    eventually(lambda: server.engine.idle)


def test_lists(bedrock: Any, s3: Any) -> None:
    s3.put_object(Bucket="jobs", Key="in/a.jsonl", Body=lines([native(1)]))
    arns = [start(bedrock, jobName=f"job-{number}") for number in range(5)]
    for arn in arns:
        finished(bedrock, arn)

    def listed(**options: Any) -> list[str]:
        pages = bedrock.get_paginator("list_model_invocation_jobs").paginate(
            PaginationConfig={"PageSize": 2}, **options
        )
        return [each["jobArn"] for page in pages for each in page["invocationJobSummaries"]]

    assert listed() == arns[::-1]
    assert listed(sortOrder="Ascending") == arns
    assert listed(nameContains="job-3") == arns[3:4]
    assert listed(statusEquals="Failed") == []
    middle = bedrock.get_model_invocation_job(jobIdentifier=arns[2])["submitTime"]
    assert set(listed(submitTimeBefore=middle)) <= set(arns[:3])


def test_a_model_of_nobodys(bedrock: Any) -> None:
    with pytest.raises(ClientError, match="model identifier is invalid"):
        start(bedrock, modelId="meta.other-v1:0")
