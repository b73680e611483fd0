"""Brings records to their destination, off the event loop and many at a time."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from outcrop.api import failures
from outcrop.api.invocation_log.destination import PERMISSION_CHECK, Destination, file_name, folder_of
from outcrop.api.invocation_log.invocation import Invocation
from outcrop.api.invocation_log.record import Record
from outcrop.storage import Storage, StorageError, below, explained
from outcrop.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

MOST_WAITING = 64 << 20
"""Bytes of bodies that wait; further invocations are not logged."""

_PAUSES = (1.0, 5.0, 15.0)
"""Seconds before each further try of a delivery that failed."""


class Delivery:
    """Answers never wait for it. Invocations gather for `seconds`, then become one file for each hour and
    destination, written by a thread. A delivery that fails is tried again a few times, then given up; what is
    given up, and what there was no room for, is logged and counted in
    `outcrop_invocation_log_records_total{outcome="dropped"}`. Used on the event loop."""

    def __init__(self, storage: Storage, metrics: Metrics, region: str, seconds: float) -> None:
        self._storage = storage
        self._records = metrics.invocation_log_records
        self._region = region
        self._seconds = seconds
        self._waiting: list[Invocation] = []
        self._size = 0
        self._is_full = False
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def check(self, destination: Destination) -> None:
        """Write what the service writes to see whether it may. Blocks. Raises StorageError."""
        with explained(destination.uri):
            place, base = self._storage.open(destination.uri)
            place.write_bytes(below(base, PERMISSION_CHECK), b"")

    def add(self, invocation: Invocation) -> None:
        """Deliver it soon."""
        if self._size + invocation.size > MOST_WAITING:
            self._drop(1, "" if self._is_full else f"more than {MOST_WAITING} bytes wait to be delivered")
            self._is_full = True
            return
        self._waiting.append(invocation)
        self._size += invocation.size
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Deliver what is left, if that can be done at once."""
        self._closing.set()
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        while self._waiting:
            await self._pause(self._seconds)
            invocations, self._waiting = self._waiting, []
            await self._deliver(invocations)
            self._size -= sum(each.size for each in invocations)
            self._is_full = False
        self._writer = None

    async def _pause(self, seconds: float) -> None:
        """Less where the server ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    async def _deliver(self, invocations: Sequence[Invocation]) -> None:
        files: defaultdict[tuple[Destination, str], list[Invocation]] = defaultdict(list)
        for each in invocations:
            files[each.destination, folder_of(self._region, each.at)].append(each)
        for (destination, folder), several in files.items():
            name = f"{folder}/{file_name(datetime.now(UTC))}"
            if reason := await self._written(destination, name, several):
                self._drop(len(several), reason)
            else:
                self._records.labels("delivered").inc(len(several))

    async def _written(self, destination: Destination, name: str, invocations: Sequence[Invocation]) -> str:
        """Why the file could not be written after all tries, "" if it was."""
        for pause in (*_PAUSES, None):
            try:
                await asyncio.to_thread(self._write_file, destination, name, invocations)
            except StorageError as error:
                reason = str(error)
            except Exception as error:
                failures.log_unexpected(error, invocations[0].request_id)
                return "they could not be written down"
            else:
                return ""
            if pause is None or self._closing.is_set():
                break
            logger.warning("invocation logs are not delivered yet: %s", reason)
            await self._pause(pause)
        return reason

    def _write_file(self, destination: Destination, name: str, invocations: Sequence[Invocation]) -> None:
        """Done again it writes the same objects."""
        lines = []
        with explained(destination.uri):
            place, base = self._storage.open(destination.uri)
            for invocation in invocations:
                record = Record.of(invocation, self._region)
                for large, body in record.large.items():
                    place.write_bytes(below(base, large), gzip.compress(body))
                lines.append(record.line + b"\n")
            place.write_bytes(below(base, name), gzip.compress(b"".join(lines)))

    def _drop(self, count: int, reason: str) -> None:
        """reason: "" where it was told before."""
        self._records.labels("dropped").inc(count)
        if reason:
            logger.error("the logs of %d invocations are lost: %s", count, reason)
