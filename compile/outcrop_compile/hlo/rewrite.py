"""Edits of an HloModuleProto that torch_xla has no way to ask for. No torch, no XLA."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Mapping, Sequence

from outcrop_compile.hlo.module import PRIMITIVE_NUMBERS, HloError
from outcrop_compile.hlo.wire import LENGTH, Message
from outcrop_kernels.nki.custom_call import TARGET, kernel_aliases

_PACKAGES = ("outcrop_compile/", "outcrop_kernels/")
_MAY_ALIAS = 1  # what JAX and torch_xla write: a compiler that cannot, copies


def finished(data: bytes, parameters: Sequence[str | None], aliases: Mapping[int, str]) -> bytes:
    """A lowered module with its parameters named and its aliases recorded.

    parameters: a name for each of the module's parameters, None for those that are no argument: torch_xla
    passes the token that orders collectives as a zero, which becomes a constant, and the others' numbers
    close up. aliases: from an output's place to the name of the parameter whose buffer it takes; those of
    kernels' stand-ins, which write in place too, are in their configurations. Source files
    are cut to what is below the packages' root, so that a graph is the same wherever it was made.
    """
    module = Message(data)
    names = [name for name in parameters if name is not None]

    def rename(one: Message) -> None:
        if one.text(2) != "parameter":
            return
        name = parameters[one.integer(9)]
        if name is None:
            _make_zero(one)
        else:
            one.set_integer(9, names.index(name))
            metadata = one.message(7)
            metadata.set_octets(2, name.encode())
            one.set_messages(7, [metadata])

    kept = [index for index, name in enumerate(parameters) if name is not None]

    def edit(computation: Message) -> None:
        if computation.integer(5) == module.integer(6):  # the entry
            _edit_instructions(computation, rename)
            computation.set_messages(4, [_with_parameters(computation.message(4), kept, names)])
        _edit_instructions(computation, _shorten_source)
        _edit_instructions(computation, _write_in_place)

    _edit_computations(module, edit)
    module.remove(17)  # stack frames: the caller's files
    module.set_messages(4, [_with_parameters(module.message(4), kept, names)])
    return _with_aliases(module, {output: names.index(name) for output, name in aliases.items()})


def for_cpu(data: bytes, custom_call: str) -> bytes:
    """The module as XLA:CPU runs it, which knows no neuronx-cc, and has all ranks in one process.

    neuronx-cc's top-k (custom_call is its name) becomes XLA:CPU's own, whose indices are signed. Collectives
    get a channel, by which ranks that compiled their own copies find each other, and lose the token that
    orders them and the layouts that it wants.
    """
    module = Message(data)
    found: set[int] = set()
    tokens: dict[int, int] = {}
    channels = itertools.count(1)

    def swap(one: Message) -> None:
        opcode = one.text(2)
        if opcode == "custom-call" and one.text(28) == custom_call:
            one.set_octets(28, b"TopK")
            one.remove(43)
            shape = one.message(3)
            values, ids = shape.messages(4)
            shape.set_messages(4, [values, _signed(ids)])
            one.set_messages(3, [shape])
            found.add(one.integer(35))
        elif opcode in ("all-reduce", "all-gather"):
            one.set_integer(26, next(channels))
            one.remove(56, 57)
            if parts := one.message(3).messages(4):
                summed, tokens[one.integer(35)] = one.integers(36)
                one.set_integers(36, (summed,))
                one.set_messages(3, parts[:1])
        elif opcode == "get-tuple-element":
            source = one.integers(36)[0]
            if source in tokens:
                one.set_octets(2, b"copy")
                one.set_integers(36, (source if one.integer(13) == 0 else tokens[source],))
            elif source in found and one.integer(13) == 1:
                one.set_messages(3, [_signed(one.message(3))])

    _edit_computations(module, lambda computation: _edit_instructions(computation, swap))
    return module.dump()


def _edit_computations(module: Message, edit: Callable[[Message], None]) -> None:
    computations = module.messages(3)
    for computation in computations:
        edit(computation)
    module.set_messages(3, computations)


def _edit_instructions(computation: Message, edit: Callable[[Message], None]) -> None:
    instructions = computation.messages(2)
    for one in instructions:
        edit(one)
    computation.set_messages(2, instructions)


def _make_zero(one: Message) -> None:
    shape = one.message(3)
    if shape.integer(2) != PRIMITIVE_NUMBERS["f32"] or shape.integers(3):
        raise HloError(f"parameter {one.text(1)} is neither an argument nor a token between collectives")
    literal = Message()
    literal.set_messages(1, [shape])
    literal.fields[8] = [(LENGTH, struct.pack("<f", 0.0))]
    one.set_octets(2, b"constant")
    one.remove(9)
    one.set_messages(8, [literal])


def _shorten_source(one: Message) -> None:
    metadata = one.message(7)
    metadata.remove(15)  # its stack frame
    file = metadata.text(3)
    for package in _PACKAGES:
        if package in file:
            metadata.set_octets(3, (package + file.rpartition(package)[2]).encode())
            one.set_messages(7, [metadata])
            return
    metadata.remove(3, 4)
    one.set_messages(7, [metadata])


def _write_in_place(one: Message) -> None:
    """Let a kernel's stand-in say which of its results take an operand's buffer."""
    if one.text(28) != TARGET:
        return
    several = bool(one.message(3).messages(4))
    entries = []
    for result, operand in kernel_aliases(one.octets(43)).items():
        entry = Message()
        entry.set_integers(1, [result] if several else [])
        entry.set_integer(2, operand)
        entries.append(entry)
    one.set_messages(74, entries)


def _with_parameters(program: Message, kept: Sequence[int], names: Sequence[str]) -> Message:
    """A ProgramShapeProto with the kept parameters, under these names."""
    shapes = program.messages(1)
    program.set_messages(1, [shapes[index] for index in kept])
    program.set_octets(3, *(name.encode() for name in names))
    return program


def _with_aliases(module: Message, aliases: Mapping[int, int]) -> bytes:
    entries = []
    for output, parameter in aliases.items():
        entry = Message()
        entry.set_integers(1, [output])
        entry.set_integer(2, parameter)
        entry.set_integer(4, _MAY_ALIAS)
        entries.append(entry)
    table = Message()
    table.set_messages(1, entries)
    module.set_messages(8, [table])
    return module.dump()


def _signed(shape: Message) -> Message:
    shape.set_integer(2, PRIMITIVE_NUMBERS["s32"])
    return shape
