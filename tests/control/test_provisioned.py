"""Provisioned Throughputs as boto3 makes and uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from botocore.exceptions import ClientError

from outcrop.api.admission import ApiLimits
from outcrop.api.bedrock.plane import new_id
from outcrop.backends.fake import FakeHooks
from outcrop.ledger.database import Database
from outcrop.ledger.resource import Resource

from ..api.doubles import Script, ScriptedEngine, served
from ..api.server import DATABASES, Server, eventually, running
from ..conformance.engine import CAPABILITIES, FakeEngine
from .conftest import client_of

MODEL, OTHER = "meta.llama3-8b-instruct-v1:0", "meta.llama3-70b-instruct-v1:0"
ARN = f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"
QUESTION: list[Any] = [{"role": "user", "content": [{"text": "Hi"}]}]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(
        ScriptedEngine(), demo=False, rows=8, others=[served(ScriptedEngine(), OTHER)],
        limits=ApiLimits(max_inflight=40),
    ) as server:  # fmt: skip
        yield server


@pytest.fixture
def bedrock(server: Server) -> Iterator[Any]:
    """With nothing reserved before and after."""
    client = client_of(server.url, "bedrock")
    yield client
    with DATABASES[server.url].transaction() as session:  # that of some may not be deleted yet
        for each in session.query(Resource).filter_by(kind="provisioned-model"):
            each.body = each.body | {"request": each.body["request"] | {"commitmentDuration": None}}
    for each in client.list_provisioned_model_throughputs()["provisionedModelSummaries"]:
        client.delete_provisioned_model_throughput(provisionedModelId=each["provisionedModelArn"])


@pytest.fixture
def runtime(server: Server) -> Any:
    server.engine.requests.clear()
    return client_of(server.url, "bedrock-runtime")


def create(bedrock: Any, units: int = 1, name: str = "", **more: Any) -> str:
    made = bedrock.create_provisioned_model_throughput(
        **{"modelUnits": units, "provisionedModelName": name or new_id(), "modelId": MODEL} | more
    )
    arn: str = made["provisionedModelArn"]
    return arn


@contextmanager
def holding(server: Server, name: str) -> Iterator[None]:
    """An answer that has begun and does not end."""
    path = f"{server.url}/model/{quote(name, safe='')}/converse-stream"
    with httpx.stream("POST", path, json={"messages": QUESTION}, timeout=30) as response:
        frames = response.iter_raw()  # kept: a client that drops it hangs up
        next(frames)
        yield


def refusal(code: str, call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code
    return str(error.value)


# -- the resource ----------------------------------------------------------------------------------


def test_what_is_told_of_one(bedrock: Any) -> None:
    arn = create(bedrock, 3, "mine", tags=[{"key": "team", "value": "a"}])
    for identifier in (arn, "mine"):
        found = bedrock.get_provisioned_model_throughput(provisionedModelId=identifier)
        assert found["provisionedModelArn"] == arn
        assert (found["modelUnits"], found["desiredModelUnits"], found["status"]) == (3, 3, "InService")
        assert {found["modelArn"], found["desiredModelArn"], found["foundationModelArn"]} == {ARN}
        assert "commitmentDuration" not in found
    assert bedrock.list_tags_for_resource(resourceARN=arn)["tags"] == [{"key": "team", "value": "a"}]


def test_another_name(bedrock: Any) -> None:
    arn = create(bedrock, name="before")
    create(bedrock, name="taken")
    update = bedrock.update_provisioned_model_throughput
    update(provisionedModelId="before", desiredProvisionedModelName="after")
    assert bedrock.get_provisioned_model_throughput(provisionedModelId="after")["provisionedModelArn"] == arn
    again = {"provisionedModelId": arn, "desiredProvisionedModelName": "taken"}
    assert "of the name taken" in refusal("ValidationException", update, **again)
    other = {"provisionedModelId": arn, "desiredModelId": OTHER}
    assert "keeps its model" in refusal("ValidationException", update, **other)
    refusal("ValidationException", create, bedrock=bedrock, name="taken")


@pytest.mark.parametrize(("duration", "days"), [("OneMonth", 30), ("SixMonths", 180)])
def test_a_commitment(bedrock: Any, server: Server, duration: str, days: int) -> None:
    arn = create(bedrock, commitmentDuration=duration)
    found = bedrock.get_provisioned_model_throughput(provisionedModelId=arn)
    assert found["commitmentDuration"] == duration
    until = found["commitmentExpirationTime"]
    assert until - found["creationTime"] == timedelta(days=days)
    delete = bedrock.delete_provisioned_model_throughput
    assert "before its commitment ends" in refusal("ConflictException", delete, provisionedModelId=arn)
    with DATABASES[server.url].transaction() as session:
        kept = session.get_one(Resource, ("provisioned-model", arn.rpartition("/")[2]))
        kept.created_at = datetime.now(UTC) - timedelta(days=days, minutes=1)
    delete(provisionedModelId=arn)
    refusal("ResourceNotFoundException", bedrock.get_provisioned_model_throughput, provisionedModelId=arn)


def test_the_paginator_sees_each_once(bedrock: Any) -> None:
    made = [create(bedrock, name=f"number-{number}") for number in range(5)]
    other = create(bedrock, modelId=OTHER)
    paginator = bedrock.get_paginator("list_provisioned_model_throughputs")

    def listed(**wanted: Any) -> list[str]:
        pages = paginator.paginate(**wanted, sortOrder="Ascending", PaginationConfig={"PageSize": 2})
        return [each["provisionedModelArn"] for page in pages for each in page["provisionedModelSummaries"]]

    assert listed() == [*made, other]
    assert listed(modelArnEquals=ARN) == listed(nameContains="number") == made
    assert listed(statusEquals="InService", nameContains="number-3") == [made[3]]
    assert listed(statusEquals="Failed") == []


def test_limits(bedrock: Any) -> None:
    """Of eight rows, and of forty requests."""
    create(bedrock, 4)
    code = "ServiceQuotaExceededException"
    assert "3 can be reserved still, not 4" in refusal(code, create, bedrock=bedrock, units=4)
    create(bedrock, 3)
    assert "0 can be reserved still, not 1" in refusal(code, create, bedrock=bedrock)
    message = refusal(code, create, bedrock=bedrock, units=14, modelId=OTHER)
    assert "Of the 40 requests that the server admits at once, 13 can be reserved still, not 14" in message
    create(bedrock, 13, modelId=OTHER)


def test_a_token_reserves_once(bedrock: Any) -> None:
    """Also where there would be no room for it a second time."""
    again = {"units": 7, "name": "mine", "clientRequestToken": "t"}
    assert create(bedrock, **again) == create(bedrock, **again)


def test_models_that_have_none(bedrock: Any) -> None:
    refusal("ResourceNotFoundException", create, bedrock=bedrock, modelId="meta.other-v1:0")


def test_reservations_outlive_the_server(tmp_path: Path) -> None:
    def state() -> Database:
        return Database(tmp_path / "state.db")

    with running(ScriptedEngine(), demo=False, database=state()) as server:
        arn = create(client_of(server.url, "bedrock"))
    with running(ScriptedEngine(), demo=False, database=state()) as server:
        client_of(server.url, "bedrock-runtime").converse(modelId=arn, messages=QUESTION)
        assert server.engine.requests[0].priority == 30
    with running(ScriptedEngine(), demo=False, database=state(), model_id=OTHER) as server:
        found = client_of(server.url, "bedrock").get_provisioned_model_throughput(provisionedModelId=arn)
        assert found["status"] == "Failed"
        assert found["failureMessage"] == f"This server doesn't serve {ARN} any more."


def test_places_that_another_server_reserved(tmp_path: Path) -> None:
    """Each keeps them for itself."""

    def keeps(server: Server, arn: str) -> bool:
        server.engine.requests.clear()
        try:
            client_of(server.url, "bedrock-runtime").converse(modelId=arn, messages=QUESTION)
        except ClientError as error:
            if "model identifier is invalid" not in str(error):
                raise
            return False
        return server.engine.requests[0].priority == 30

    state = tmp_path / "state.db"
    with (
        running(ScriptedEngine(), demo=False, database=Database(state)) as first,
        running(ScriptedEngine(), demo=False, database=Database(state)) as second,
    ):
        arn = create(client_of(first.url, "bedrock"))
        eventually(lambda: keeps(second, arn))
        client_of(second.url, "bedrock").delete_provisioned_model_throughput(provisionedModelId=arn)
        eventually(lambda: not keeps(first, arn))


# -- what it means ---------------------------------------------------------------------------------


def test_up_to_its_units_the_arn_goes_first(bedrock: Any, runtime: Any, server: Server) -> None:
    arn = create(bedrock, 2)
    ask = {"messages": QUESTION}
    chat = {"model": arn, "messages": [{"role": "user", "content": "Hi"}]}
    runtime.converse(modelId=arn, **ask)
    runtime.invoke_model(modelId=arn, body='{"prompt": "Hi"}')
    httpx.post(f"{server.url}/openai/v1/chat/completions", json=chat).raise_for_status()
    runtime.converse(modelId=MODEL, serviceTier={"type": "reserved"}, **ask)
    runtime.converse(modelId=MODEL, **ask)
    assert [request.priority for request in server.engine.requests] == [30, 30, 30, 20, 0]
    bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    refusal("ValidationException", runtime.converse, modelId=arn, **ask)


def test_beyond_its_units_it_is_like_others(bedrock: Any, runtime: Any, server: Server) -> None:
    arn = create(bedrock, 1)
    server.engine.script = Script(hold=True)
    try:
        with holding(server, arn), holding(server, arn):
            assert [request.priority for request in server.engine.requests] == [30, 0]
        eventually(lambda: not server.engine.open)
    finally:
        server.engine.script = Script()
    runtime.converse(modelId=arn, messages=QUESTION)
    assert server.engine.requests[-1].priority == 30


def test_a_full_server_admits_what_is_reserved() -> None:
    limits = ApiLimits(max_inflight=4)
    with (
        running(ScriptedEngine(script=Script(hold=True)), demo=False, limits=limits) as server,
        ExitStack() as held,
    ):
        runtime = client_of(server.url, "bedrock-runtime")
        arn = create(client_of(server.url, "bedrock"), 2)
        for name in (MODEL, arn):
            for _ in range(2):
                held.enter_context(holding(server, name))
            refusal("ThrottlingException", runtime.converse, modelId=name, messages=QUESTION)


def test_a_full_engine_makes_room_for_what_is_reserved() -> None:
    """Every row runs an answer that does not end soon; the reserved request is answered all the same, and the
    one that made room for it goes on afterwards, with nothing missing."""
    pace = [0.02]  # seconds of a step: no answer ends before all have begun
    engine = FakeEngine(FakeHooks(step_seconds=lambda step: pace[0]))
    rows, tokens = CAPABILITIES.max_rows, 1000
    body = {
        "model": MODEL, "prompt": "Hi", "max_tokens": tokens, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    with running(engine, demo=False) as server, ExitStack() as held:
        arn = create(client_of(server.url, "bedrock"))
        runtime = client_of(server.url, "bedrock-runtime")
        completions = f"{server.url}/openai/v1/completions"
        responses = [
            held.enter_context(httpx.stream("POST", completions, json=body, timeout=60)) for _ in range(rows)
        ]
        streams = [response.iter_lines() for response in responses]
        for stream in streams:
            next(stream)
        short = {"maxTokens": 3}
        answer = runtime.converse(modelId=arn, messages=QUESTION, inferenceConfig=short)
        assert answer["usage"]["outputTokens"] <= 3
        assert engine.stats.preemptions == 1
        pace[0] = 0.0
        for stream in streams:
            usage = [line for line in stream if '"completion_tokens":' in line]
            assert f'"completion_tokens":{tokens}' in usage[-1]
