"""What a kernel takes and promises, as data: what selects it, and what its tests hold it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from outcrop_kernels.weight_layout import WeightLayout


@dataclass(frozen=True, slots=True)
class Argument:
    """A tensor. shape: names of its sizes with blanks between; a name has one size in all arguments. dtype:
    torch's name of it, or "x"."""

    name: str
    shape: str
    dtype: str = "x"


@dataclass(frozen=True, slots=True)
class Limit:
    """says: what must hold of the sizes, in words. holds: of the sizes by their names, and "item", the bytes
    of a number of type "x"."""

    says: str
    holds: Callable[[Mapping[str, int]], bool]


@dataclass(frozen=True, slots=True)
class Contract:
    """What is computed with has one type, "x", of those that tolerance names.

    tolerance: for each type of "x", how far a result may be from the reference's, computed of the same
    numbers in the next wider type, as a part of its largest magnitude along the last dimension; 0 is
    equality. 2^-8 is what rounding to bfloat16 once may be off."""

    arguments: tuple[Argument, ...]
    results: tuple[Argument, ...]
    limits: tuple[Limit, ...]
    tolerance: Mapping[str, float]

    def refusal(self, tensors: Sequence[Any], sizes: Mapping[str, int] | None = None) -> str | None:
        """Why the kernel does not take these tensors, in the arguments' order (anything with a shape and a
        dtype will do); None if it does. sizes: those that no argument has."""
        sizes = dict(sizes or {})
        kind: str | None = None
        for argument, tensor in zip(self.arguments, tensors, strict=True):
            shape, dtype = tuple(tensor.shape), dtype_of(tensor)
            names = argument.shape.split()
            if len(shape) != len(names):
                return f"{argument.name} has {len(shape)} dimensions, not {len(names)}"
            for name, size in zip(names, shape, strict=True):
                if name.isdigit() and size != int(name):
                    return f"a size of {argument.name} is {size}, not {name}"
                if sizes.setdefault(name, size) != size:
                    return f"{name} is {sizes[name]} and, of {argument.name}, {size}"
            if argument.dtype == "x":
                kind = kind or dtype
            wanted = kind if argument.dtype == "x" else argument.dtype
            if dtype != wanted or (argument.dtype == "x" and dtype not in self.tolerance):
                return f"{argument.name} is {dtype}"
        sizes["item"] = 4 if kind == "float32" else 2
        return next((f"not {limit.says}" for limit in self.limits if not limit.holds(sizes)), None)

    def made(
        self, tensors: Sequence[Any], sizes: Mapping[str, int] | None = None
    ) -> list[tuple[tuple[int, ...], str]]:
        """Shape and dtype of each result for tensors that the kernel takes. sizes: those that no argument
        has."""
        known, kind = dict(sizes or {}), ""
        for argument, tensor in zip(self.arguments, tensors, strict=True):
            known |= zip(argument.shape.split(), tensor.shape, strict=True)
            if argument.dtype == "x":
                kind = dtype_of(tensor)
        return [
            (tuple(known[name] for name in one.shape.split()), kind if one.dtype == "x" else one.dtype)
            for one in self.results
        ]


@dataclass(frozen=True, slots=True)
class Entry:
    """A function in NKI. gathers: its last argument chooses between a gather by indices in SBUF, which not
    every device may have (nki/deep-dives/nki-dge.rst of the SDK: from NeuronCore-v3 on), and one DMA with a
    dynamic address for each row or block. mutable: the arguments that it writes in place and returns."""

    function: Callable[..., Any]
    contract: Contract
    gathers: bool = False
    mutable: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", self.function))


@dataclass(frozen=True, slots=True)
class Kernel:
    """name: of its file, and in `--kernels`. operations: those of the registry that it implements for target
    neuron, whose definitions in `outcrop_kernels.reference` are its oracle and whose XLA versions are taken
    where its contract refuses. instead: what it saves, in words. layout: that of the matrices it reads; None
    where it reads none."""

    name: str
    operations: tuple[str, ...]
    entries: tuple[Entry, ...]
    instead: str
    layout: WeightLayout | None = None

    @property
    def tiling(self) -> str:
        """What lies in SBUF and PSUM, what is moved and multiplied, and how long that takes: in words, from
        its file."""
        return (import_module(f"{__package__}.{self.name}").__doc__ or "").strip()


def dtype_of(tensor: Any) -> str:
    return str(tensor.dtype).rpartition(".")[2]
