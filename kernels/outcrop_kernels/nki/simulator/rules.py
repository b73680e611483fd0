"""What is refused: each rule as data, and the error that names a kernel's line and the rule it broke."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_PACKAGE = str(Path(__file__).parent)
"""Whose lines are the simulator's, not a kernel's."""

_ARCH = "AWS Neuron docs, nki/guides/architecture/trainium_inferentia2_arch.rst"
_ISA = "AWS Neuron docs, nki.isa API reference"
_NOTES = "AWS Neuron docs, release-notes/components/nki.rst"
_APS = "AWS Neuron docs, nki/deep-dives/nki-aps.rst"
_GUIDE = "AWS Neuron docs, nki/get-started/nki-language-guide.rst"


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    limit: str
    why: str
    mend: str
    source: str


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a kernel's source."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def text(self) -> str:
        return linecache.getline(self.file, self.line).strip()


class Refused(Exception):
    """A kernel did what NeuronCore-v2, or NKI as of SDK 2.28 to 2.32, cannot do."""

    def __init__(self, rule: Rule, what: str, place: Place) -> None:
        self.rule = rule
        self.what = what
        self.place = place
        super().__init__(
            f"{place}: {rule.name}: {what}\n    {place.text}\n"
            f"  Limit: {rule.limit}. {rule.why}\n  Mend: {rule.mend}\n  Source: {rule.source}"
        )


class NoSuchName(Refused, AttributeError):
    """A kernel asks for a name that the common subset does not have."""


def of_simulator(file: str) -> bool:
    return file.startswith(_PACKAGE)


_replayed: ContextVar[Place | None] = ContextVar("nki_replayed", default=None)


@contextmanager
def at(place: Place) -> Iterator[None]:
    """`here` is that place: an instruction runs later than the kernel's line that issued it."""
    token = _replayed.set(place)
    try:
        yield
    finally:
        _replayed.reset(token)


def here() -> Place:
    """The innermost line outside of the simulator."""
    replayed = _replayed.get()
    if replayed is not None:
        return replayed
    frame = sys._getframe(1)
    while frame.f_back is not None and of_simulator(frame.f_code.co_filename):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)


def refuse(rule: str, what: str, place: Place | None = None) -> NoReturn:
    """
    Raises:
        Refused: always, for the rule of that name.
    """
    raise Refused(RULES[rule], what, place or here())


def refuse_name(rule: str, what: str) -> NoReturn:
    """
    Raises:
        NoSuchName: always.
    """
    raise NoSuchName(RULES[rule], what, here())


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "partitions",
            "an on-chip tensor has at most 128 partitions (its first dimension)",
            "SBUF and PSUM have 128 partitions; a compute engine has 128 lanes.",
            "tile the first dimension by nl.tile_size.pmax and loop.",
            _ARCH,
        ),
        Rule(
            "start-partition",
            "an operand of more than 64 partitions starts at partition 0, of 33 to 64 at 0 or 64, of up to "
            "32 at 0, 32, 64 or 96",
            "The engines reach the memories by quadrants of 32 partitions.",
            "slice partitions at multiples of 32, or give the piece a tensor of its own (DMA can write to "
            "any partition).",
            _ARCH,
        ),
        Rule(
            "access-pattern",
            "an operand has up to 4 free dimensions, each of at most 65535 elements with a stride that fits "
            "in int16, and every partition has the same pattern",
            "Sizes are uint16 and strides int16 in an instruction; partitions cannot be strided.",
            "merge dimensions, slice less, or copy into a tensor of the wanted layout by DMA.",
            _ARCH,
        ),
        Rule(
            "view",
            "a view stays inside of its tensor, .ap() is called on a whole tensor, reshape keeps the "
            "partitions and the number of elements",
            "What .ap() on a view means changed between SDK 2.28 (offset 0) and 2.32 (the view's offset).",
            "call .ap() on the tensor as nl.ndarray gave it, with an explicit offset.",
            _APS,
        ),
        Rule(
            "index",
            "an on-chip tensor's partitions are taken by a slice, and at least two dimensions stay",
            "SDK 2.28 drops the dimension that an integer index takes, SDK 2.31 and later keep it.",
            "write t[i:i + 1] or t[nl.ds(i, 1)] instead of t[i].",
            _GUIDE,
        ),
        Rule(
            "matmul-shape",
            "stationary is [K <= 128, M <= 128], moving [K, N <= 512], dst [M, N]",
            "The systolic array is 128 x 128, and a matmul writes into one PSUM bank of 512 float32.",
            "tile M, K by 128 and N by 512; accumulate over K into the same PSUM tile.",
            _ARCH,
        ),
        Rule(
            "matmul-memory",
            "the tensor engine reads SBUF and writes PSUM",
            "It has no other connection.",
            "nisa.tensor_copy the operand from PSUM into SBUF, and allocate dst with buffer=nl.psum.",
            _ISA + ", nc_matmul",
        ),
        Rule(
            "matmul-dtype",
            "operands are float; float32 goes only with float32; dst is float32",
            "NeuronCore-v2 accumulates in float32 and has no integer matmul.",
            "cast with nisa.tensor_copy before (integers to bfloat16), and out of PSUM after.",
            _ISA + ", nc_matmul",
        ),
        Rule(
            "transpose-finite",
            "the tensor engine transposes finite numbers",
            "On NeuronCore-v2 it multiplies by the identity: 0 * inf is NaN all along a column.",
            "replace infinities by the largest finite number, or use nisa.dma_copy with a transposed "
            "pattern.",
            _ISA + ", nc_transpose",
        ),
        Rule(
            "psum-bank",
            "a PSUM tile is at most 2 KiB per partition",
            "PSUM is 8 banks of 2 KiB per partition; an instruction writes into one.",
            "split the free dimension into tiles of nl.tile_size.psum_fmax (512) float32.",
            _ARCH,
        ),
        Rule(
            "psum-budget",
            "at most 8 PSUM banks are in use at once",
            "PSUM is 16 KiB per partition. A tile is counted as whole banks from its first write to its "
            "last use.",
            "copy results out to SBUF before starting others; accumulate fewer tiles at once.",
            _ARCH,
        ),
        Rule(
            "psum-accumulate",
            "a matmul accumulates onto what matmuls wrote since the tile was allocated, and onto nothing "
            "else",
            "On NeuronCore-v2 accumulating onto a memset or a copy is undefined, and whether a matmul "
            "overwrites or adds is inferred from the tile's history.",
            "take a fresh nl.ndarray(..., buffer=nl.psum) for each sum, inside of the loop, without memset.",
            _ISA + ", nc_matmul",
        ),
        Rule(
            "psum-access",
            "GpSimd and DMA cannot reach PSUM, and two operands of one instruction are not both in PSUM",
            "They have no connection to it.",
            "nisa.tensor_copy into SBUF first (vector engine).",
            _ARCH,
        ),
        Rule(
            "sbuf-budget",
            "180224 bytes per partition are in use at once",
            "SBUF is 192 KiB per partition, of which 176 KiB are left to a kernel. A tensor is counted from "
            "its first write to its last use.",
            "tile smaller, reuse tensors, or load nearer to the use.",
            _ARCH + "; for the reserve, https://github.com/aws-neuron/nki-library, mlp_cte_constants.py",
        ),
        Rule(
            "uninitialised",
            "only what was written is read",
            "On the chip it would be what an earlier kernel left there.",
            "write every element first (nisa.memset, nisa.dma_copy), or slice what was written.",
            "AWS Neuron docs, nki/guides/nki_simulator.rst",
        ),
        Rule(
            "affine-range",
            "iterations of nl.affine_range are independent, but for sums of matmuls in PSUM",
            "The compiler may run them in any order.",
            "use nl.sequential_range for a loop that carries a value.",
            "AWS Neuron docs 2.28, nl.affine_range",
        ),
        Rule(
            "static-bounds",
            "a loop's bounds are integers known when the kernel is compiled",
            "Loops are unrolled; nl.dynamic_range is deprecated in SDK 2.32 and its replacement is new "
            "there.",
            "take the bound from a shape or an argument; pad and mask the rest.",
            _NOTES,
        ),
        Rule(
            "tile-value",
            "Python control flow does not depend on what a tensor holds",
            "The kernel is unrolled before it runs; values exist on the device only.",
            "compute both and choose with nisa.tensor_copy_predicated or by multiplying with a 0/1 mask.",
            _GUIDE,
        ),
        Rule(
            "dtype",
            "the instruction takes these element types",
            "NeuronCore-v2 computes in float32, has no 64-bit types, and casts only where the instruction "
            "says.",
            "use the type named, casting with nisa.tensor_copy.",
            _ISA,
        ),
        Rule(
            "integer-precision",
            "integers that go through float32 are at most 2^24 in magnitude",
            "The vector and scalar engines compute in float32; bits would be lost.",
            "do int32 arithmetic with nisa.tensor_tensor on GpSimd (both operands int32), or use bit "
            "operators.",
            _ISA + ", tensor_tensor",
        ),
        Rule(
            "shape",
            "operands have the same partitions and the same number of elements per partition",
            "There is no broadcasting between tensors.",
            "use nisa.tensor_scalar for a [P, 1] operand, or .ap() with a stride of 0 in a free dimension.",
            _NOTES,
        ),
        Rule(
            "op",
            "the instruction takes these operators",
            "The engine has no other; divide and mod do not exist in hardware.",
            "division is nisa.reciprocal and multiply.",
            "AWS Neuron docs, nki.api.shared (supported operators)",
        ),
        Rule(
            "activation-range",
            "the scalar engine's function is valid in this range",
            "Outside of it the polynomial gives wrong numbers.",
            "clamp or shift the input with nisa.tensor_scalar first.",
            "AWS Neuron docs, nki.api.shared (supported activation functions)",
        ),
        Rule(
            "activation-bias",
            "on NeuronCore-v2 bias is None or a [P, 1] tensor, and nl.reciprocal takes none",
            "A scalar bias came with NeuronCore-v3.",
            "nisa.memset a [P, 1] tensor, or use nisa.tensor_scalar.",
            _ISA + ", activation",
        ),
        Rule(
            "dma-bounds",
            "every address of a DMA lies inside of its tensor",
            "The runtime stops the program.",
            "mask the index, or oob_mode=nisa.oob_mode.skip to leave out what lies outside.",
            _ISA + ", dma_copy",
        ),
        Rule(
            "gather-bounds",
            "an index into a partition lies inside of it",
            "The engine does not check, and reads what is there.",
            "bound the indices with nisa.tensor_tensor(op=nl.minimum) first.",
            _ISA + ", nc_n_gather",
        ),
        Rule(
            "dma-index",
            "an index tensor is int32 or uint32 [P, 1] in SBUF, one index per partition",
            "The descriptor generator reads it so.",
            "nisa.dma_copy or nisa.tensor_copy the indices into such a tensor.",
            _ISA + ", dma_copy",
        ),
        Rule(
            "indirect-dma",
            "gather and scatter (vector_offset) need the capability indirect_dma",
            "The docs say NeuronCore-v3 and later; older kernels used it on v2. A device decides.",
            "use one DMA per row with scalar_offset, or simulate with indirect_dma=True.",
            "AWS Neuron docs, nki/deep-dives/nki-dge.rst",
        ),
        Rule(
            "dynamic-address",
            "only DMA takes an address that the device computes, one per transfer",
            "Engines' access patterns are fixed in their instructions on NeuronCore-v2.",
            "nisa.dma_copy the piece into a tensor of its own.",
            "AWS Neuron docs, nki/deep-dives/nki-dge.rst",
        ),
        Rule(
            "hbm-write",
            "a kernel writes into HBM tensors of its own (nl.shared_hbm) and into the arguments declared "
            "mutable",
            "Other arguments belong to the graph around the kernel.",
            "allocate the output with buffer=nl.shared_hbm and return it, or declare the argument in "
            "`mutable` and return it.",
            _NOTES,
        ),
        Rule(
            "output",
            "a kernel returns HBM tensors in nl.shared_hbm, each once, and all of them written",
            "SDK 2.29 and later refuse nl.hbm outputs; a graph's results share no buffer.",
            "nl.ndarray(..., buffer=nl.shared_hbm), nisa.dma_copy into all of it, return it.",
            _NOTES,
        ),
        Rule(
            "engine",
            "the instruction runs on these engines of NeuronCore-v2",
            "Others lack it, or got it with a later chip.",
            "leave `engine` out, or use the instruction named.",
            _ISA,
        ),
        Rule(
            "later-chip",
            "this exists from NeuronCore-v3 (Trn2) or v4 (Trn3) on",
            "Inf2 and Trn1 are NeuronCore-v2.",
            "use what the message names instead.",
            _ISA,
        ),
        Rule(
            "subset",
            "only what SDK 2.28 to 2.32 all have, under one meaning, is used",
            "A kernel is compiled by whichever of them is installed.",
            "see outcrop_kernels.nki.subset for what there is.",
            "AWS Neuron docs, nki/migration/index.rst",
        ),
        Rule(
            "language",
            "a kernel uses the Python that the NKI compiler reads",
            "It is compiled from its source, not run.",
            "rewrite with for, if, assignments, functions, tuples, lists.",
            _NOTES,
        ),
        Rule(
            "instructions",
            "an unrolled kernel has at most 5 million instructions",
            "neuronx-cc refuses more (NCC_EBVF030).",
            "use larger tiles or split the kernel.",
            "AWS Neuron docs, compiler/error-codes",
        ),
        Rule(
            "size",
            "the instruction takes this many elements per partition",
            "The engine's buffer is that large.",
            "tile the free dimension and combine.",
            _ISA,
        ),
    )
}
