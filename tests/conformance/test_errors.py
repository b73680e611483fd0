"""Every error that the model declares for an operation can happen, and looks as the model says."""

from __future__ import annotations

import pytest

from .causes import GENERATING, cause_in_stream, cause_of, engine_down
from .service import OPERATIONS, assert_error, output_stream
from .streams import assemble, read_events

DECLARED = [(name, shape.name) for name, operation in OPERATIONS.items() for shape in operation.error_shapes]
IN_STREAM = [
    (name, event)
    for name, operation in OPERATIONS.items()
    if (stream := output_stream(operation)) and name in GENERATING
    for event, shape in operation.output_shape.members[stream].members.items()
    if shape.metadata.get("exception")
]


@pytest.mark.parametrize(("name", "code"), DECLARED)
def test_a_declared_error(name: str, code: str) -> None:
    operation = OPERATIONS[name]
    assert_error(operation, cause_of(operation, code)(operation), code)


@pytest.mark.parametrize("name", sorted(GENERATING))
def test_an_engine_that_dies(name: str) -> None:
    operation = OPERATIONS[name]
    assert_error(operation, engine_down(operation), "ServiceUnavailableException")


@pytest.mark.parametrize(("name", "event"), IN_STREAM)
def test_an_error_once_the_stream_has_begun(name: str, event: str) -> None:
    operation = OPERATIONS[name]
    response = cause_in_stream(event)(operation)
    assert response.status_code == 200
    events = read_events(operation, response.content)
    assert len(events) > 1
    assert (events[-1].name, events[-1].is_exception) == (event, True)
    assert events[-1].payload["message"]
    if name == "ConverseStream":
        answer = assemble(events)
        assert answer.exception is events[-1]
        assert not answer.metadata
