"""The process that lowers: `python -m outcrop_compile.hlo.worker`, where torch_xla is, apart from the torch
that Outcrop serves with. A request comes in as JSON on standard input; each graph goes to two files, and a
line of JSON on standard output says so.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import msgspec

from outcrop_compile.bucket import Bucket
from outcrop_compile.graph import Graph, Variant
from outcrop_compile.hlo.comparison import Comparison
from outcrop_compile.hlo.record import HLO_SUFFIX, Sizes, record_path

# Compiling for the CPU is what takes time, and the code runs once.
_FLAGS = "--xla_backend_optimization_level=0"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """graphs: which to lower. run: whether to run each on XLA:CPU and compare it with eager mode. out: folder
    of the files."""

    sizes: Sizes
    graphs: tuple[tuple[Bucket, Variant], ...]
    out: str
    run: bool


class Lowered(msgspec.Struct, frozen=True, kw_only=True):
    """One graph is done. seconds: of lowering, and of running it if it was run."""

    tag: str
    file: str
    seconds: float
    compared: Comparison | None


def main() -> None:
    if importlib.util.find_spec("torch_xla") is None:
        sys.exit("torch_xla is not in this environment")
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    os.environ.setdefault("XLA_FLAGS", _FLAGS)
    if request.run:
        os.environ["CPU_NUM_DEVICES"] = str(request.sizes.tp)
    from outcrop_compile.hlo.lower import Lowering

    out = Path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    lowering = Lowering(request.sizes)
    execution = None
    if request.run:
        from outcrop_compile.hlo.execute import Execution

        execution = Execution(request.sizes)
    for bucket, variant in request.graphs:
        start = time.monotonic()
        graph = Graph(bucket, variant)
        hlo, record = lowering.lower(graph)
        path = out / (graph.tag + HLO_SUFFIX)
        path.write_bytes(hlo)
        record_path(path).write_bytes(record.dump())
        compared = execution.compare(hlo, record) if execution is not None else None
        done = Lowered(
            tag=graph.tag, file=str(path), seconds=round(time.monotonic() - start, 3), compared=compared
        )
        print(msgspec.json.encode(done).decode(), flush=True)


if __name__ == "__main__":
    main()
