"""Asynchronous invocations, into a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving import eventually

from outcrop.api.admission import ApiLimits
from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.job_runner import JobOptions
from outcrop.storage import Storage

from ..api.server import running
from ..conformance.engine import FakeEngine
from .conftest import client_of

MODEL = "meta.llama3-8b-instruct-v1:0"


@pytest.fixture
def control(tmp_path: Path) -> ControlOptions:
    return ControlOptions(Storage(tmp_path), JobOptions())


@pytest.fixture
def runtime(control: ControlOptions) -> Iterator[Any]:
    with running(FakeEngine(), demo=False, control=control) as server:
        yield client_of(server.url, "bedrock-runtime")


def start(runtime: Any, uri: str, **body: Any) -> str:
    arn: str = runtime.start_async_invoke(
        modelId=MODEL,
        modelInput={"prompt": "Hi", "max_gen_len": 3} | body,
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": uri}},
    )["invocationArn"]
    return arn


def finished(runtime: Any, arn: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(runtime.get_async_invoke(invocationArn=arn))
        return found["status"] != "InProgress"

    eventually(ended)
    return found


def test_an_answer(runtime: Any, tmp_path: Path) -> None:
    arn = start(runtime, f"file://{tmp_path}/out")
    job = finished(runtime, arn)
    assert (job["status"], job["modelArn"].rpartition("/")[2]) == ("Completed", MODEL)
    answer = json.loads((tmp_path / "out" / arn.rpartition("/")[2] / "output.json").read_text())
    assert answer["generation_token_count"] == 3


def test_a_body_that_is_no_good(runtime: Any, tmp_path: Path) -> None:
    job = finished(runtime, start(runtime, f"file://{tmp_path}/out", temperature=7))
    assert job["status"] == "Failed"
    assert "temperature: 7 is not less or equal to 1" in job["failureMessage"]


def test_a_place_that_cannot_be_written(runtime: Any, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    job = finished(runtime, start(runtime, f"file://{tmp_path}/out"))
    assert job["status"] == "Failed"
    assert f"file://{tmp_path}/out" in job["failureMessage"]


def test_pages(runtime: Any, tmp_path: Path) -> None:
    arns = [start(runtime, f"file://{tmp_path}/out") for _ in range(5)]
    pages = runtime.get_paginator("list_async_invokes").paginate(
        sortOrder="Ascending", PaginationConfig={"PageSize": 2}
    )
    assert [each["invocationArn"] for page in pages for each in page["asyncInvokeSummaries"]] == arns
    for arn in arns:
        finished(runtime, arn)
    assert len(runtime.list_async_invokes(statusEquals="Completed")["asyncInvokeSummaries"]) == 5


def test_strictly_llama_has_none(control: ControlOptions, tmp_path: Path) -> None:
    with (
        running(FakeEngine(), limits=ApiLimits(strict=True), control=control) as server,
        pytest.raises(ClientError, match="doesn't support asynchronous inference"),
    ):
        start(client_of(server.url, "bedrock-runtime"), f"file://{tmp_path}/out")
