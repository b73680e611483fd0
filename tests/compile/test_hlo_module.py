"""Reading and editing HLO without protobuf."""

import math
import struct
from pathlib import Path

import pytest
from hlo_builder import Builder
from hypothesis import given
from hypothesis import strategies as st

from outcrop_compile.hlo.module import HloError, HloModule, literal
from outcrop_compile.hlo.rewrite import for_cpu
from outcrop_compile.hlo.wire import FIXED32, FIXED64, LENGTH, VARINT, Message, WireError

LOWERED = Path(__file__).parent / "lowered"
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.dictionaries(st.integers(1, 2**29 - 1), st.lists(INT64, min_size=1), max_size=5))
def test_repeated_integers_survive_a_round_trip(fields: dict[int, list[int]]) -> None:
    message = Message()
    for number, values in fields.items():
        message.set_integers(number, values)
    again = Message(message.dump())
    assert {number: again.integers(number) for number in fields} == fields


def test_every_kind_of_field_is_kept_whether_it_is_understood_or_not() -> None:
    raw = (
        bytes([1 << 3 | VARINT, 0x96, 0x01])
        + bytes([2 << 3 | FIXED64])
        + struct.pack("<d", 2.5)
        + bytes([3 << 3 | LENGTH, 2])
        + b"hi"
        + bytes([4 << 3 | FIXED32])
        + struct.pack("<f", -1.5)
    )
    message = Message(raw)
    assert message.integer(1) == 150
    assert message.text(3) == "hi"
    assert message.floats(4) == [-1.5]
    assert message.integer(9) == 0
    assert message.dump() == raw


@pytest.mark.parametrize("raw", [b"\x0a\x05hi", b"\x08\xff", b"\x0b", b"\x00", b"\x08" + b"\xff" * 11])
def test_bytes_that_are_no_message(raw: bytes) -> None:
    with pytest.raises(WireError):
        Message(raw)


def test_a_lowered_graph_is_read_and_written_without_loss() -> None:
    raw = (LOWERED / "tp2" / "decode-sampled-4x1-8.hlo.pb").read_bytes()
    assert Message(Message(raw).dump()).dump() == Message(raw).dump()
    module = HloModule(raw)
    assert [str(one.shape) for one in module.entry.results[:3]] == ["s32[4]", "s32[4]", "s32[9]"]
    sums = [one for one in module.entry.instructions if one.opcode == "all-reduce"]
    assert [one.replica_groups for one in sums] == [[[0, 1]]] * 2
    sources = {one.source.file for one in module.entry.instructions if one.opcode == "dot"}
    assert sources == {"outcrop_kernels/reference.py"}


def test_an_hlo_proto_around_a_module_is_taken_too() -> None:
    build = Builder()
    around = Message()
    around.set_octets(1, build.dump(build.parameter("f32", 2)))
    around.set_octets(3, b"")
    assert HloModule(around.dump()).name == "module"


@pytest.mark.parametrize("raw", [b"", b"HloModule text", b"\x7fELF", Message().dump(), b"\x12\x04main"])
def test_what_is_no_module(raw: bytes) -> None:
    with pytest.raises(HloError):
        HloModule(raw)


def test_an_operand_that_does_not_exist_is_named() -> None:
    build = Builder()
    module = build.module(build.op("abs", (17,), "f32", 2))
    with pytest.raises(HloError, match=r"abs\.1 reads instruction 17"):
        module.entry.operands(module.entry.results[0])


@pytest.mark.parametrize(
    ("kind", "field", "raw", "values"),
    [
        ("f32", 8, struct.pack("<2f", 1.5, -math.inf), [1.5, -math.inf]),
        ("bf16", 13, struct.pack("<2f", 1.5, -2.0)[2:4] + struct.pack("<f", -2.0)[2:], [1.5, -2.0]),
        ("f64", 9, struct.pack("<d", 0.1), [0.1]),
        ("s8", 15, bytes([5, 0xFF]), [5, -1]),
    ],
)
def test_literals(kind: str, field: int, raw: bytes, values: list[float]) -> None:
    build = Builder()
    one = build.op("constant", (), kind, len(values))
    content = Message()
    content.set_octets(field, raw)
    build.instructions[-1].set_messages(8, [content])
    assert literal(build.module(one).entry.results[0]) == values


def test_negative_integers_of_a_literal() -> None:
    build = Builder()
    one = build.op("constant", (), "s32", 3)
    content = Message()
    content.set_integers(4, [7, -1, 0xFFFFFFFE])
    build.instructions[-1].set_messages(8, [content])
    assert literal(build.module(one).entry.results[0]) == [7, -1, -2]


def test_the_top_k_for_the_cpu_has_signed_indices_and_nothing_else_changes() -> None:
    raw = (LOWERED / "tp1" / "decode-sampled-4x1-8.hlo.pb").read_bytes()
    before, after = HloModule(raw).entry, HloModule(for_cpu(raw, "AwsNeuronTopK")).entry
    changed = [
        (str(old), str(new))
        for old, new in zip(before.instructions, after.instructions, strict=True)
        if str(old) != str(new) or old.target != new.target
    ]
    assert [new.partition(" = ")[2] for _, new in changed] == [
        "(f32[4,256], s32[4,256]) custom-call",
        "s32[4,256] get-tuple-element",
    ]
    assert {one.target for one in after.instructions if one.opcode == "custom-call"} == {"TopK"}
