"""Makes the lowered graphs that tests read: those of a small model of one layer, for one rank and for one of
two. Run it where torch_xla is (`make xla` makes such an environment):

    .venv-xla/bin/python tests/compile/lowered/make.py
"""

from __future__ import annotations

from pathlib import Path

from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.config import LlamaConfig
from outcrop_compile.graph import Graph, Variant
from outcrop_compile.hlo.lower import Lowering
from outcrop_compile.hlo.record import HLO_SUFFIX, Sizes, record_path

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
GRAPHS = (
    (1, Graph(Bucket(StepKind.DECODE, 4, 1, 8), Variant.SAMPLED)),
    (2, Graph(Bucket(StepKind.DECODE, 4, 1, 8), Variant.SAMPLED)),
    (2, Graph(Bucket(StepKind.PREFILL, 1, 32, 8), Variant.GREEDY)),
)


def main() -> None:
    for tp, graph in GRAPHS:
        sizes = Sizes(
            config=CONFIG,
            dtype="bfloat16",
            tp=tp,
            block_size=32,
            num_blocks=64,
            max_rows=8,
            max_positions=256,
        )
        hlo, record = Lowering(sizes).lower(graph)
        path = Path(__file__).parent / f"tp{tp}" / (graph.tag + HLO_SUFFIX)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(hlo)
        record_path(path).write_bytes(record.dump())


if __name__ == "__main__":
    main()
