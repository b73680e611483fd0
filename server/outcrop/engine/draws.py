"""Counter-based random draws: the number for a token depends on its seed and position, on nothing else.

A request therefore repeats its tokens alone or in any batch, after preemption and after an engine
restart. The draws are made on the host because the chip's own generator ignores its seed.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _splitmix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The SplitMix64 finaliser (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


def streams(seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Where each seed's sequence of draws starts: the part of a draw that stays the same as a request goes
    on. Input and result: [R]."""
    return _splitmix(seeds + _GOLDEN)


@lru_cache(maxsize=256)
def stream_of(seed: int) -> np.uint64:
    """Of one seed. Kept: it takes ten numpy calls, and a simulation gives all its requests one seed."""
    start: np.uint64 = streams(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))[0]
    return start


def draws(
    of_streams: npt.NDArray[np.uint64], positions: npt.NDArray[np.signedinteger]
) -> npt.NDArray[np.float32]:
    """Uniform float32 in [0, 1), one per (stream, position); the inputs broadcast to the result's shape."""
    mixed = _splitmix(of_streams + positions.astype(np.uint64) * _GOLDEN)
    return (mixed >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
