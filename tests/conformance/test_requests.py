"""Every member of every operation's request: each value it takes is taken, each rule it breaks is told.

The members, their values and their rules come from the service's model; see `surface` for what does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from _pytest.mark.structures import ParameterSet
from botocore.model import StructureShape

from ..api.server import Server
from . import surface
from .answers import assert_answer
from .members import Member, members, valid_values, violations
from .service import OPERATIONS, Wire, assert_error


def _cases() -> Iterator[ParameterSet]:
    """Every member of every operation. Converse, ConverseStream and CountTokens share most of their shapes;
    what is in a shape that came before is left to the long run."""
    seen: set[str] = set()
    for name in ("Converse", *sorted(OPERATIONS.keys() - {"Converse"})):
        for member in members(OPERATIONS[name]):
            marks = [pytest.mark.slow] if member.owner.name in seen else []
            yield pytest.param(name, member, id=f"{name}-{member.path}", marks=marks)
        seen |= {member.owner.name for member in members(OPERATIONS[name])}


CASES = list(_cases())


@pytest.mark.parametrize("name", sorted(surface.NOT_OFFERED))
def test_an_operation_that_is_not_offered(http: httpx.Client, name: str) -> None:
    operation = OPERATIONS[name]
    code, words = surface.NOT_OFFERED[name]
    assert code in {shape.name for shape in operation.error_shapes}
    message = assert_error(operation, Wire.of(operation, surface.request(operation)).send(http), code)
    assert words in message


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - surface.NOT_OFFERED.keys()))
def test_the_base_request(http: httpx.Client, name: str) -> None:
    operation = OPERATIONS[name]
    assert_answer(name, Wire.of(operation, surface.request(operation)).send(http))


def test_a_profile_is_only_made_of_what_can_be_listed(http: httpx.Client) -> None:
    """On a server that takes any name for its model's."""
    source = {"copyFrom": "arn:aws:bedrock:us-east-1::foundation-model/0fa"}
    body = {"inferenceProfileName": "a", "modelSource": source}
    response = http.post("/inference-profiles", json=body)
    assert_error(OPERATIONS["CreateInferenceProfile"], response, "ResourceNotFoundException")


@pytest.mark.parametrize(("name", "member"), CASES)
def test_a_member_takes_what_fits(http: httpx.Client, server: Server, name: str, member: Member) -> None:
    operation = OPERATIONS[name]
    for value in valid_values(member.shape, member.key):
        asked = server.engine.asked
        response = Wire.of(operation, member.place(value)).send(http)
        if not member.refusal:
            assert_answer(name, response)
        else:
            message = assert_error(operation, response, "ValidationException")
            assert re.search(member.refusal, message), message
            assert server.engine.asked == asked


@pytest.mark.parametrize(("name", "member"), CASES)
def test_a_member_refuses_what_does_not_fit(
    http: httpx.Client, server: Server, name: str, member: Member
) -> None:
    operation = OPERATIONS[name]
    asked = server.engine.asked
    for violation in violations(member):
        response = Wire.of(operation, violation.params).send(http)
        assert response.status_code == 400, (violation.rule, response.status_code, response.text)
        message = assert_error(operation, response, violation.code)
        assert re.search(violation.says, message), (violation.rule, message)
    assert server.engine.asked == asked
    assert server.app.state.admission.inflight == 0


STRUCTURES = [
    case
    for case in CASES
    if isinstance(case.values[1].shape, StructureShape) and not case.values[1].shape.is_document_type
]


@pytest.mark.parametrize(("name", "member"), STRUCTURES)
def test_unknown_members_are_ignored(http: httpx.Client, name: str, member: Member) -> None:
    """As the service does: a client may be newer than the server."""
    operation = OPERATIONS[name]
    value = {**valid_values(member.shape, member.key)[0], "nonesuch": {"a": [1]}}
    response = Wire.of(operation, member.place(value)).send(http)
    if not member.refusal:
        assert_answer(name, response)
    else:
        assert re.search(member.refusal, assert_error(operation, response, "ValidationException"))


@pytest.mark.parametrize("name", ["Converse", "ConverseStream", "CountTokens"])
def test_unknown_members_of_the_request_are_ignored(http: httpx.Client, name: str) -> None:
    operation = OPERATIONS[name]
    params = surface.request(operation) | {"nonesuch": {"a": [1]}}
    assert_answer(name, Wire.of(operation, params).send(http))


NATIVE = {"prompt": "Hi", "max_gen_len": 4}


@pytest.mark.parametrize("name", ["InvokeModel", "InvokeModelWithResponseStream"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, r"#: required key \[prompt\] not found"),
        ([], "#: expected type: JSONObject, found: JSONArray"),
        (NATIVE | {"nonesuch": 1}, r"#: extraneous key \[nonesuch\] is not permitted"),
        (NATIVE | {"prompt": ""}, "#/prompt: expected minLength: 1, actual: 0"),
        (NATIVE | {"prompt": None}, "#/prompt: expected type: String, found: Null"),
        (NATIVE | {"temperature": 1.5}, "#/temperature: 1.5 is not less or equal to 1"),
        (NATIVE | {"temperature": -1}, "#/temperature: -1 is not greater or equal to 0"),
        (NATIVE | {"top_p": "1"}, "#/top_p: expected type: Number, found: String"),
        (NATIVE | {"max_gen_len": 0}, "#/max_gen_len: 0 is not greater or equal to 1"),
        (NATIVE | {"max_gen_len": 2049}, "#/max_gen_len: 2049 is not less or equal to 2048"),
        (NATIVE | {"max_gen_len": 1.5}, "#/max_gen_len: expected type: Integer, found: BigDecimal"),
    ],
)
def test_the_native_body(http: httpx.Client, server: Server, name: str, body: object, says: str) -> None:
    operation = OPERATIONS[name]
    asked = server.engine.asked
    params = surface.request(operation) | {"body": json.dumps(body)}
    message = assert_error(operation, Wire.of(operation, params).send(http), "ValidationException")
    assert re.search(says, message), message
    assert server.engine.asked == asked
