"""How many compilations a machine has memory for."""

from pathlib import Path

import pytest

from outcrop_compile.builder.memory import available_memory
from outcrop_compile.plan.host import worker_count

GIB = 1 << 30


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [(None, None, 10 * GIB), ("max", "1", 10 * GIB), (str(4 * GIB), str(GIB), 3 * GIB), ("100", "200", 0)],
)
def test_a_containers_limit_counts(
    tmp_path: Path, limit: str | None, used: str | None, expected: int
) -> None:
    (tmp_path / "meminfo").write_text(
        f"MemTotal:  99999999 kB\nMemAvailable:   {10 << 20} kB\nHugePages: 0\n"
    )
    if limit is not None and used is not None:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text(used + "\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) == expected


def test_this_machine_has_some() -> None:
    assert available_memory() > 0


@pytest.mark.parametrize(
    ("graphs", "one", "available", "cpus", "expected"),
    [(20, 8 * GIB, 100 * GIB, 64, 12), (20, 8 * GIB, 500 * GIB, 64, 20), (20, GIB, 500 * GIB, 4, 4),
     (20, 8 * GIB, 7 * GIB, 4, 0)],
)  # fmt: skip
def test_as_many_as_memory_cpus_and_graphs_allow(
    graphs: int, one: int, available: int, cpus: int, expected: int
) -> None:
    assert worker_count(graphs, one, available, cpus) == expected
