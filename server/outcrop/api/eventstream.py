"""Encoder of `application/vnd.amazon.eventstream`, the framing of Bedrock's streaming answers.

One message, all integers big-endian:

    u32 total length | u32 headers length | u32 crc32 of those eight bytes
    headers: u8 name length, name, u8 type (7: string), u16 value length, value; repeated
    payload
    u32 crc32 of everything before

The headers of an event depend on its type alone, so they are encoded once per type, and all that is before
the payload depends on the payload's length alone; a message then costs one concatenation and one checksum.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
MAX_HEADERS_BYTES = 128 * 1024
MAX_PAYLOAD_BYTES = 24 * 1024 * 1024

_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_STRING = 7
_OVERHEAD = _PRELUDE.size + 2 * _CRC.size


class MessageType:
    """Messages that share their headers and differ in their payload."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Raises ValueError for a name over 255 bytes, a value over 65,535 or headers over 128 KiB."""
        block = b"".join(_string_header(name, value) for name, value in headers.items())
        if len(block) > MAX_HEADERS_BYTES:
            raise ValueError(f"event headers are {len(block)} bytes; the format allows {MAX_HEADERS_BYTES}")
        self._headers = block

    def encode(self, payload: bytes) -> bytes:
        """One message. Raises ValueError for a payload over 24 MiB, which no decoder accepts."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"event payload is {len(payload)} bytes; the format allows {MAX_PAYLOAD_BYTES}")
        head, checksum = _head(self._headers, len(payload))
        return head + payload + _CRC.pack(crc32(payload, checksum))


@functools.lru_cache(maxsize=1024)
def _head(headers: bytes, payload: int) -> tuple[bytes, int]:
    """What is before a payload of so many bytes, and its checksum. Most events of a stream are as long as one
    before them."""
    lengths = _PRELUDE.pack(_OVERHEAD + len(headers) + payload, len(headers))
    head = lengths + _CRC.pack(crc32(lengths)) + headers
    return head, crc32(head)


def _string_header(name: str, value: str) -> bytes:
    name_bytes, value_bytes = name.encode(), value.encode()
    if not 0 < len(name_bytes) < 1 << 8:
        raise ValueError(f"event header name is {len(name_bytes)} bytes; the format allows 1 to 255")
    if len(value_bytes) >= 1 << 16:
        raise ValueError(f"event header value is {len(value_bytes)} bytes; the format allows 65535")
    return (
        struct.pack(">B", len(name_bytes))
        + name_bytes
        + struct.pack(">BH", _STRING, len(value_bytes))
        + value_bytes
    )


def event(event_type: str) -> MessageType:
    """Events of one type, with JSON payloads."""
    return MessageType(
        {":event-type": event_type, ":content-type": "application/json", ":message-type": "event"}
    )


def split(messages: bytes) -> Iterator[tuple[str, bytes]]:
    """The event type ("" for an exception) and the bytes of each of several whole messages of this
    encoder, one after the other."""
    start = 0
    while start < len(messages):
        total, headers_length = _PRELUDE.unpack_from(messages, start)
        headers_start = start + _PRELUDE.size + _CRC.size
        yield (
            _event_type(messages[headers_start : headers_start + headers_length]),
            messages[start : start + total],
        )
        start += total


def payload(message: bytes) -> bytes:
    """What one whole message carries."""
    _, headers_length = _PRELUDE.unpack_from(message)
    return message[_PRELUDE.size + _CRC.size + headers_length : -_CRC.size]


def exception_type(message: bytes) -> str:
    """The type of one whole message that is an exception; "" of an event."""
    headers = message[_PRELUDE.size + _CRC.size : -len(payload(message)) - _CRC.size]
    return _value(headers, ":exception-type")


def _event_type(headers: bytes) -> str:
    return _value(headers, ":event-type")


def _value(headers: bytes, name: str) -> str:
    """Of a string header, "" if there is none of that name."""
    _, found, rest = headers.partition(bytes((len(name),)) + name.encode() + bytes((_STRING,)))
    return rest[2 : 2 + int.from_bytes(rest[:2])].decode() if found else ""


@functools.cache
def exception(exception_type: str) -> MessageType:
    """Modelled exceptions of one type (lowerCamel name), which end a stream."""
    return MessageType(
        {":exception-type": exception_type, ":content-type": "application/json", ":message-type": "exception"}
    )
