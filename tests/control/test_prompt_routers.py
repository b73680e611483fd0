"""Prompt routers as boto3 makes and uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from demo import PATH
from serving import serving

from outcrop.api.bedrock.plane import new_id
from outcrop.api.bedrock_runtime.converse import parse
from outcrop.api.prompt_router.demand import of_conversation
from outcrop.catalog.prompt_router import Demand
from outcrop.fake_checkpoint import write_fake_checkpoint
from outcrop.ledger.database import Database

from ..api.doubles import Script, ScriptedEngine, served
from ..api.server import Server, eventually, running
from ..conformance.causes import keyed
from ..conformance.surface import ROUTER
from .conftest import client_of

SMALL, LARGE = "meta.llama3-8b-instruct-v1:0", "meta.llama3-70b-instruct-v1:0"
SHORT = "Hi"
LONG = "Why is the sky blue? " * 80
TOOLS = {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}]}


def arn_of(model_id: str) -> str:
    return f"arn:aws:bedrock:us-east-1::foundation-model/{model_id}"


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": [{"text": text}]}]


class Two:
    """A server of two models, each of which says who it is."""

    def __init__(self, server: Server, small: ScriptedEngine, large: ScriptedEngine) -> None:
        self.url = server.url
        self.small, self.large = small, large
        self.bedrock = client_of(server.url, "bedrock")
        self.runtime = client_of(server.url, "bedrock-runtime")

    def router(self, fallback: str = SMALL, difference: float = 25, name: str = "", **more: Any) -> str:
        made = self.bedrock.create_prompt_router(
            promptRouterName=name or new_id(),
            models=[{"modelArn": arn_of(LARGE)}, {"modelArn": arn_of(SMALL)}],
            routingCriteria={"responseQualityDifference": difference},
            fallbackModel={"modelArn": arn_of(fallback)},
            **more,
        )
        arn: str = made["promptRouterArn"]
        return arn

    def answers(self, arn: str, text: str, **more: Any) -> str:
        """Who does, by what it says and by the trace, which must agree."""
        answer = self.runtime.converse(modelId=arn, messages=asked(text), **more)
        invoked = answer["trace"]["promptRouter"]["invokedModelId"]
        said: str = answer["output"]["message"]["content"][0]["text"]
        assert invoked == arn_of(SMALL if said == "small" else LARGE)
        return said


@contextmanager
def two_models(database: Database | None = None, large_size: int = 70) -> Iterator[Two]:
    small, large = (ScriptedEngine(script=Script((name,)), context=4096) for name in (b"small", b"large"))
    other = served(large, LARGE, size=large_size)
    with running(small, demo=False, others=[other], size=8, database=database) as server:
        yield Two(server, small, large)


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    with two_models() as found:
        yield found


# -- what is routed where --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "difference"),
    [
        (Demand(0), 0),
        (Demand(256), 0),
        (Demand(512), 8),
        (Demand(16 * 1024), 48),
        (Demand(1 << 30), 48),
        (Demand(2, turns=3), 4),
        (Demand(2, turns=99), 12),
        (Demand(2, tools=True), 20),
        (Demand(2, structured=True, documents=True), 20),
        (Demand(1 << 30, 99, tools=True, structured=True, documents=True), 100),
    ],
)
def test_the_criterion(demand: Demand, difference: float) -> None:
    assert demand.difference == pytest.approx(difference)


def test_what_is_looked_at_in_a_conversation() -> None:
    body = b"""{
        "system": [{"text": "four"}],
        "messages": [
            {"role": "user", "content": [{"text": "two"},
              {"document": {"name": "d", "format": "txt", "source": {"text": "words"}}}]},
            {"role": "assistant", "content": [{"text": "one"}]},
            {"role": "user", "content": [{"text": "three"}]}
        ],
        "outputConfig": {"textFormat": {"type": "json_schema", "structure":
            {"jsonSchema": {"schema": "{}"}}}}
    }"""
    assert of_conversation(parse(body)) == Demand(15, 3, tools=False, structured=True, documents=True)


def test_who_answers(two: Two) -> None:
    arn = two.router()
    assert two.answers(arn, SHORT) == "small"
    assert two.answers(arn, LONG) == "small"  # 21 points
    assert two.answers(arn, SHORT, toolConfig=TOOLS) == "small"  # 20
    assert two.answers(arn, LONG, toolConfig=TOOLS) == "large"
    for difference, says in ((0, "large"), (10, "large"), (100, "small")):
        assert two.answers(two.router(difference=difference), LONG) == says


def test_a_stream_says_who_answered(two: Two) -> None:
    arn = two.router()
    for more, model in (({}, SMALL), ({"toolConfig": TOOLS}, LARGE)):
        stream = two.runtime.converse_stream(modelId=arn, messages=asked(LONG), **more)["stream"]
        (metadata,) = (event["metadata"] for event in stream if "metadata" in event)
        assert metadata["trace"] == {"promptRouter": {"invokedModelId": arn_of(model)}}
    assert "trace" not in two.runtime.converse(modelId=SMALL, messages=asked(SHORT))


def test_native_bodies(two: Two) -> None:
    arn = two.router(difference=10)
    for prompt, says in ((SHORT, b"small"), (LONG, b"large")):
        body = f'{{"prompt": "{prompt}"}}'
        assert says in two.runtime.invoke_model(modelId=arn, body=body)["body"].read()
        stream = two.runtime.invoke_model_with_response_stream(modelId=arn, body=body)["body"]
        assert says in b"".join(event["chunk"]["bytes"] for event in stream)


def test_the_fallback_answers_for_one_that_cannot(two: Two) -> None:
    arn = two.router(fallback=SMALL, difference=10)
    two.large._ready = False
    assert two.answers(arn, LONG) == "small"
    two.large._ready = True
    assert two.answers(arn, LONG) == "large"
    two.small.context = 1000
    assert two.answers(two.router(fallback=SMALL, difference=100), LONG) == "large"
    two.small.context = two.large.context


@pytest.mark.parametrize("fallback", [SMALL, LARGE])
def test_the_fallback_answers_where_sizes_are_equal(fallback: str) -> None:
    with two_models(large_size=8) as two:
        arn = two.router(fallback=fallback)
        assert (
            two.answers(arn, SHORT) == two.answers(arn, LONG) == ("small" if fallback == SMALL else "large")
        )


# -- the resource ----------------------------------------------------------------------------------


def test_a_router(two: Two) -> None:
    arn = two.router(name="a router", description="For all", tags=[{"key": "team", "value": "a"}])
    found = two.bedrock.get_prompt_router(promptRouterArn=arn)
    assert found["promptRouterArn"] == arn
    assert (found["promptRouterName"], found["description"]) == ("a router", "For all")
    assert (found["status"], found["type"]) == ("AVAILABLE", "custom")
    assert found["routingCriteria"] == {"responseQualityDifference": 25}
    assert found["models"] == [{"modelArn": arn_of(LARGE)}, {"modelArn": arn_of(SMALL)}]
    assert found["fallbackModel"] == {"modelArn": arn_of(SMALL)}
    assert two.bedrock.list_tags_for_resource(resourceARN=arn)["tags"] == [{"key": "team", "value": "a"}]
    two.bedrock.delete_prompt_router(promptRouterArn=arn)
    for call in (
        lambda: two.bedrock.get_prompt_router(promptRouterArn=arn),
        lambda: two.bedrock.delete_prompt_router(promptRouterArn=arn),
    ):
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            call()
    with pytest.raises(ClientError, match="model identifier is invalid"):
        two.runtime.converse(modelId=arn, messages=asked(SHORT))


def test_routers_outlive_the_server(tmp_path: Path) -> None:
    with two_models(Database(tmp_path / "state.db")) as two:
        arn = two.router()
    with two_models(Database(tmp_path / "state.db")) as two:
        assert two.answers(arn, SHORT) == "small"


def test_a_router_that_another_server_made(tmp_path: Path) -> None:
    def knows(server: Two, arn: str) -> bool:
        try:
            return server.answers(arn, SHORT) == "small"
        except ClientError as error:
            if "model identifier is invalid" not in str(error):
                raise
            return False

    state = tmp_path / "state.db"
    with two_models(Database(state)) as first, two_models(Database(state)) as second:
        arn = first.router()
        eventually(lambda: knows(second, arn))
        second.bedrock.delete_prompt_router(promptRouterArn=arn)
        eventually(lambda: not knows(first, arn))


def test_the_paginator_sees_each_once(two: Two) -> None:
    made = {two.router() for _ in range(5)}
    pages = two.bedrock.get_paginator("list_prompt_routers").paginate(
        type="custom", PaginationConfig={"PageSize": 2}
    )
    found = [each["promptRouterArn"] for page in pages for each in page["promptRouterSummaries"]]
    assert len(set(found)) == len(found)
    assert made <= set(found)
    assert two.bedrock.list_prompt_routers(type="default")["promptRouterSummaries"] == []


def test_what_makes_none(two: Two) -> None:
    def create(*models: str) -> None:
        two.bedrock.create_prompt_router(
            promptRouterName="b",
            models=[{"modelArn": arn_of(model)} for model in models],
            routingCriteria={"responseQualityDifference": 1},
            fallbackModel={"modelArn": arn_of(SMALL)},
        )

    arn = two.router(name="another", clientRequestToken="t")
    assert two.router(name="another", clientRequestToken="t") == arn
    with pytest.raises(ClientError, match=r"ConflictException.*another prompt router of the name another"):
        two.router(name="another")
    with pytest.raises(ClientError, match=r"ResourceNotFoundException.*meta.other"):
        create("meta.other-v1:0")
    with pytest.raises(ClientError, match=r"ValidationException.*3 were given"):
        create(LARGE, f"us.{SMALL}")


def test_no_way_around_a_deny() -> None:
    """Neither by making a router, nor by using one that somebody else made."""
    denied = {"Effect": "Deny", "Action": "bedrock:InvokeModel", "Resource": arn_of(SMALL)}
    allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    with keyed(policy={"Version": "2012-10-17", "Statement": [allowed, denied]}) as (http, headers):
        made = http.post("/prompt-routers", json=ROUTER, headers=headers)
        assert made.status_code == 403
        assert "explicit deny" in made.json()["message"]


def test_whoever_may_use_a_router_must_be_allowed_its_models() -> None:
    only_stream = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "*", "Resource": "*"},
            {
                "Effect": "Deny",
                "Action": "bedrock:InvokeModelWithResponseStream",
                "Resource": arn_of(SMALL),
            },
        ],
    }
    with keyed(policy=only_stream) as (http, headers):
        made = http.post("/prompt-routers", json=ROUTER, headers=headers).raise_for_status()
        path = f"/model/{quote(made.json()['promptRouterArn'], safe='')}"
        body = {"messages": asked(SHORT)}
        assert http.post(f"{path}/converse", json=body, headers=headers).status_code == 200
        assert http.post(f"{path}/converse-stream", json=body, headers=headers).status_code == 403


# -- a real server ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_models_of_a_served_configuration(tmp_path: Path) -> None:
    """The sizes are those of the checkpoints."""
    config = tmp_path / "outcrop.toml"
    config.write_text(
        f"""
        [[models]]
        id = "{LARGE}"
        path = "{PATH}"
        backend = "fake"
        [[models]]
        id = "{SMALL}"
        path = "{write_fake_checkpoint(tmp_path / "small")}"
        backend = "fake"
        """
    )
    with serving(tmp_path, "--config", str(config)) as server:
        made = server.client("bedrock").create_prompt_router(
            promptRouterName="router",
            models=[{"modelArn": arn_of(LARGE)}, {"modelArn": arn_of(SMALL)}],
            routingCriteria={"responseQualityDifference": 10},
            fallbackModel={"modelArn": arn_of(SMALL)},
        )
        for text, model in ((SHORT, SMALL), (LONG, LARGE)):
            answer = server.client().converse(
                modelId=made["promptRouterArn"], messages=asked(text), inferenceConfig={"maxTokens": 4}
            )
            assert answer["trace"]["promptRouter"]["invokedModelId"] == arn_of(model)
            assert server.metric("vllm:generation_tokens_total", model_name=model) == 4
