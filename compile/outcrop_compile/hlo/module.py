"""An HLO module as a linter and a byte count see it. No torch, no XLA.

Field numbers: xla/service/hlo.proto and xla/xla_data.proto of https://github.com/openxla/xla.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cached_property

from outcrop_compile.hlo.wire import Message, WireError
from outcrop_kernels.nki.custom_call import TARGET, kernel_name

PRIMITIVES = {
    1: "pred", 2: "s8", 3: "s16", 4: "s32", 5: "s64", 6: "u8", 7: "u16", 8: "u32", 9: "u64", 10: "f16",
    11: "f32", 12: "f64", 13: "tuple", 14: "opaque", 15: "c64", 16: "bf16", 17: "token", 18: "c128",
    19: "f8e5m2", 20: "f8e4m3fn", 21: "s4", 22: "u4", 23: "f8e4m3b11fnuz", 24: "f8e5m2fnuz",
    25: "f8e4m3fnuz", 26: "s2", 27: "u2", 28: "f8e4m3", 29: "f8e3m4", 30: "s1", 31: "u1", 32: "f4e2m1fn",
    33: "f8e8m0fnu",
}  # fmt: skip
PRIMITIVE_NUMBERS = {name: number for number, name in PRIMITIVES.items()}
_BITS = {
    "pred": 8, "s64": 64, "u64": 64, "f64": 64, "c64": 64, "c128": 128, "s32": 32, "u32": 32, "f32": 32,
    "s16": 16, "u16": 16, "f16": 16, "bf16": 16, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "s1": 1, "u1": 1,
    "f4e2m1fn": 4, "tuple": 0, "opaque": 0, "token": 0,
}  # fmt: skip
INTEGERS = frozenset(name for name in PRIMITIVES.values() if name[0] in "su" and name[1].isdigit())


class HloError(ValueError):
    """Not an HLO module, or one that contradicts itself."""


@dataclass(frozen=True, slots=True)
class Shape:
    """type: as in HLO text (f32, bf16, s32, pred, tuple). dimensions: sizes, of a dynamic one its bound.
    parts: of a tuple."""

    type: str
    dimensions: tuple[int, ...] = ()
    dynamic: bool = False
    parts: tuple[Shape, ...] = ()

    @property
    def elements(self) -> int:
        return math.prod(self.dimensions)

    @property
    def itemsize(self) -> float:
        """Bytes of one element."""
        return _BITS.get(self.type, 8) / 8

    @property
    def bytes(self) -> int:
        if self.parts:
            return sum(part.bytes for part in self.parts)
        return math.ceil(self.elements * self.itemsize)

    def leaves(self) -> tuple[Shape, ...]:
        """Itself, or a tuple's arrays."""
        if self.type == "tuple":
            return tuple(leaf for part in self.parts for leaf in part.leaves())
        return (self,)

    def __str__(self) -> str:
        if self.type == "tuple":
            return f"({', '.join(map(str, self.parts))})"
        return f"{self.type}[{','.join(map(str, self.dimensions))}]"

    @classmethod
    def read(cls, message: Message) -> Shape:
        return cls(
            PRIMITIVES.get(message.integer(2), f"type {message.integer(2)}"),
            tuple(message.integers(3)),
            any(message.integers(6)) or any(size < 0 for size in message.integers(3)),
            tuple(cls.read(part) for part in message.messages(4)),
        )


@dataclass(frozen=True, slots=True)
class Source:
    """What in the model an instruction came from, as far as its maker noted it."""

    operation: str
    file: str
    line: int

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else ""
        return " at ".join(part for part in (self.operation, place) if part)


class Instruction:
    """One instruction. `message` is its HloInstructionProto, for the fields that are only its opcode's."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.id = message.integer(35)
        self.name = message.text(1)
        self.opcode = message.text(2)
        self.shape = Shape.read(message.message(3))
        self.operands = tuple(message.integers(36))
        self.called = tuple(message.integers(38))

    def __str__(self) -> str:
        return f"{self.name} = {self.shape} {self.opcode}"

    @property
    def parameter_number(self) -> int:
        return self.message.integer(9)

    @property
    def tuple_index(self) -> int:
        return self.message.integer(13)

    @property
    def dimensions(self) -> tuple[int, ...]:
        return tuple(self.message.integers(14))

    @property
    def target(self) -> str:
        """Of a custom call."""
        return self.message.text(28)

    @property
    def is_kernel(self) -> bool:
        """Whether it calls an NKI kernel."""
        return self.opcode == "custom-call" and self.target == TARGET

    @cached_property
    def kernel(self) -> str:
        """The name of the kernel's function that it calls."""
        return kernel_name(self.message.octets(43))

    @cached_property
    def in_place(self) -> dict[int, int]:
        """Of a custom call: from a result (its place in the tuple, or 0) to the operand whose buffer it
        takes."""
        aliases = self.message.messages(74)
        return {(one.integers(1) or [0])[0]: one.integer(2) for one in aliases}

    @property
    def made(self) -> tuple[Shape, ...]:
        """Its results but for those that take an operand's buffer."""
        leaves = enumerate(self.shape.leaves())
        return tuple(shape for place, shape in leaves if place not in self.in_place)

    @property
    def replica_groups(self) -> list[list[int]]:
        return [group.integers(1) for group in self.message.messages(49)]

    @cached_property
    def source(self) -> Source:
        metadata = self.message.message(7)
        return Source(metadata.text(2) or metadata.text(1), metadata.text(3), metadata.integer(4))


class Computation:
    """Instructions in an order in which operands come before their users."""

    def __init__(self, message: Message) -> None:
        self.name = message.text(1)
        self.id = message.integer(5)
        self.instructions = [Instruction(one) for one in message.messages(2)]
        self.by_id = {one.id: one for one in self.instructions}
        root = message.integer(6)
        if root not in self.by_id:
            raise HloError(f"computation {self.name} has no instruction {root}, which should be its root")
        self.root = self.by_id[root]

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        return self.operands(instruction)[index]

    def operands(self, instruction: Instruction) -> list[Instruction]:
        try:
            return [self.by_id[number] for number in instruction.operands]
        except KeyError as error:
            raise HloError(f"{instruction.name} reads instruction {error}, which does not exist") from None

    @cached_property
    def users(self) -> dict[int, list[Instruction]]:
        found: dict[int, list[Instruction]] = {one.id: [] for one in self.instructions}
        for one in self.instructions:
            for operand in set(one.operands):
                found[operand].append(one)
        return found

    @cached_property
    def parameters(self) -> list[Instruction]:
        found = [one for one in self.instructions if one.opcode == "parameter"]
        return sorted(found, key=lambda one: one.parameter_number)

    @property
    def results(self) -> list[Instruction]:
        """The root's parts, or the root."""
        return self.operands(self.root) if self.root.opcode == "tuple" else [self.root]


class HloModule:
    """aliases: from output (its place in the root tuple) to the parameter whose buffer it takes."""

    def __init__(self, data: bytes) -> None:
        """data: an HloModuleProto, or an HloProto around one. Raises HloError."""
        try:
            message = Message(data)
            if 3 not in message or 2 not in message:
                message = message.message(1)
            self.name = message.text(1)
            self.computations = {one.id: one for one in map(Computation, message.messages(3))}
            entry = message.integer(6)
            self.aliases = {
                alias.integers(1)[0] if alias.integers(1) else 0: alias.integer(2)
                for alias in message.message(8).messages(1)
            }
        except WireError as error:
            raise HloError(f"not an HloModuleProto ({error})") from None
        if entry not in self.computations:
            raise HloError("not an HloModuleProto (no entry computation)")
        self.entry = self.computations[entry]


_LITERALS = {
    "pred": 2, "s8": 15, "u8": 3, "s32": 4, "s64": 5, "u32": 6, "u64": 7, "f32": 8, "f64": 9, "f16": 11,
    "bf16": 13, "u16": 16, "s16": 17,
}  # fmt: skip
_FORMATS = {"s8": "b", "u8": "B", "f32": "f", "f64": "d", "f16": "e", "u16": "H", "s16": "h"}


def literal(instruction: Instruction) -> list[float] | None:
    """The numbers of a constant; None where its type is none of the usual ones."""
    message, kind = instruction.message.message(8), instruction.shape.type
    if kind not in _LITERALS:
        return None
    field = _LITERALS[kind]
    if kind in ("pred", "s32", "s64", "u32", "u64"):
        values = message.integers(field)
        # A negative int32 that was packed as 32 bits.
        return [value - (1 << 32) if kind == "s32" and value >= 1 << 31 else value for value in values]
    data = b"".join(value for _, value in message.fields.get(field, ()) if isinstance(value, bytes))
    if kind == "bf16":
        data, kind = b"".join(b"\0\0" + data[at : at + 2] for at in range(0, len(data), 2)), "f32"
    size = struct.calcsize(_FORMATS[kind])
    return list(struct.unpack(f"<{len(data) // size}{_FORMATS[kind]}", data))
