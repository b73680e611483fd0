"""The latencies that answers report."""

from __future__ import annotations

from time import perf_counter


class Stopwatch:
    """Runs from the arrival of a request. `started` is that moment on `perf_counter()`."""

    def __init__(self) -> None:
        self.started = perf_counter()

    def elapsed_ms(self) -> int:
        """Whole milliseconds since the request arrived."""
        return int((perf_counter() - self.started) * 1000)
