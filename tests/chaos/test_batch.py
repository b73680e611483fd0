"""A batch job whose server is killed while it works on it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from s3_server import CREDENTIALS, s3_server
from serving import eventually, serving

from outcrop.fake_checkpoint import write_fake_checkpoint

KILLS = 3


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
    return client


def configuration(folder: Path, s3_url: str) -> Path:
    """Of a server that a record costs about 50 ms of."""
    file = folder / "outcrop.toml"
    file.write_text(
        f"""
        [[models]]
        path = "{write_fake_checkpoint(folder / "model")}"
        backend = "fake"
        fake_step_ms = 10
        [storage]
        s3_endpoint = "{s3_url}"
        [jobs]
        rows = 4
        lease_seconds = 0.5
        """
    )
    return file


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_record_once(tmp_path: Path, s3: Any, s3_url: str, count: int) -> None:
    records = [
        {"recordId": f"CALL{number:07}", "modelInput": {"prompt": f"{number}", "max_gen_len": 20}}
        for number in range(count)
    ]
    body = "".join(json.dumps(record) + "\n" for record in records)
    s3.put_object(Bucket="jobs", Key=f"{count}.jsonl", Body=body.encode())
    options = ("--config", str(configuration(tmp_path, s3_url)))
    arn, processed = "", 0
    for kill in range(KILLS):
        with serving(tmp_path, *options) as server:
            bedrock = server.client("bedrock")
            arn = arn or start(bedrock, count)
            enough = max(count * (kill + 1) // (KILLS + 1), processed + 1)
            job = progressed(bedrock, arn, enough)
            assert job["status"] == "InProgress"
            assert job["processedRecordCount"] >= processed
            processed = job["processedRecordCount"]
            server.process.send_signal(signal.SIGKILL)
            server.wait()
    with serving(tmp_path, *options) as server:
        bedrock = server.client("bedrock")
        eventually(lambda: status(bedrock, arn)["status"] == "Completed", "the job's end")
        job = status(bedrock, arn)
        # Only the records that were left have been answered by this server.
        answered = server.metric("outcrop_batch_records_total")
        assert answered <= count - processed
    assert [job[f"{name}RecordCount"] for name in ("total", "success", "error")] == [count, count, 0]
    key = f"out/{arn.rpartition('/')[2]}"
    found = [json.loads(line) for line in read(s3, f"{key}/{count}.jsonl.out").splitlines()]
    assert [(each["recordId"], each["modelInput"]) for each in found] == [
        (each["recordId"], each["modelInput"]) for each in records
    ]
    manifest = json.loads(read(s3, f"{key}/manifest.json.out"))
    assert manifest["outputTokenCount"] == sum(
        each["modelOutput"]["generation_token_count"] for each in found
    )


def start(bedrock: Any, count: int) -> str:
    made = bedrock.create_model_invocation_job(
        jobName="job",
        roleArn="arn:aws:iam::000000000000:role/batch",
        modelId="meta.llama3-8b-instruct-v1:0",
        inputDataConfig={"s3InputDataConfig": {"s3Uri": f"s3://jobs/{count}.jsonl"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://jobs/out/"}},
    )
    arn: str = made["jobArn"]
    return arn


def status(bedrock: Any, arn: str) -> dict[str, Any]:
    job: dict[str, Any] = bedrock.get_model_invocation_job(jobIdentifier=arn)
    return job


def progressed(bedrock: Any, arn: str, enough: int) -> dict[str, Any]:
    """The job, once so many of its records have been answered."""
    found: dict[str, Any] = {}

    def look() -> bool:
        found.update(status(bedrock, arn))
        return bool(found.get("processedRecordCount", 0) >= enough)

    eventually(look, f"{enough} answered records")
    return found


def read(s3: Any, key: str) -> str:
    body: str = s3.get_object(Bucket="jobs", Key=key)["Body"].read().decode()
    return body
