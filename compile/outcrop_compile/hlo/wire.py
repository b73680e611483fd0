"""Protobuf's wire format, as far as HLO needs it.

An `HloModuleProto` is read and edited without the protobuf package and without XLA's schema: a message is its
fields by number, and what is not understood is kept as it was (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_SIGN = 1 << 63


class WireError(ValueError):
    """The bytes are not a protobuf message."""


class Message:
    """One message. Fields come out in ascending order of their numbers, which protobuf allows; within a field
    the order of its values is kept."""

    def __init__(self, data: bytes | memoryview = b"") -> None:
        """Raises WireError."""
        self.fields: dict[int, list[tuple[int, int | bytes]]] = {}
        view, at = memoryview(data), 0
        while at < len(view):
            key, at = _varint(view, at)
            number, kind = key >> 3, key & 7
            value: int | bytes
            if number == 0:
                raise WireError("field number 0")
            if kind == VARINT:
                value, at = _varint(view, at)
            else:
                if kind == LENGTH:
                    size, at = _varint(view, at)
                elif kind in (FIXED64, FIXED32):
                    size = 8 if kind == FIXED64 else 4
                else:
                    raise WireError(f"wire type {kind}")
                if at + size > len(view):
                    raise WireError("a field ends beyond the message")
                value, at = bytes(view[at : at + size]), at + size
            self.fields.setdefault(number, []).append((kind, value))

    def dump(self) -> bytes:
        out = bytearray()
        for number in sorted(self.fields):
            for kind, value in self.fields[number]:
                _put_varint(out, number << 3 | kind)
                if isinstance(value, int):
                    _put_varint(out, value)
                    continue
                if kind == LENGTH:
                    _put_varint(out, len(value))
                out += value
        return bytes(out)

    def __contains__(self, number: int) -> bool:
        return number in self.fields

    def integer(self, number: int) -> int:
        """An int64 or bool; 0 where it is absent, as in proto3."""
        return (self.integers(number) or [0])[-1]

    def integers(self, number: int) -> list[int]:
        """A repeated int64, packed or not."""
        found: list[int] = []
        for kind, value in self.fields.get(number, ()):
            if isinstance(value, int):
                found.append(_signed(value))
            elif kind == LENGTH:
                at = 0
                while at < len(value):
                    one, at = _varint(memoryview(value), at)
                    found.append(_signed(one))
            else:
                raise WireError(f"field {number} holds no integers")
        return found

    def floats(self, number: int) -> list[float]:
        """A repeated float (32 bits), packed or not."""
        data = b"".join(value for _, value in self.fields.get(number, ()) if isinstance(value, bytes))
        return list(struct.unpack(f"<{len(data) // 4}f", data))

    def octets(self, number: int) -> bytes:
        """A string's or a submessage's bytes; empty where it is absent."""
        values = self._lengths(number)
        return values[-1] if values else b""

    def text(self, number: int) -> str:
        return self.octets(number).decode("utf-8", "replace")

    def message(self, number: int) -> Message:
        return Message(self.octets(number))

    def messages(self, number: int) -> list[Message]:
        return [Message(value) for value in self._lengths(number)]

    def set_integer(self, number: int, value: int) -> None:
        self.fields[number] = [(VARINT, value % (1 << 64))]

    def set_integers(self, number: int, values: Iterable[int]) -> None:
        packed = bytearray()
        for value in values:
            _put_varint(packed, value % (1 << 64))
        self.fields[number] = [(LENGTH, bytes(packed))]

    def set_octets(self, number: int, *values: bytes) -> None:
        self.fields[number] = [(LENGTH, value) for value in values]

    def set_messages(self, number: int, values: Iterable[Message]) -> None:
        self.set_octets(number, *(value.dump() for value in values))

    def remove(self, *numbers: int) -> None:
        for number in numbers:
            self.fields.pop(number, None)

    def _lengths(self, number: int) -> list[bytes]:
        values = [value for _, value in self.fields.get(number, ()) if isinstance(value, bytes)]
        if len(values) != len(self.fields.get(number, ())):
            raise WireError(f"field {number} holds integers")
        return values


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(view) or shift > 63:
            raise WireError("a number has no end")
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _put_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _signed(value: int) -> int:
    return value - (_SIGN << 1) if value & _SIGN else value
