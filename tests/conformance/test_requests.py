"""Every member of every operation's request: each value it takes is taken, each rule it breaks is told.

The members, their values and their rules come from the service's model; see `surface` for what does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from _pytest.mark.structures import ParameterSet

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
