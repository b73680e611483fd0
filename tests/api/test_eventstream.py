"""The event-stream encoder against botocore's decoder."""

from __future__ import annotations

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from outcrop.api import eventstream

names = st.text(min_size=1, max_size=40).filter(lambda name: len(name.encode()) <= 255)
headers = st.dictionaries(names, st.text(max_size=200), max_size=6)


@given(headers=headers, payload=st.binary(max_size=2000))
def test_botocore_decodes_what_was_encoded(headers: dict[str, str], payload: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.MessageType(headers).encode(payload))
    (message,) = list(buffer)
    assert message.headers == headers
    assert message.payload == payload


@given(payloads=st.lists(st.binary(max_size=30), min_size=1, max_size=3))
def test_frames_survive_being_cut_at_every_byte(payloads: list[bytes]) -> None:
    stream = b"".join(eventstream.event("chunk").encode(payload) for payload in payloads)
    for cut in range(len(stream) + 1):
        buffer = EventStreamBuffer()
        buffer.add_data(stream[:cut])
        found = [message.payload for message in buffer]
        buffer.add_data(stream[cut:])
        found += [message.payload for message in buffer]
        assert found == payloads


def test_event_and_exception_headers_are_the_services() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.event("messageStart").encode(b"{}"))
    buffer.add_data(eventstream.exception("throttlingException").encode(b"{}"))
    event, exception = list(buffer)
    assert event.headers == {
        ":event-type": "messageStart",
        ":content-type": "application/json",
        ":message-type": "event",
    }
    assert exception.headers == {
        ":exception-type": "throttlingException",
        ":content-type": "application/json",
        ":message-type": "exception",
    }


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"": "x"}, "name"),
        ({"n" * 256: "x"}, "name"),
        ({"n": "x" * 65536}, "value"),
        ({str(number): "x" * 60000 for number in range(3)}, "headers"),
    ],
)
def test_headers_that_the_format_cannot_hold(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        eventstream.MessageType(headers)


def test_a_payload_that_no_decoder_accepts() -> None:
    with pytest.raises(ValueError, match="payload"):
        eventstream.event("chunk").encode(bytes(eventstream.MAX_PAYLOAD_BYTES + 1))
