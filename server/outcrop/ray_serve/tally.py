"""The figures of engines that come and go, as those of one."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from outcrop.engine.stats import EngineStats

_GAUGES = ("running", "waiting", "kv_blocks_used", "kv_blocks_total")


class StatsTally:
    """Gauges are sums over the engines that are there, totals over all that there ever were, so that no total
    falls when an engine goes."""

    def __init__(self) -> None:
        self._present: dict[str, EngineStats] = {}
        self._gone = EngineStats()

    def update(self, present: Mapping[str, EngineStats]) -> None:
        """present: the latest figures, by the engine's name."""
        for name, stats in self._present.items():
            if name not in present:
                self._gone = EngineStats.sum(
                    (self._gone, msgspec.structs.replace(stats, **dict.fromkeys(_GAUGES, 0)))
                )
        self._present = dict(present)

    @property
    def total(self) -> EngineStats:
        return EngineStats.sum((self._gone, *self._present.values()))
