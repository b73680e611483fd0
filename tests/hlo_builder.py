"""HLO modules made by hand, for what is easier said than lowered."""

from __future__ import annotations

from collections.abc import Sequence

from outcrop_compile.hlo.module import PRIMITIVE_NUMBERS, HloModule
from outcrop_compile.hlo.wire import Message


def shape_of(kind: str, *dimensions: int) -> Message:
    shape = Message()
    shape.set_integer(2, PRIMITIVE_NUMBERS[kind])
    shape.set_integers(3, dimensions)
    return shape


class Builder:
    """One computation, built from its parameters on."""

    def __init__(self, name: str = "module") -> None:
        self.name = name
        self.instructions: list[Message] = []
        self.parameters = 0
        self.aliases: dict[int, int] = {}

    def parameter(self, kind: str, *dimensions: int) -> int:
        one = self.op("parameter", (), kind, *dimensions)
        self.instructions[-1].set_integer(9, self.parameters)
        self.parameters += 1
        return one

    def op(self, opcode: str, operands: Sequence[int], kind: str, *dimensions: int) -> int:
        """An instruction; what else it needs is set on `self.instructions[-1]`. Returns its id."""
        one = Message()
        number = len(self.instructions) + 1
        one.set_octets(1, f"{opcode}.{number}".encode())
        one.set_octets(2, opcode.encode())
        one.set_messages(3, [shape_of(kind, *dimensions)])
        one.set_integer(35, number)
        one.set_integers(36, operands)
        self.instructions.append(one)
        return number

    def dump(self, *results: int) -> bytes:
        root = self.op("tuple", results, "tuple")
        computation = Message()
        computation.set_octets(1, b"main")
        computation.set_messages(2, self.instructions)
        computation.set_integer(5, 1)
        computation.set_integer(6, root)
        module = Message()
        module.set_octets(1, self.name.encode())
        module.set_octets(2, b"main")
        module.set_messages(3, [computation])
        module.set_integer(6, 1)
        entries = []
        for output, parameter in self.aliases.items():
            entry = Message()
            entry.set_integers(1, [output])
            entry.set_integer(2, parameter)
            entries.append(entry)
        table = Message()
        table.set_messages(1, entries)
        module.set_messages(8, [table])
        return module.dump()

    def module(self, *results: int) -> HloModule:
        return HloModule(self.dump(*results))
