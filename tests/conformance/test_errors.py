"""Every error that the model declares for an operation can happen, and looks as the model says."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from outcrop.api.admission import ApiLimits

from .causes import FAULT, GENERATING, OTHER_CAUSES, Cause, call, cause_in_stream, cause_of, client
from .engine import FakeEngine
from .service import OPERATIONS, assert_error, output_stream
from .streams import assemble, read_events

DECLARED = [(name, shape.name) for name, operation in OPERATIONS.items() for shape in operation.error_shapes]
IN_STREAM = [
    (name, event)
    for name, operation in OPERATIONS.items()
    if name in GENERATING and (stream := output_stream(operation))
    for event, shape in operation.output_shape.members[stream].members.items()
    if shape.metadata.get("exception")
]


@pytest.fixture(scope="module")
def faulty() -> Iterator[httpx.Client]:
    """A client of a server whose calls may ask for faults."""
    with client(FakeEngine(), limits=ApiLimits(fault_injection=True)) as (_, http):
        yield http


@pytest.mark.parametrize(("name", "code"), DECLARED)
def test_a_declared_error(faulty: httpx.Client, name: str, code: str) -> None:
    operation = OPERATIONS[name]
    cause = cause_of(operation, code)
    response = cause(operation) if cause else call(operation, faulty, **{FAULT: code})
    assert_error(operation, response, code)


@pytest.mark.parametrize(("name", "code", "cause"), OTHER_CAUSES)
def test_another_cause(name: str, code: str, cause: Cause) -> None:
    operation = OPERATIONS[name]
    assert_error(operation, cause(operation), code)


@pytest.mark.parametrize(("name", "event"), IN_STREAM)
def test_an_error_once_the_stream_has_begun(faulty: httpx.Client, name: str, event: str) -> None:
    operation = OPERATIONS[name]
    cause = cause_in_stream(event)
    fault = f"break-after=1:{event[0].upper()}{event[1:]}"
    response = cause(operation) if cause else call(operation, faulty, **{FAULT: fault})
    assert response.status_code == 200
    events = read_events(operation, response.content)
    assert len(events) > 1
    assert (events[-1].name, events[-1].is_exception) == (event, True)
    assert events[-1].payload["message"]
    if name == "ConverseStream":
        answer = assemble(events)
        assert answer.exception is events[-1]
        assert not answer.metadata
