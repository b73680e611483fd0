"""One tensor of a checkpoint: where its pieces lie in the files, and how to read a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outcrop_compile.checkpoint.arrays import Array, convert_into

if TYPE_CHECKING:
    from outcrop_compile.checkpoint.groups import Groups

Shape = tuple[int, ...]

# Numbers decoded at a time (1 MiB of float32): the block, and what dequantisation makes on its way to
# it, stay in a core's cache, and thousands of them amortise numpy's cost of a call.
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A rectangle of a tensor, as it lies in one file.

    data: [rows, ...], memory-mapped; decode turns any run of its rows into [rows, columns] of float32,
    float16 or bfloat16 bits (uint16). groups: where the numbers are stored as integers with a scale for a
    group of them, how to read those. row, column: where the rectangle's corner is in the tensor.
    """

    data: Array
    columns: int
    decode: Callable[[Array], Array]
    row: int = 0
    column: int = 0
    groups: Groups | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A canonical tensor. Its pieces cover it exactly once; a vector counts as one row.

    interleaved: 0, or the head size of a q or k whose rows are stored in rotary pairs (x0 y0 x1 y1 ...,
    as Meta and llama.cpp have them); they are read in Hugging Face's order (x0 x1 ... y0 y1 ...).
    """

    shape: Shape
    pieces: tuple[Piece, ...]
    interleaved: int = 0

    @property
    def groups(self) -> Groups | None:
        """How the whole tensor is stored in groups, if it is."""
        return self.pieces[0].groups if len(self.pieces) == 1 else None

    def read_into(self, out: Array, rows: slice = slice(None), columns: slice = slice(None)) -> None:
        """Write this part of the tensor to `out`: float32, or uint16 for bfloat16 bits.

        out: [rows, columns] (or the vector's shape); any strides. Of an interleaved tensor, rows come in
        whole heads. Threads may read at the same time.
        """
        height, width = self.shape if len(self.shape) == 2 else (1, *self.shape)
        top, bottom, _ = rows.indices(height)
        left, right, _ = columns.indices(width)
        out = out.reshape(bottom - top, right - left)
        for piece in self.pieces:
            start, stop = max(left, piece.column), min(right, piece.column + piece.columns)
            if start >= stop:
                continue
            for row, end in self._blocks(piece, top, bottom):
                block = piece.decode(piece.data[row - piece.row : end - piece.row])
                self._place(
                    block[:, start - piece.column : stop - piece.column],
                    out[row - top : end - top, start - left : stop - left],
                )

    def read_groups_into(
        self, codes: Array, scale: Array, minimum: Array | None, rows: slice = slice(None)
    ) -> None:
        """Write these rows of a tensor that has `groups` as they are stored: codes int8 [rows, columns],
        scale and minimum float32 [rows, columns / GROUP]. Given a minimum, codes of 4 bits are 0 .. 15 even
        where the file has none. Otherwise as `read_into`."""
        (piece,) = self.pieces
        assert piece.groups is not None
        top, bottom, _ = rows.indices(self.shape[0])
        for row, end in self._blocks(piece, top, bottom):
            block = piece.groups.read(piece.data[row:end])
            target = slice(row - top, end - top)
            self._place(block.scale, scale[target])
            if minimum is None or block.minimum is not None:
                self._place(block.codes, codes[target])
            else:
                self._place(block.codes + 8, codes[target])
            if minimum is not None:
                self._place(block.scale * -8 if block.minimum is None else block.minimum, minimum[target])

    def _blocks(self, piece: Piece, top: int, bottom: int) -> Iterator[tuple[int, int]]:
        """The tensor's rows from top to bottom that are the piece's, in runs that fit in a cache."""
        first, last = max(top, piece.row), min(bottom, piece.row + len(piece.data))
        unit = self.interleaved or 1
        step = max(1, _BLOCK // (piece.columns * unit)) * unit
        for row in range(first, last, step):
            yield row, min(row + step, last)

    def _place(self, block: Array, out: Array) -> None:
        if self.interleaved:
            half, width = self.interleaved // 2, out.shape[1]
            block = block.reshape(-1, half, 2, width).swapaxes(1, 2)
            out = out.reshape(-1, 2, half, width)  # splits an axis, so this is still a view
        convert_into(block, out)
