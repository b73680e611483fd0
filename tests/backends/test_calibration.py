"""What is tried on a machine, what is made of it, and that it is remembered."""

from __future__ import annotations

from pathlib import Path

import demo
import pytest

from outcrop.backends import calibration
from outcrop.backends.calibration import Calibration, best_threads, prefill_limit, recall, remember
from outcrop_compile.bucket import StepKind
from outcrop_compile.processors import usable_cores, usable_processors


@pytest.mark.parametrize(
    ("taken", "best"),
    [
        ({4: 1.0, 8: 0.8}, 8),
        ({4: 1.0, 8: 1.3}, 4),
        ({4: 1.0, 8: 0.99}, 4),  # no more than measurements differ
    ],
)
def test_more_threads_must_be_faster(taken: dict[int, float], best: int) -> None:
    assert best_threads(tuple(taken), taken.__getitem__) == best


def test_one_count_is_not_tried() -> None:
    def never(count: int) -> float:
        raise AssertionError(count)

    assert best_threads((2,), never) == 2


@pytest.mark.parametrize(
    ("per_token", "limit"), [(1e-6, 512), (2e-3, 496), (5e-3, 192), (1.0, 64), (0.0, 512)]
)
def test_a_prefill_step_ends_within_a_second_where_it_can(per_token: float, limit: int) -> None:
    assert prefill_limit(per_token) == limit


def test_what_was_found_is_remembered_for_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "model.calibration"
    found = Calibration(calibration.machine(), 2, 256)
    assert recall(path) is None
    remember(path, found)
    assert recall(path) == found
    monkeypatch.setattr(calibration, "usable_processors", lambda: 64)
    assert recall(path) is None
    path.write_bytes(b"{")
    assert recall(path) is None
    remember(Path("/proc/none/x"), found)  # a server runs as well without
    remember(None, found)
    assert recall(None) is None


@pytest.mark.parametrize(
    ("quota", "number"),
    [("max 100000", None), ("50000 100000", 1), ("100000000 100000", None), ("nonsense", None), ("", None)],
)
def test_a_container_has_no_more_processors_than_its_quota_pays_for(
    quota: str, number: int | None, tmp_path: Path
) -> None:
    everything = usable_processors(tmp_path / "none")
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_processors(tmp_path / "cpu.max") == (number or everything)


def test_processors_that_share_a_core_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    for processor in range(3):
        folder = tmp_path / f"cpu{processor}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{processor % 2},{processor % 2 + 2}\n")
    assert usable_cores(tmp_path) == 3  # 0 with 2, 1, and 3 of which nothing is known
    monkeypatch.setattr(calibration, "usable_cores", lambda: 3)
    monkeypatch.setattr(calibration, "usable_processors", lambda: 4)
    assert calibration.thread_counts() == (3, 4)


def test_warming_up_settles_it_and_the_next_start_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.calibration"
    weights = demo.random_weights()
    first = demo.backend(weights, threads=None, calibrated=path)
    first.warmup(lambda stage, fraction: None)
    first.close()
    found = recall(path)
    assert found is not None
    assert found.threads in calibration.thread_counts()
    for limit in (64, 128):
        # This start is slower than the one before, or faster.
        monkeypatch.setattr(calibration, "prefill_limit", lambda _, limit=limit: limit)
        remember(path, Calibration(found.machine, found.threads, 96))
        second = demo.backend(weights, threads=None, calibrated=path)
        second.warmup(lambda stage, fraction: None)
        second.close()
        widths = {bucket.width for bucket in second.buckets if bucket.kind is StepKind.PREFILL}
        assert max(widths) == max(limit, 96)
    # What was found with another number of threads does not count.
    third = demo.backend(weights, threads=found.threads + 1, calibrated=path)
    third.warmup(lambda stage, fraction: None)
    third.close()
    settled = recall(path)
    assert settled is not None
    assert settled.threads == found.threads + 1
