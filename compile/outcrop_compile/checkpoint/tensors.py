"""One tensor of a checkpoint: where its pieces lie in the files, and how to read a part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outcrop_compile.checkpoint.arrays import Array, convert_into

Shape = tuple[int, ...]

# Numbers decoded at a time (1 MiB of float32): the block, and what dequantisation makes on its way to
# it, stay in a core's cache, and thousands of them amortise numpy's cost of a call.
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A rectangle of a tensor, as it lies in one file.

    data: [rows, ...], memory-mapped; decode turns any run of its rows into [rows, columns] of float32,
    float16 or bfloat16 bits (uint16). row, column: where the rectangle's corner is in the tensor.
    """

    data: Array
    columns: int
    decode: Callable[[Array], Array]
    row: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A canonical tensor. Its pieces cover it exactly once; a vector counts as one row.

    interleaved: 0, or the head size of a q or k whose rows are stored in rotary pairs (x0 y0 x1 y1 ...,
    as Meta and llama.cpp have them); they are read in Hugging Face's order (x0 x1 ... y0 y1 ...).
    """

    shape: Shape
    pieces: tuple[Piece, ...]
    interleaved: int = 0

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
            first, last = max(top, piece.row), min(bottom, piece.row + len(piece.data))
            start, stop = max(left, piece.column), min(right, piece.column + piece.columns)
            if start >= stop:
                continue
            unit = self.interleaved or 1
            step = max(1, _BLOCK // (piece.columns * unit)) * unit
            for row in range(first, last, step):
                end = min(row + step, last)
                block = piece.decode(piece.data[row - piece.row : end - piece.row])
                self._place(
                    block[:, start - piece.column : stop - piece.column],
                    out[row - top : end - top, start - left : stop - left],
                )

    def _place(self, block: Array, out: Array) -> None:
        if self.interleaved:
            half, width = self.interleaved // 2, out.shape[1]
            block = block.reshape(-1, half, 2, width).swapaxes(1, 2)
            out = out.reshape(-1, 2, half, width)  # splits an axis, so this is still a view
        convert_into(block, out)
