"""What a graph moves through HBM and keeps there, if the compiler fuses what any compiler fuses.

Element-wise operations, casts, broadcasts, slices and changes of layout have no buffer of their own: whoever
reads them reads their sources. Products, gathers, scatters, reductions, custom calls and collectives write a
buffer, as does an element-wise result that several read and that costs more to make again than to read. A
scatter into an aliased parameter moves only what it writes. What an NKI kernel reads has a buffer; how much
of it the kernel moves, a graph does not show: it counts as all of its operands and results. Nothing is kept
in SBUF from one buffer's writing to its reading, although small ones could be: the count is an upper bound of
what must be moved, and a lower one of what a compiler that fuses badly does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from outcrop_compile.hlo.module import Computation, HloModule, Instruction

VIEWS = ("reshape", "bitcast", "copy", "get-tuple-element")
"""The same numbers, in the same place."""
_FUSED = frozenset({
    "abs", "add", "and", "atan2", "bitcast-convert", "broadcast", "ceil", "clamp", "compare", "complex",
    "concatenate", "convert", "copy", "cosine", "divide", "erf", "exponential", "exponential-minus-one",
    "floor", "imag", "iota", "is-finite", "log", "log-plus-one", "logistic", "maximum", "minimum",
    "multiply", "negate", "not", "or", "pad", "power", "real", "reduce-precision", "remainder", "reshape",
    "reverse", "round-nearest-afz", "round-nearest-even", "rsqrt", "select", "shift-left",
    "shift-right-arithmetic", "shift-right-logical", "sign", "sine", "slice", "sqrt", "subtract", "tan",
    "tanh", "transpose", "tuple", "xor", "bitcast", "get-tuple-element",
})  # fmt: skip
_LAYOUT = frozenset({*VIEWS, "broadcast", "transpose", "slice", "convert", "tuple", "iota"})
"""Of the fused ones, those that are never worth a buffer."""
_WRITES = frozenset({"scatter", "dynamic-update-slice"})
_SMALL_CONSTANT = 4096  # bytes that travel with the code


def written_state(computation: Computation, result: Instruction) -> tuple[Instruction, list[Instruction]]:
    """What a result is but for what was written into it, in its place, and what wrote it: scatters and
    kernels, the last one first."""
    one, place, writes = result, 0, list[Instruction]()
    while True:
        if one.opcode in _WRITES or (one.is_kernel and place in one.in_place):
            writes.append(one)
            one, place = computation.operand(one, one.in_place[place] if one.is_kernel else 0), 0
        elif one.opcode in VIEWS or one.opcode == "transpose":
            place = one.tuple_index if one.opcode == "get-tuple-element" else place
            one = computation.operand(one, 0)
        else:
            return one, writes


class Fused:
    """The buffers of a module's entry computation."""

    def __init__(self, module: HloModule) -> None:
        self.entry: Computation = module.entry
        self.aliases = module.aliases
        self._read: dict[int, dict[int, int]] = {}
        self._buffers: dict[int, bool] = {}
        self._in_place = set(self._aliased_writes())

    def _aliased_writes(self) -> Iterator[int]:
        """What writes between a parameter and the output that takes its buffer."""
        for place, result in enumerate(self.entry.results):
            one, writes = written_state(self.entry, result)
            if one.opcode == "parameter" and self.aliases.get(place) == one.parameter_number:
                yield from (write.id for write in writes)

    def buffer(self, one: Instruction) -> bool:
        """Whether an instruction writes a buffer."""
        if one.id not in self._buffers:
            self._buffers[one.id] = self._decide(one)
        return self._buffers[one.id]

    def _decide(self, one: Instruction) -> bool:
        if one.opcode == "constant":
            return one.shape.bytes > _SMALL_CONSTANT
        if one.opcode not in _FUSED:
            return True
        if one.opcode not in VIEWS and self._read_by_kernel(one):
            return True
        if one.opcode in _LAYOUT or len(self.entry.users[one.id]) < 2:
            return False
        return sum(self._operands_read(one).values()) > one.shape.bytes

    def _read_by_kernel(self, one: Instruction) -> bool:
        """As it is, or in another view of it."""
        return any(
            user.is_kernel or (user.opcode in VIEWS and self._read_by_kernel(user))
            for user in self.entry.users[one.id]
        )

    def read(self, one: Instruction) -> dict[int, int]:
        """The buffers that reading an instruction's result reads, and how many bytes of each."""
        if one.id not in self._read:
            if self.buffer(one):
                self._read[one.id] = {one.id: one.shape.bytes}
            elif one.opcode == "slice":
                source = self.entry.operand(one, 0)
                share = one.shape.elements / max(1, source.shape.elements)
                self._read[one.id] = {key: round(size * share) for key, size in self.read(source).items()}
            elif one.opcode == "get-tuple-element":
                self._read[one.id] = self._part(one)
            else:
                self._read[one.id] = self._operands_read(one)
        return self._read[one.id]

    def _part(self, one: Instruction) -> dict[int, int]:
        whole = self.entry.operand(one, 0)
        if whole.opcode == "tuple":
            return self.read(self.entry.operand(whole, one.tuple_index))
        return dict.fromkeys(self.read(whole), one.shape.bytes)

    def _operands_read(self, one: Instruction) -> dict[int, int]:
        """Each source once, however many ways lead to it."""
        total: dict[int, int] = {}
        for operand in self.entry.operands(one):
            for key, size in self.read(operand).items():
                total[key] = min(total.get(key, 0) + size, self.entry.by_id[key].shape.bytes)
        return total

    def moved(self, one: Instruction) -> tuple[dict[int, int], int]:
        """Of an instruction that writes a buffer: bytes read of each other buffer, and bytes written."""
        operands = self.entry.operands(one)
        if one.opcode in ("gather", "dynamic-slice"):
            reads = self._operands_read(one)
            for key in self.read(operands[0]):
                # Of a table, what is taken: less than all of it, or some of it several times.
                reads[key] = one.shape.bytes
            return reads, one.shape.bytes
        if one.id in self._in_place:
            own = one.in_place.values() if one.is_kernel else (0,)
            target = {key for place in own for key in self.read(operands[place])}
            reads = {key: size for key, size in self._operands_read(one).items() if key not in target}
            if one.is_kernel:
                return reads, sum(shape.bytes for shape in one.made)
            return reads, operands[-1 if one.opcode == "scatter" else 1].shape.bytes
        if one.opcode in ("parameter", "constant", "iota"):
            return {}, 0
        return self._operands_read(one), one.shape.bytes

    @cached_property
    def writers(self) -> list[Instruction]:
        """What writes a buffer while the graph runs, in order; last the results that are made for output."""
        return [one for one in self.entry.instructions if self.buffer(one) and one.opcode != "parameter"]

    def traffic(self) -> dict[int, tuple[int, int]]:
        """Bytes read and written by each instruction that writes a buffer or an output."""
        found = {}
        for one in self.writers:
            reads, written = self.moved(one)
            found[one.id] = (sum(reads.values()), written)
        for result in self.entry.results:
            if not self.buffer(result) and not self._is_view(result):
                found[result.id] = (sum(self.read(result).values()), result.shape.bytes)
        return found

    def _is_view(self, one: Instruction) -> bool:
        """Whether an output is a buffer that is there already."""
        while one.opcode in VIEWS or one.opcode == "transpose":
            one = self.entry.operand(one, 0)
        return self.buffer(one)

    def peak_bytes(self) -> int:
        """The most bytes of temporaries that live at once, in the order of the instructions."""
        last: dict[int, int] = {}
        for place, one in enumerate(self.writers):
            for key in self.moved(one)[0]:
                last[key] = place
        for result in self.entry.results:
            for key in self.read(result):
                last[key] = len(self.writers)
        live = most = 0
        ends: dict[int, int] = {}
        for place, one in enumerate(self.writers):
            size = 0 if one.id in self._in_place or one.opcode == "constant" else one.shape.bytes
            live += size
            most = max(most, live)
            ends[last.get(one.id, place)] = ends.get(last.get(one.id, place), 0) + size
            live -= ends.pop(place, 0)
        return most
