"""Makes the lowered graphs that tests read: those of a small model of one layer, for one rank and for one of
two, without kernels and with. Run it where torch_xla is (`make xla` makes such an environment):

    .venv-xla/bin/python tests/compile/lowered/make.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msgspec import structs

from outcrop_compile.artifact.kernels import kernel_names
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.config import LlamaConfig
from outcrop_compile.graph import Graph, Variant
from outcrop_compile.hlo.lower import Lowering
from outcrop_compile.hlo.record import HLO_SUFFIX, Sizes, record_path
from outcrop_kernels.nki.catalogue import chosen_kernels

CONFIG = LlamaConfig(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=256,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    context=1024,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    rope_scaling=None,
    tie_embeddings=False,
)
DECODE = Graph(Bucket(StepKind.DECODE, 4, 1, 8), Variant.SAMPLED)
SIZES = Sizes(
    config=CONFIG, dtype="bfloat16", tp=1, block_size=32, num_blocks=64, max_rows=8, max_positions=256
)
KERNELS = structs.replace(
    SIZES,
    config=replace(CONFIG, hidden_size=256, head_dim=64),
    tp=2,
    kernels=kernel_names(chosen_kernels("all"), gather=True),
)
"""With stand-ins of all kernels, of sizes that they take."""
GRAPHS = (
    ("tp1", SIZES, DECODE),
    ("tp2", structs.replace(SIZES, tp=2), DECODE),
    ("tp2", structs.replace(SIZES, tp=2), Graph(Bucket(StepKind.PREFILL, 1, 32, 8), Variant.GREEDY)),
    ("kernels", KERNELS, DECODE),
    ("kernels-int8", structs.replace(KERNELS, dtype="int8"), DECODE),
)


def main() -> None:
    for folder, sizes, graph in GRAPHS:
        hlo, record = Lowering(sizes).lower(graph)
        path = Path(__file__).parent / folder / (graph.tag + HLO_SUFFIX)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(hlo)
        record_path(path).write_bytes(record.dump())


if __name__ == "__main__":
    main()
