"""What stands beside a graph's HLO, as JSON: which parameter is which tensor, and which outputs take a
parameter's buffer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from outcrop_compile.bucket import Bucket
from outcrop_compile.config import LlamaConfig
from outcrop_compile.graph import Graph, Variant
from outcrop_compile.plan.request import Dtype

HLO_SUFFIX = ".hlo.pb"


class RecordError(ValueError):
    """The file is no record of a lowered graph."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is constant in all graphs of a model. dtype: of weights, activations and KV; int8 is
    of matrices, with a float32 scale for each output feature, and all else bfloat16 then. num_blocks and
    max_rows without their sinks. tp: ranks; the graph is one rank's, and the same for all. max_positions: the
    longest sequence. kernels: that graphs call, as a manifest names them."""

    config: LlamaConfig
    dtype: Dtype
    tp: int
    block_size: int
    num_blocks: int
    max_rows: int
    max_positions: int
    kernels: tuple[str, ...] = ()


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parameter of the graph, in the order of their numbers. name: of a buffer of `PagedLlama`, or of an
    argument of its forward. role: states are the buffers that the graph replaces."""

    name: str
    role: Literal["weight", "state", "input"]
    shape: tuple[int, ...]
    dtype: str


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the result. alias: number of the parameter whose buffer it takes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    alias: int | None


class GraphRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """versions: of the packages that made the graph."""

    bucket: Bucket
    variant: Variant
    sizes: Sizes
    parameters: tuple[Parameter, ...]
    outputs: tuple[Output, ...]
    versions: dict[str, str]

    @property
    def graph(self) -> Graph:
        return Graph(self.bucket, self.variant)

    def dump(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def record_path(hlo: Path) -> Path:
    return hlo.with_name(hlo.name.removesuffix(HLO_SUFFIX) + ".json")


def read_record(path: Path) -> GraphRecord:
    """Raises RecordError, or OSError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=GraphRecord)
    except msgspec.MsgspecError as error:
        raise RecordError(f"{path}: not a record of a lowered graph ({error})") from None
