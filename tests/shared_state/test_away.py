"""A server whose PostgreSQL goes away and comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from postgres_server import PostgresServer
from serving import eventually
from sqlalchemy import func, select

from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.job_runner import JobOptions
from outcrop.ledger.database import Database
from outcrop.ledger.usage import Usage
from outcrop.storage import Storage

from ..api.server import running
from ..conformance.engine import FakeEngine
from ..control.conftest import client_of

MODEL = "meta.llama3-8b-instruct-v1:0"
RECORDS = 400


def start(bedrock: Any, folder: Path) -> str:
    record = {"recordId": "CALL0000001", "modelInput": {"prompt": "Hi", "max_gen_len": 3}}
    (folder / "in.jsonl").write_text(RECORDS * f"{json.dumps(record)}\n")
    made = bedrock.create_model_invocation_job(
        jobName="job",
        roleArn="arn:aws:iam::000000000000:role/batch",
        modelId=MODEL,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": f"file://{folder}/in.jsonl"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"file://{folder}/out"}},
    )
    arn: str = made["jobArn"]
    return arn


def answered(call: Callable[[], object]) -> bool:
    """Whether a call found the database that it needs."""
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] != "ServiceUnavailableException":
            raise
        return False
    return True


def test_serving_goes_on_and_jobs_wait(
    postgres: PostgresServer, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(url)
    control = ControlOptions(Storage(tmp_path), JobOptions(lease_seconds=1))
    with running(FakeEngine(), demo=False, database=database, control=control) as server:
        bedrock, runtime = (client_of(server.url, service) for service in ("bedrock", "bedrock-runtime"))

        def converse(**members: Any) -> None:
            message = {"role": "user", "content": [{"text": "Hi"}]}
            runtime.converse(modelId=MODEL, messages=[message], **members)

        def converse_guarded() -> None:
            converse(guardrailConfig={"guardrailIdentifier": "gone", "guardrailVersion": "1"})

        arn = start(bedrock, tmp_path)
        eventually(
            lambda: bedrock.get_model_invocation_job(jobIdentifier=arn).get("processedRecordCount", 0) > 9
        )
        postgres.stop()
        try:
            for _ in range(3):
                converse()
            assert not answered(bedrock.list_inference_profiles)
            assert not answered(converse_guarded)
        finally:
            postgres.start()
        eventually(lambda: answered(bedrock.list_inference_profiles), "an answer")
        converse()
        eventually(
            lambda: bedrock.get_model_invocation_job(jobIdentifier=arn)["status"] != "InProgress", "its end"
        )
        job = bedrock.get_model_invocation_job(jobIdentifier=arn)
        assert (job["status"], job["successRecordCount"]) == ("Completed", RECORDS)
        assert "goes on when the database is back" in caplog.text

        def written() -> int:
            return database.transact(lambda session: session.scalar(select(func.count(Usage.at))) or 0)

        # Records that were in progress when the database went away were answered twice under one id.
        eventually(lambda: written() == RECORDS + 4, "the usage")
