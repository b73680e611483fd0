"""Counter-based draws: a function of seed and position, uniform, and below one."""

import numpy as np

from outcrop.engine.draws import draws, streams


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    seeds = np.arange(8, dtype=np.uint64)
    positions = np.arange(100, 108, dtype=np.int32)
    together = draws(streams(seeds), positions)
    for index in range(8):
        assert draws(streams(seeds[index : index + 1]), positions[index : index + 1])[0] == together[index]
    assert len(set(together.tolist())) == 8


def test_draws_are_uniform_and_never_one() -> None:
    for axis in (0, 1):
        counter = np.arange(100_000)
        fixed = np.full(100_000, 2**63 + 5)
        seeds, positions = (counter, fixed % 1000) if axis else (fixed, counter)
        sample = draws(streams(seeds.astype(np.uint64)), positions.astype(np.int32))
        assert sample.dtype == np.float32
        assert sample.min() >= 0
        assert sample.max() < 1
        histogram = np.histogram(sample, bins=20, range=(0, 1))[0]
        assert abs(histogram - 5000).max() < 400  # more than five standard deviations
        assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 0.02
