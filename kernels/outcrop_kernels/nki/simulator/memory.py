"""Memory of the simulated core: what nl.ndarray allocates, and the views that instructions read and write."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import dtypes
from outcrop_kernels.nki.simulator.dtypes import DType
from outcrop_kernels.nki.simulator.rules import Place, here, refuse, refuse_name


class MemoryRegion(Enum):
    sbuf = "sbuf"
    psum = "psum"
    private_hbm = "private_hbm"
    shared_hbm = "shared_hbm"


ON_CHIP = frozenset({MemoryRegion.sbuf, MemoryRegion.psum})

PARTITIONS = 128
PSUM_BANK_BYTES = 2048
PSUM_BANKS = 8
SBUF_BYTES = 192 * 1024 - 16384
"""Per partition: what is left to a kernel. The reserve, for dynamic DMA, is what aws-neuron/nki-library takes
off Trn2's 224 KiB (core/mlp/mlp_cte/mlp_cte_constants.py); foxl-ai/kiln reads the same 180224 on trn1."""

_BY_MATMUL, _BY_OTHERS, _SUM_READ = 1, 2, 3


@dataclass(slots=True, eq=False)
class Life:
    """What is remembered of an allocation when its data are gone."""

    name: str
    buffer: MemoryRegion
    bytes: int
    """Per partition."""
    place: Place
    first: int | None = None
    """The first instruction that touched it."""
    last: int = 0
    written: float = 0.0
    """When the last result is in it, in seconds, and from which engine."""
    writer: str = ""
    read: float = 0.0
    """When its last reader is done, and which that is."""
    reader: str = ""


class Storage:
    """One allocation. Its data are flat; `written` says of each element whether it holds anything."""

    __slots__ = (
        "argument",
        "buffer",
        "complete",
        "contested",
        "data",
        "dtype",
        "history",
        "life",
        "log",
        "mutable",
        "name",
        "shape",
        "written",
    )

    def __init__(self, shape: tuple[int, ...], dtype: DType, buffer: MemoryRegion, name: str) -> None:
        self.shape, self.dtype, self.buffer, self.name = shape, dtype, buffer, name
        self.life = Life(name, buffer, prod(shape[1:]) * dtypes.width(dtype), here())
        size = prod(shape)
        self.data: NDArray[Any] = np.zeros(size, dtype=dtypes.stored(dtype))
        self.written = np.zeros(size, dtype=np.bool_)
        self.complete = False
        """Known to be written everywhere, for good."""
        self.contested: NDArray[np.bool_] | None = None
        """Where a scatter wrote several rows to one place, and any of them may have won."""
        self.history = np.zeros(size, dtype=np.uint8) if buffer is MemoryRegion.psum else None
        """Of PSUM: what wrote each element, which decides whether a matmul adds."""
        self.argument = False
        self.mutable = False
        self.log: list[tuple[Life, bool]] = []
        """Where its machine wants to know of reads (False) and writes (True)."""

    def touch(self, clock: int, wrote: bool) -> None:
        self.log.append((self.life, wrote))
        if self.life.first is None:
            self.life.first = clock
        self.life.last = clock


class Tensor:
    """A view: the element [i, j, ...] lies at offset + i * strides[0] + j * strides[1] + ... of its storage.

    Not iterable and without a truth value: what it holds is not known when a kernel is compiled.
    """

    __slots__ = (
        "dtype",
        "index_step",
        "offset",
        "scalar_offset",
        "shape",
        "storage",
        "strides",
        "vector_offset",
    )

    def __init__(
        self,
        storage: Storage,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int = 0,
        dtype: DType | None = None,
        scalar_offset: Tensor | None = None,
        vector_offset: Tensor | None = None,
        index_step: int = 0,
    ) -> None:
        self.storage, self.shape, self.strides, self.offset = storage, shape, strides, offset
        self.dtype = dtype or storage.dtype
        self.scalar_offset, self.vector_offset, self.index_step = scalar_offset, vector_offset, index_step

    @property
    def buffer(self) -> MemoryRegion:
        return self.storage.buffer

    @property
    def on_chip(self) -> bool:
        return self.storage.buffer in ON_CHIP

    @property
    def dynamic(self) -> bool:
        return self.scalar_offset is not None or self.vector_offset is not None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def free(self) -> int:
        """Elements per partition."""
        return prod(self.shape[1:])

    @property
    def start_partition(self) -> int:
        row = prod(self.storage.shape[1:]) * dtypes.width(self.storage.dtype) // dtypes.width(self.dtype)
        return self.offset // row

    def __repr__(self) -> str:
        named = f" {self.storage.name!r}" if self.storage.name else ""
        return f"{self.buffer.value} tensor{named} {list(self.shape)} {self.dtype}"

    # -- views ---------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Tensor:
        if self.dynamic:
            refuse("view", "a view with a dynamic address is not indexed again")
        shape, strides, offset = [], [], self.offset
        for dim, item in enumerate(self._expanded(key)):
            length, stride = self.shape[dim], self.strides[dim]
            if isinstance(item, Window):
                item = slice(item.start, item.start + item.size)
            if isinstance(item, slice):
                start, stop, step = self._bounds(item, length, dim)
                shape.append(max(0, -(-(stop - start) // step)))
                strides.append(stride * step)
                offset += start * stride
                continue
            index = integer(item, f"index {item!r} of dimension {dim}")
            if self.on_chip and dim == 0:
                refuse("index", f"the partition dimension of {self} is taken by the integer {index}")
            if not -length <= index < length:
                refuse("view", f"index {index} of dimension {dim} is outside of {self}")
            offset += (index % length) * stride
        if 0 in shape:
            refuse("view", f"the slice {key!r} of {self} is empty")
        if self.on_chip and len(shape) < 2:
            refuse("index", f"{self} indexed by {key!r} would have {len(shape)} dimension")
        if not shape:
            shape, strides = [1], [1]
        return Tensor(self.storage, tuple(shape), tuple(strides), offset, self.dtype)

    def _expanded(self, key: Any) -> list[Any]:
        items = list(key) if isinstance(key, tuple) else [key]
        if sum(item is Ellipsis for item in items) > 1 or len(items) > self.ndim + (Ellipsis in items):
            refuse("view", f"{self} has {self.ndim} dimensions, the index has more")
        if Ellipsis not in items:
            items.append(Ellipsis)
        at = items.index(Ellipsis)
        return items[:at] + [slice(None)] * (self.ndim - len(items) + 1) + items[at + 1 :]

    def _bounds(self, item: slice, length: int, dim: int) -> tuple[int, int, int]:
        start = 0 if item.start is None else integer(item.start, "a slice's start")
        stop = length if item.stop is None else integer(item.stop, "a slice's end")
        step = 1 if item.step is None else integer(item.step, "a slice's step")
        # numpy would cut a slice short; the compiler refuses it.
        if step < 1 or not 0 <= start <= length or not 0 <= stop <= length:
            refuse("view", f"the slice {start}:{stop}:{step} of dimension {dim} leaves {self}")
        if self.on_chip and dim == 0 and step != 1:
            refuse("access-pattern", f"partitions of {self} are strided by {step}")
        return start, stop, step

    def reshape(self, shape: tuple[int, ...]) -> Tensor:
        shape = tuple(integer(size, "a shape") for size in shape)
        if prod(shape) != self.size:
            refuse("view", f"{self} has {self.size} elements, {list(shape)} has {prod(shape)}")
        if self.on_chip and (not shape or shape[0] != self.shape[0]):
            refuse("view", f"reshape to {list(shape)} changes the partitions of {self}")
        if self.dynamic or not self.contiguous:
            refuse("view", f"{self} is not contiguous, so it has no view of shape {list(shape)}")
        inner = dense(shape)
        if self.on_chip and shape:
            inner = (self.strides[0], *inner[1:])
        return Tensor(self.storage, shape, inner, self.offset, self.dtype)

    @property
    def contiguous(self) -> bool:
        """Row-major without gaps, within each partition where it is on chip."""
        skip = 1 if self.on_chip else 0
        wanted = dense(self.shape)
        return all(
            have == want or size == 1
            for have, want, size in zip(self.strides[skip:], wanted[skip:], self.shape[skip:], strict=True)
        )

    def ap(
        self,
        pattern: Any,
        offset: int = 0,
        scalar_offset: Tensor | None = None,
        vector_offset: Tensor | None = None,
        indirect_dim: int = 0,
        dtype: DType | None = None,
    ) -> Tensor:
        """The access pattern [[stride, count], ...] in elements of `dtype`, from `offset` on.

        An index from SBUF counts along dimension `indirect_dim` of this tensor, not of the pattern:
        scalar_offset moves the whole pattern, vector_offset [P, 1] takes the place of its first step.
        """
        if self.offset or self.size != self.storage.data.size or self.dynamic:
            refuse("view", f".ap() is called on a view of {self}")
        if scalar_offset is not None and vector_offset is not None:
            refuse("view", "scalar_offset and vector_offset exclude each other")
        counts = tuple(integer(count, "a count") for _, count in pattern)
        strides = tuple(integer(stride, "a stride") for stride, _ in pattern)
        target = dtype or self.dtype
        if not dtypes.known(target):
            refuse("dtype", f"{target!r} is not a type of NeuronCore-v2 that the simulator knows")
        if not counts or min(counts) < 1:
            refuse("view", f"the pattern {pattern!r} is empty")
        view = Tensor(
            self.storage,
            counts,
            strides,
            integer(offset, "offset"),
            target,
            scalar_offset,
            vector_offset,
            prod(self.shape[integer(indirect_dim, "indirect_dim") + 1 :]),
        )
        row = prod(self.storage.shape[1:]) * dtypes.width(self.dtype) // dtypes.width(target)
        if self.on_chip and counts[0] > 1 and strides[0] != row:
            refuse("access-pattern", f"the first stride is {strides[0]}, a partition has {row} elements")
        if self.on_chip:
            within = view.offset % row + sum(
                s * (c - 1) for s, c in zip(strides[1:], counts[1:], strict=True)
            )
            if within >= row or min(strides[1:], default=0) < 0:
                refuse("view", f"the pattern {pattern!r} leaves a partition of {self} of {row} elements")
        if not self._holds(view):
            refuse("view", f"the pattern {pattern!r} from {offset} on leaves {self}")
        if vector_offset is not None and indirect_dim != 0:
            refuse("dma-index", "vector_offset applies to dimension 0 only")
        if view.dynamic and min(strides) < 0:
            refuse("access-pattern", "a pattern with a dynamic address goes backwards")
        return view

    def _holds(self, view: Tensor) -> bool:
        if view.dynamic:
            return True
        last = view.offset + sum(s * (c - 1) for s, c in zip(view.strides, view.shape, strict=True))
        bytes_held = self.storage.data.nbytes
        return view.offset >= 0 and (last + 1) * dtypes.width(view.dtype) <= bytes_held

    # -- what a compiler cannot know --------------------------------------------------------------------

    def _unknown(self, wanted: str) -> NoReturn:
        refuse("tile-value", f"{wanted} of {self} is asked for")

    def __bool__(self) -> bool:
        self._unknown("the truth")

    def __int__(self) -> int:
        self._unknown("the integer")

    def __index__(self) -> int:
        self._unknown("the integer")

    def __float__(self) -> float:
        self._unknown("the number")

    def __len__(self) -> int:
        refuse("subset", f"len() of {self} is not NKI: take .shape[0]")

    def __iter__(self) -> Any:
        self._unknown("each element")

    def __eq__(self, other: object) -> bool:
        if other is not None:
            self._unknown("a comparison")
        return False  # NKI has no `is`: `== None` is how a kernel asks whether an operand was given.

    def __lt__(self, other: object) -> bool:
        self._unknown("a comparison")

    def __gt__(self, other: object) -> bool:
        self._unknown("a comparison")

    def __setitem__(self, key: Any, value: Any) -> None:
        refuse("subset", "a tensor is written by an instruction: nisa.tensor_copy(dst=t[...], src=...)")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        refuse_name("subset", f"tensors have no .{name} in SDK 2.28: use slices, .reshape or .ap")


class Window:
    """nl.ds(start, size)."""

    __slots__ = ("size", "start")

    def __init__(self, start: Any, size: Any) -> None:
        self.start = integer(start, "the start of nl.ds")
        self.size = integer(size, "the size of nl.ds")


def integer(value: Any, what: str) -> int:
    if isinstance(value, Tensor):
        refuse("tile-value", f"{what} is {value}, not an integer")
    if isinstance(value, bool) or not isinstance(value, int):
        refuse("language", f"{what} is {value!r}, not an integer")
    return value


def dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


# -- reading and writing -----------------------------------------------------------------------------


def window(flat: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """The elements of `flat` that a static view addresses, without a copy."""
    width = flat.itemsize
    return np.ndarray(
        tensor.shape,
        dtype=flat.dtype,
        buffer=flat,
        offset=tensor.offset * width,
        strides=tuple(stride * width for stride in tensor.strides),
    )


def read(tensor: Tensor, clock: int) -> NDArray[Any]:
    """The elements as stored.

    Raises:
        Refused: some were never written.
    """
    storage = tensor.storage
    storage.touch(clock, wrote=False)
    if tensor.dtype != storage.dtype:
        return _reinterpreted(tensor)
    if not storage.complete and not window(storage.written, tensor).all():
        refuse_unwritten(tensor)
    if storage.history is not None:
        history = window(storage.history, tensor)
        history[history == _BY_MATMUL] = _SUM_READ
    return window(storage.data, tensor)


def _reinterpreted(tensor: Tensor) -> NDArray[Any]:
    storage = tensor.storage
    if not storage.written.all():
        refuse_unwritten(tensor)
    return window(storage.data.view(dtypes.stored(tensor.dtype)), tensor)


def refuse_unwritten(tensor: Tensor, missing: int | None = None) -> NoReturn:
    """
    Raises:
        Refused: always.
    """
    storage = tensor.storage
    contested = False
    if not tensor.dynamic and tensor.dtype == storage.dtype:
        missing = int((~window(storage.written, tensor)).sum())
        contested = storage.contested is not None and bool(window(storage.contested, tensor).any())
    why = ", among them rows that a scatter wrote more than once" if contested else ""
    refuse(
        "uninitialised",
        f"{missing or 'some'} of {tensor.size} elements of {tensor} were never written{why}; "
        f"it was allocated at line {storage.life.place.line}",
    )


def write(tensor: Tensor, values: NDArray[Any], clock: int, by_matmul: bool = False) -> None:
    """Stores elements, already of the tensor's type, row-major into the view."""
    storage = tensor.storage
    storage.touch(clock, wrote=True)
    if tensor.dtype != storage.dtype:
        refuse("view", f"{tensor} is written as {tensor.dtype}, it was allocated as {storage.dtype}")
    window(storage.data, tensor)[...] = values.reshape(tensor.shape)
    window(storage.written, tensor)[...] = True
    if storage.history is not None:
        window(storage.history, tensor)[...] = _BY_MATMUL if by_matmul else _BY_OTHERS


def accumulates(tensor: Tensor) -> bool:
    """Whether a matmul into this PSUM view adds to what is there.

    Raises:
        Refused: something else wrote there, the tile was already read, or only a part of it was begun.
    """
    storage = tensor.storage
    assert storage.history is not None
    history = window(storage.history, tensor)
    begun = history == _BY_MATMUL
    if (history == _BY_OTHERS).any():
        refuse("psum-accumulate", f"a matmul writes into {tensor}, which another instruction wrote")
    if (history == _SUM_READ).any():
        refuse("psum-accumulate", f"a matmul writes into {tensor}, whose sum was already read")
    if not begun.any():
        return False
    if not begun.all():
        refuse("psum-accumulate", f"a matmul writes into {tensor}, of which only a part was begun")
    return True
