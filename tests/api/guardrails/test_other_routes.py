"""Guardrails on native bodies and on texts by themselves, and who may use them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ...conformance.causes import keyed
from ..converse.requests import converse, message_of
from ..converse.test_tools import pieces
from ..doubles import Script
from ..families import requests as families
from ..server import Server
from ..shapes import RUNTIME, assert_fits
from .conftest import MESSAGES, POLICIES, Guardrails
from .test_conversations import MAIL, MASKED

LLAMA = "meta.llama3-8b-instruct-v1:0"
BODIES = families.BODIES | {LLAMA: {"prompt": "Hi"}}
STREAMING = [model for model in BODIES if model != families.JURASSIC]


def invoke(
    http: httpx.Client, model: str, headers: dict[str, str], body: dict[str, Any] | None = None
) -> dict[str, Any]:
    response = http.post(f"/model/{model}/invoke", json=body or BODIES[model], headers=headers)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def stream(http: httpx.Client, model: str, headers: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    path = f"/model/{model}/invoke-with-response-stream"
    return families.objects(http.post(path, json=BODIES[model] | more, headers=headers))


@pytest.mark.parametrize("model", BODIES)
def test_whole_answers_of_every_family(
    http: httpx.Client, server: Server, guardrails: Guardrails, model: str
) -> None:
    server.engine.script = Script(pieces=pieces(MAIL, 3))
    answer = invoke(http, model, guardrails.headers("mask", "ENABLED"))
    assert answer.pop("amazon-bedrock-guardrailAction") == "INTERVENED"
    trace = answer.pop("amazon-bedrock-trace")["guardrail"]
    assert trace["modelOutput"] == [MAIL.decode()]
    (assessment,) = (each[guardrails["mask"]] for each in trace["outputs"])
    assert len(assessment["sensitiveInformationPolicy"]["piiEntities"]) == 1
    assert trace["input"].keys() == {guardrails["mask"]}
    assert MASKED in json.dumps(answer)
    assert "joe@example.com" not in json.dumps(answer)
    server.engine.script = Script(pieces=pieces(b"All is well. A forbidden thing" + b" and more" * 50, 3))
    answer = invoke(http, model, guardrails.headers("block"))
    assert answer.pop("amazon-bedrock-guardrailAction") == "INTERVENED"
    assert "amazon-bedrock-trace" not in answer
    assert MESSAGES["blockedOutputsMessaging"] in json.dumps(answer)
    assert "well" not in json.dumps(answer)
    server.engine.script = Script()
    assert invoke(http, model, guardrails.headers("block"))["amazon-bedrock-guardrailAction"] == "NONE"


@pytest.mark.parametrize("model", STREAMING)
def test_streams_of_every_family(
    http: httpx.Client, server: Server, guardrails: Guardrails, model: str
) -> None:
    server.engine.script = Script(pieces=pieces(MAIL, 2))
    found = stream(http, model, guardrails.headers("mask", "ENABLED"))
    last = found[-1]
    assert last["amazon-bedrock-guardrailAction"] == "INTERVENED"
    assert not any("amazon-bedrock-guardrailAction" in chunk for chunk in found[:-1])
    del last["amazon-bedrock-trace"]
    assert "joe" not in json.dumps(found)
    assert "{EMAIL}" in json.dumps(found)
    server.engine.script = Script(pieces=pieces(b"A forbidden thing", 2))
    found = stream(http, model, guardrails.headers("block"))
    written = json.dumps(found)
    assert MESSAGES["blockedOutputsMessaging"] in written
    assert not any(part in written for part in ("forb", "idden"))


def with_text(model: str, text: str) -> dict[str, Any]:
    return json.loads(json.dumps(BODIES[model]).replace("Hi", text))  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", BODIES)
def test_prompts_of_every_family(
    http: httpx.Client, server: Server, guardrails: Guardrails, model: str
) -> None:
    body = with_text(model, "I am joe@example.com")
    answer = invoke(http, model, guardrails.headers("mask"), body)
    assert answer["amazon-bedrock-guardrailAction"] == "INTERVENED"
    (request,) = server.engine.requests
    assert "I am {EMAIL}" in bytes(request.prompt).decode()
    answer = invoke(http, model, guardrails.headers("block"), with_text(model, "forbidden"))
    assert MESSAGES["blockedInputMessaging"] in json.dumps(answer)
    assert len(server.engine.requests) == 1


def tagged(text: str, suffix: str = "xyz") -> str:
    tag = f"amazon-bedrock-guardrails-guardContent_{suffix}"
    return f"<{tag}>{text}</{tag}>"


def test_tags_tell_what_is_looked_at(http: httpx.Client, server: Server, guardrails: Guardrails) -> None:
    config = {"amazon-bedrock-guardrailConfig": {"tagSuffix": "xyz"}}
    headers = guardrails.headers("mask", "ENABLED")
    prompt = f"ID-0001 {tagged('ID-0002')} {tagged('ID-0003', 'abc')} {tagged('ID-0004')}"
    answer = invoke(http, LLAMA, headers, {"prompt": prompt, **config})
    (request,) = server.engine.requests
    wanted = f"ID-0001 {{order}} {tagged('ID-0003', 'abc')} {{order}}"
    assert bytes(request.prompt).decode() == wanted
    (assessment,) = answer["amazon-bedrock-trace"]["guardrail"]["input"].values()
    coverage = assessment["invocationMetrics"]["guardrailCoverage"]["textCharacters"]
    assert coverage == {"guarded": 14, "total": len(prompt)}
    # Without any tag, all of it is looked at.
    invoke(http, LLAMA, headers, {"prompt": "ID-0001", **config})
    assert bytes(server.engine.requests[1].prompt).decode() == "{order}"


@pytest.mark.parametrize(
    "config", [{"tagSuffix": "a b"}, {"tagSuffix": "x" * 21}, {"streamProcessingMode": "no"}, {"a": 1}, "x"]
)
def test_configurations_that_are_none(http: httpx.Client, guardrails: Guardrails, config: Any) -> None:
    body = {"prompt": "x", "amazon-bedrock-guardrailConfig": config}
    answer = http.post(f"/model/{LLAMA}/invoke", json=body, headers=guardrails.headers("mask"))
    assert "amazon-bedrock-guardrailConfig" in message_of(answer)


def test_a_configuration_without_a_guardrail(http: httpx.Client) -> None:
    body = {"prompt": "x", "amazon-bedrock-guardrailConfig": {"tagSuffix": "a"}}
    assert "amazon-bedrock-guardrailConfig" in message_of(http.post(f"/model/{LLAMA}/invoke", json=body))


def test_native_streams_without_waiting(http: httpx.Client, server: Server, guardrails: Guardrails) -> None:
    server.engine.script = Script(pieces=(b"Some forb", b"idden words"))
    config = {"amazon-bedrock-guardrailConfig": {"streamProcessingMode": "ASYNCHRONOUS"}}
    found = stream(http, LLAMA, guardrails.headers("block"), **config)
    assert (
        "".join(chunk["generation"] for chunk in found) == "Some forb" + MESSAGES["blockedOutputsMessaging"]
    )


@pytest.mark.parametrize("model", [families.GPT_OSS, families.JAMBA, families.MISTRAL_CHAT])
def test_log_probabilities_would_tell_what_is_masked(
    http: httpx.Client, server: Server, guardrails: Guardrails, model: str
) -> None:
    body = BODIES[model] | {"logprobs": True}
    answer = http.post(f"/model/{model}/invoke", json=body, headers=guardrails.headers("mask"))
    assert "a guardrail keeps back" in message_of(answer)
    assert server.engine.requests == []


def apply(http: httpx.Client, identifier: str, *texts: str, **fields: Any) -> dict[str, Any]:
    body = {"source": "OUTPUT", "content": [{"text": {"text": text}} for text in texts], **fields}
    response = http.post(f"/guardrail/{identifier}/version/DRAFT/apply", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert_fits(answer, RUNTIME.operation_model("ApplyGuardrail").output_shape)
    return answer


def test_texts_by_themselves(http: httpx.Client, server: Server, guardrails: Guardrails) -> None:
    answer = apply(http, guardrails["mask"], "ID-1234", "fine", "joe@example.com" + "x" * 990)
    assert (answer["action"], answer["actionReason"]) == ("GUARDRAIL_INTERVENED", "Guardrail masked.")
    assert answer["outputs"][:2] == [{"text": "{order}"}, {"text": "fine"}]
    assert answer["usage"]["sensitiveInformationPolicyUnits"] == 2
    assert answer["guardrailCoverage"] == {"textCharacters": {"guarded": 1016, "total": 1016}}
    answer = apply(http, guardrails["mask"], "fine", outputScope="FULL")
    assert (answer["action"], answer["outputs"]) == ("NONE", [])
    assert len(answer["assessments"][0]["sensitiveInformationPolicy"]["piiEntities"]) == 1
    for source, message in (("INPUT", "Not that."), ("OUTPUT", "Nothing of that.")):
        answer = apply(http, guardrails["block"], "fine", "forbidden", source=source)
        assert (answer["actionReason"], answer["outputs"]) == ("Guardrail blocked.", [{"text": message}])
    assert apply(http, guardrails["block"], "harmless", source="INPUT")["action"] == "NONE"
    assert apply(http, guardrails["block"], "harmless")["action"] == "GUARDRAIL_INTERVENED"
    assert server.engine.requests == []


def test_an_unknown_guardrail(http: httpx.Client) -> None:
    body = {"source": "INPUT", "content": []}
    response = http.post("/guardrail/abc/version/DRAFT/apply", json=body)
    assert response.headers["x-amzn-errortype"] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/openai/v1/chat/completions", {"model": LLAMA, "messages": families.HI}),
        ("/openai/v1/completions", {"model": LLAMA, "prompt": "Hi"}),
        ("/openai/v1/responses", {"model": LLAMA, "input": "Hi"}),
        ("/anthropic/v1/messages", {"model": LLAMA, "max_tokens": 5, "messages": families.HI}),
    ],
)
def test_routes_that_apply_none_say_so(
    http: httpx.Client, server: Server, guardrails: Guardrails, path: str, body: dict[str, Any]
) -> None:
    response = http.post(path, json=body, headers=guardrails.headers("mask"))
    assert response.status_code == 400
    assert "GuardrailIdentifier" in response.json()["error"]["message"]
    assert server.engine.requests == []


def test_who_may_use_a_guardrail() -> None:
    """Its ARN is what a policy allows, whatever it is called by."""
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    deny = {
        "Effect": "Deny",
        "Action": "bedrock:ApplyGuardrail",
        "Resource": "arn:aws:bedrock:*:*:guardrail/*",
    }
    with keyed(policy={"Version": "2012-10-17", "Statement": [statement, deny]}) as (http, headers):
        made = http.post("/guardrails", json={"name": "a", **MESSAGES, **POLICIES["mask"]}, headers=headers)
        arn = made.raise_for_status().json()["guardrailArn"]
        http.headers.update(headers)
        for name in (arn, arn.rpartition("/")[2]):
            config = {"guardrailIdentifier": name, "guardrailVersion": "DRAFT"}
            answers = [
                converse(http, guardrailConfig=config),
                http.post(
                    f"/model/{LLAMA}/invoke",
                    json={"prompt": "x"},
                    headers={
                        "x-amzn-bedrock-guardrailidentifier": name,
                        "x-amzn-bedrock-guardrailversion": "DRAFT",
                    },
                ),
                http.post(f"/guardrail/{name.replace('/', '%2F')}/version/DRAFT/apply", json={}),
            ]
            assert [answer.status_code for answer in answers] == [403] * 3
