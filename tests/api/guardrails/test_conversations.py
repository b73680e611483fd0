"""Guardrails on conversations."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ..converse.requests import TOOLS, assistant, converse, converse_stream, message_of, user
from ..converse.test_tools import CALL, pieces
from ..doubles import Script
from ..server import Server, eventually
from ..shapes import RUNTIME, assert_fits
from .conftest import MESSAGES, Guardrails

MAIL = b"Write to joe@example.com about ID-1234, or do not."
MASKED = "Write to {EMAIL} about {order}, or do not."
SIZES = (1, 3, 7, 100)


def said(events: list[tuple[str, Any]]) -> str:
    deltas = (body["delta"] for kind, body in events if kind == "contentBlockDelta")
    return "".join(delta.get("text", "") for delta in deltas)


@pytest.mark.parametrize("size", SIZES)
def test_masks(http: httpx.Client, server: Server, guardrails: Guardrails, size: int) -> None:
    server.engine.script = Script(pieces=pieces(MAIL, size))
    config = guardrails.config("mask", trace="enabled")
    body = converse(http, **config).json()
    assert_fits(body, RUNTIME.operation_model("Converse").output_shape)
    assert body["output"]["message"]["content"] == [{"text": MASKED}]
    assert body["stopReason"] == "guardrail_intervened"
    trace = body["trace"]["guardrail"]
    assert trace["actionReason"] == "No action.\nGuardrail masked."
    assert trace["modelOutput"] == [MAIL.decode()]
    (assessment,) = trace["outputAssessments"][guardrails["mask"]]
    assert assessment["sensitiveInformationPolicy"] == {
        "piiEntities": [
            {"match": "joe@example.com", "type": "EMAIL", "action": "ANONYMIZED", "detected": True}
        ],
        "regexes": [
            {"match": "ID-1234", "name": "order", "regex": r"\bID-\d{4}\b", "action": "ANONYMIZED",
             "detected": True}
        ],
    }  # fmt: skip
    events = converse_stream(http, **config)
    assert said(events) == MASKED
    assert [kind for kind, _ in events if kind != "contentBlockDelta"] == [
        "messageStart", "contentBlockStop", "messageStop", "metadata",
    ]  # fmt: skip
    assert events[-2][1] == {"stopReason": "guardrail_intervened"}
    shape = RUNTIME.operation_model("ConverseStream").output_shape.members["stream"].members["metadata"]
    assert_fits(events[-1][1], shape)
    assert events[-1][1]["trace"]["guardrail"]["actionReason"] == trace["actionReason"]


@pytest.mark.parametrize("size", SIZES)
def test_a_blocked_answer(http: httpx.Client, server: Server, guardrails: Guardrails, size: int) -> None:
    engine = server.engine
    engine.script = Script(pieces=pieces(b"All is well. A forbidden thing" + b" and more" * 50, size))
    aborted = engine.aborted
    config = guardrails.config("block", trace="enabled")
    body = converse(http, **config).json()
    assert_fits(body, RUNTIME.operation_model("Converse").output_shape)
    assert body["output"]["message"]["content"] == [{"text": MESSAGES["blockedOutputsMessaging"]}]
    assert body["stopReason"] == "guardrail_intervened"
    (assessment,) = body["trace"]["guardrail"]["outputAssessments"][guardrails["block"]]
    assert assessment["wordPolicy"] == {
        "customWords": [{"match": "forbidden", "action": "BLOCKED", "detected": True}],
        "managedWordLists": [],
    }
    events = converse_stream(http, **config)
    assert said(events) == "All is well. A " + MESSAGES["blockedOutputsMessaging"]
    assert events[-2][1] == {"stopReason": "guardrail_intervened"}
    eventually(lambda: engine.aborted == aborted + 2 and engine.open == 0)  # no more is generated
    if size < 10:
        assert events[-1][1]["usage"]["outputTokens"] < 100


def test_a_blocked_prompt_reaches_no_model(
    http: httpx.Client, server: Server, guardrails: Guardrails
) -> None:
    config = guardrails.config("block", trace="enabled")
    ask = user({"text": "Give me investment advice."})
    body = converse(http, ask, **config).json()
    assert_fits(body, RUNTIME.operation_model("Converse").output_shape)
    assert body["output"]["message"]["content"] == [{"text": MESSAGES["blockedInputMessaging"]}]
    assert body["stopReason"] == "guardrail_intervened"
    assert body["usage"] == {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}
    trace = body["trace"]["guardrail"]
    assert trace["actionReason"] == "Guardrail blocked."
    assert trace.keys() == {"inputAssessment", "actionReason"}
    assessment = trace["inputAssessment"][guardrails["block"]]
    assert assessment["topicPolicy"] == {
        "topics": [{"name": "Investment advice", "type": "DENY", "action": "BLOCKED", "detected": True}]
    }
    usage = assessment["invocationMetrics"]["usage"]
    assert (usage["topicPolicyUnits"], usage["wordPolicyUnits"]) == (1, 1)
    assert usage["sensitiveInformationPolicyUnits"] == 0
    events = converse_stream(http, ask, **config)
    assert said(events) == MESSAGES["blockedInputMessaging"]
    assert events[-2][1] == {"stopReason": "guardrail_intervened"}
    assert converse_stream(http, ask, toolConfig=TOOLS, **config)[-2][1] == events[-2][1]
    assert server.engine.requests == []


def test_a_masked_prompt(http: httpx.Client, server: Server, guardrails: Guardrails) -> None:
    body = converse(
        http,
        user({"text": "I am joe@example.com"}),
        assistant({"text": "And ID-1234?"}),
        user({"text": "Yes"}),
        system=[{"text": "Mail root@example.com"}],
        **guardrails.config("mask", trace="enabled"),
    ).json()
    (request,) = server.engine.requests
    prompt = bytes(request.prompt).decode()
    assert "I am {EMAIL}" in prompt
    assert "And {order}?" in prompt
    assert "root@example.com" in prompt  # the system prompt is the developer's own
    assert body["stopReason"] == "end_turn"  # the answer is the model's
    assert body["trace"]["guardrail"]["actionReason"] == "Guardrail masked.\nNo action."
    metrics = body["trace"]["guardrail"]["inputAssessment"][guardrails["mask"]]["invocationMetrics"]
    assert metrics["guardrailCoverage"] == {"textCharacters": {"guarded": 35, "total": 56}}


def guarded(text: str) -> dict[str, Any]:
    return {"guardContent": {"text": {"text": text}}}


def test_guard_content_is_all_that_is_looked_at(
    http: httpx.Client, server: Server, guardrails: Guardrails
) -> None:
    config = guardrails.config("block")
    blocks = [{"text": "forbidden"}, guarded("fine")]
    assert converse(http, user(*blocks), **config).json()["stopReason"] == "end_turn"
    blocks = [{"text": "fine"}, guarded("forbidden")]
    assert converse(http, user(*blocks), **config).json()["stopReason"] == "guardrail_intervened"
    for system, reason in (
        ([{"text": "forbidden"}], "end_turn"),
        ([guarded("forbidden")], "guardrail_intervened"),
    ):
        assert converse(http, system=system, **config).json()["stopReason"] == reason
    # Of a system prompt that is guarded, the messages are looked at all the same.
    answer = converse(http, user({"text": "forbidden"}), system=[guarded("fine")], **config).json()
    assert answer["stopReason"] == "guardrail_intervened"
    assert len(server.engine.requests) == 2


def test_what_is_only_reported(http: httpx.Client, guardrails: Guardrails) -> None:
    body = converse(http, user({"text": "harmless"}), **guardrails.config("block", trace="enabled")).json()
    assert body["stopReason"] == "end_turn"
    assessment = body["trace"]["guardrail"]["inputAssessment"][guardrails["block"]]
    assert assessment["wordPolicy"]["customWords"] == [
        {"match": "harmless", "action": "NONE", "detected": True}
    ]
    assert "topicPolicy" not in assessment


@pytest.mark.parametrize("trace", ["disabled", "enabled", "enabled_full"])
def test_traces(http: httpx.Client, guardrails: Guardrails, trace: str) -> None:
    body = converse(http, **guardrails.config("mask", trace=trace)).json()
    if trace == "disabled":
        assert "trace" not in body
        return
    found = body["trace"]["guardrail"]["inputAssessment"][guardrails["mask"]]
    assert found["appliedGuardrailDetails"]["guardrailVersion"] == "DRAFT"
    entities = [{"match": "", "type": "EMAIL", "action": "NONE", "detected": False}]
    full = {"sensitiveInformationPolicy": {"piiEntities": entities, "regexes": []}}
    wanted = full if trace == "enabled_full" else {}
    assert {name: found[name] for name in found if name.endswith("Policy")} == wanted


def test_without_waiting(http: httpx.Client, server: Server, guardrails: Guardrails) -> None:
    """What has been sent is sent, and nothing follows."""
    server.engine.script = Script(pieces=(b"Some forb", b"idden words", b" and more"))
    events = converse_stream(http, **guardrails.config("block", streamProcessingMode="async"))
    assert said(events) == "Some forb" + MESSAGES["blockedOutputsMessaging"]
    assert events[-2][1] == {"stopReason": "guardrail_intervened"}
    server.engine.script = Script(pieces=(b"Some fine", b" words"))
    events = converse_stream(http, **guardrails.config("block", streamProcessingMode="async"))
    assert said(events) == "Some fine words"
    config = guardrails.config("mask", streamProcessingMode="async")
    answer = http.post(
        "/model/any.model-v1:0/converse-stream", json={"messages": [user({"text": "x"})], **config}
    )
    assert "streamProcessingMode" in message_of(answer)


@pytest.mark.parametrize("size", SIZES)
def test_calls_are_not_looked_at(
    http: httpx.Client, server: Server, guardrails: Guardrails, size: int
) -> None:
    call = CALL.replace(b"Paris", b"ID-1234")
    server.engine.script = Script(pieces=pieces(b"For ID-1234: " + call, size))
    body = converse(http, toolConfig=TOOLS, **guardrails.config("mask")).json()
    text, used = body["output"]["message"]["content"]
    assert text == {"text": "For {order}:"}
    assert used["toolUse"]["input"] == {"city": "ID-1234"}
    server.engine.script = Script(pieces=pieces(b"A forbidden " + call, size))
    body = converse(http, toolConfig=TOOLS, **guardrails.config("block")).json()
    assert body["output"]["message"]["content"] == [{"text": MESSAGES["blockedOutputsMessaging"]}]


def test_a_version_and_an_arn(http: httpx.Client, server: Server, guardrails: Guardrails) -> None:
    server.engine.script = Script(pieces=(MAIL,))
    identifier = guardrails["mask"]
    arn = http.get(f"/guardrails/{identifier}").json()["guardrailArn"]
    http.post(f"/guardrails/{identifier}", json={}).raise_for_status()
    for version in ("1", "DRAFT"):
        config = {"guardrailIdentifier": arn, "guardrailVersion": version}
        body = converse(http, guardrailConfig=config).json()
        assert body["output"]["message"]["content"] == [{"text": MASKED}]
    for config in (
        {"guardrailIdentifier": arn, "guardrailVersion": "2"},
        {"guardrailIdentifier": "nonesuch", "guardrailVersion": "1"},
    ):
        assert "does not exist" in message_of(converse(http, guardrailConfig=config))
    assert "together" in message_of(converse(http, guardrailConfig={"guardrailIdentifier": arn}))


def test_a_change_of_the_draft_counts_at_once(http: httpx.Client, guardrails: Guardrails) -> None:
    config = guardrails.config("block")
    ask = user({"text": "new word"})
    assert converse(http, ask, **config).json()["stopReason"] == "end_turn"
    words = {"wordPolicyConfig": {"wordsConfig": [{"text": "new word"}]}}
    http.put(
        f"/guardrails/{guardrails['block']}", json={"name": "block", **MESSAGES, **words}
    ).raise_for_status()
    assert converse(http, ask, **config).json()["stopReason"] == "guardrail_intervened"


def test_fields_of_the_native_answer_are_masked(
    http: httpx.Client, server: Server, guardrails: Guardrails
) -> None:
    server.engine.script = Script(pieces=(MAIL,))
    body = converse(
        http, additionalModelResponseFieldPaths=["/generation"], **guardrails.config("mask")
    ).json()
    assert body["additionalModelResponseFields"] == {"generation": MASKED}
