"""The table of steps with kernels and without, where torch_xla is."""

from pathlib import Path

import pytest

from outcrop_compile import instances
from outcrop_compile.hlo.environment import FOLDER
from outcrop_compile.kernels.table import rows
from outcrop_compile.shapes import SHAPES
from outcrop_kernels.nki.simulator import cost

PYTHON = Path(__file__).parents[2] / FOLDER / "bin" / "python"


def test_graphs_and_kernels_are_timed_at_the_same_bandwidths() -> None:
    """Which the table adds up."""
    assert cost.DMA_BYTES_PER_SECOND == instances.DMA_BANDWIDTH
    assert cost.HBM_BYTES_PER_SECOND == instances.HBM_BANDWIDTH


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason=f"no {FOLDER}: `make xla` makes it")
def test_kernels_move_fewer_bytes() -> None:
    """Llama 3.1 8B at tp 8, 8 rows. XLA's bytes at 2048 tokens are those of all 32 layers lowered at once
    (benchmarks/results/2026-11-27-hlo-bytes.md, decode-greedy-8x1-64), but for top-k."""
    config = SHAPES["Llama-3.1-8B"].config
    short, long = rows(config, (8,), (8,), (2048, 8192), str(PYTHON))
    assert abs(short.xla - 2741e6) < 5e6
    assert long.xla / long.attention.bytes > 1.5
    for row in (short, long):
        before, after = row.kv
        assert before / after > 2.9
        assert row.every.bytes < row.attention.bytes < row.xla
        assert row.attention.seconds < row.xla_seconds < row.xla_gathers
        for some in (row.attention, row.every):
            assert some.seconds <= some.scheduled_seconds
