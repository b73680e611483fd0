"""The worker behind jobs of one kind: finds those that nobody works on, and works on them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NoReturn, Protocol

from sqlalchemy.orm import Session

from outcrop.ledger import lease, resources
from outcrop.ledger.connect import AWAY, reason_of
from outcrop.ledger.database import Database
from outcrop.ledger.resource import Resource
from outcrop.ledger.watch import watch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """rows: records of a batch job in progress at once. side_by_side: jobs of a kind. lease_seconds: after
    how long another server, or this one started again, takes over from one that died."""

    rows: int = 16
    side_by_side: int = 4
    lease_seconds: float = 10.0


class Job(Protocol):
    """One job on the server that works on it."""

    async def run(self) -> None:
        """Returns when the job has ended. Cancelled, it is taken up again later from what the state has."""

    def stop(self) -> None:
        """End it soon: it is to stop, or its time is over."""


@dataclass(frozen=True, slots=True)
class JobKind:
    """kind: of the jobs' resources; unfinished: their statuses that are not the last. make: a job, ready to
    run, by its id. prepare: what has to be done before new ones can run. is_ending: whether one is to be
    stopped now."""

    kind: str
    unfinished: tuple[str, ...]
    make: Callable[[str], Job]
    prepare: Callable[[], Awaitable[None]]
    is_ending: Callable[[Resource, datetime], bool] = lambda job, now: False


@dataclass(slots=True)
class _Review:
    """new: jobs for this server to begin. lost: those that another has. ending: those that are to stop."""

    new: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    ending: set[str] = field(default_factory=set)


class JobRunner:
    """Works on unfinished jobs, as many side by side as it may. Servers that share a database share its jobs:
    each job is one server's, by a lease that it renews."""

    def __init__(self, database: Database, options: JobOptions, kind: JobKind) -> None:
        self._database = database
        self._options = options
        self._kind = kind
        self._owner = uuid.uuid4().hex
        self._jobs: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._news = asyncio.Event()
        self._watch: asyncio.Task[NoReturn] | None = None

    def start(self) -> None:
        self._watch = asyncio.create_task(watch(self._look, f"{self._kind.kind}s wait", self._pause))

    def wake(self) -> None:
        """There may be something to do."""
        self._news.set()

    async def close(self) -> None:
        """Interrupt everything; whoever comes next goes on with it."""
        tasks = [*(task for _, task in self._jobs.values()), *([self._watch] if self._watch else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.lease_seconds / 3):
                await self._news.wait()
        self._news.clear()

    async def _look(self) -> None:
        """Renew what is held, take what is free, and see what is to be stopped."""
        running = frozenset(self._jobs)
        found = await self._database.run(lambda session: self._review(session, running))
        for job_id in found.lost & self._jobs.keys():
            logger.warning("%s %s was taken over by another server", self._kind.kind, job_id)
            self._jobs[job_id][1].cancel()
        for job_id in found.ending & self._jobs.keys():
            self._jobs[job_id][0].stop()
        if found.new:
            await self._kind.prepare()
        for job_id in found.new - self._jobs.keys():
            job = self._kind.make(job_id)
            self._jobs[job_id] = job, asyncio.create_task(self._run(job_id, job))
            if job_id in found.ending:
                job.stop()

    def _review(self, session: Session, running: frozenset[str]) -> _Review:
        """running: the jobs that this server works on."""
        now, term = lease.now(session), timedelta(seconds=self._options.lease_seconds)
        found = _Review()
        for job in resources.every(session, self._kind.kind, *self._kind.unfinished):
            if job.id not in running and len(running | found.new) >= self._options.side_by_side:
                continue
            if not lease.take(session, self._lease(job.id), self._owner, now, term):
                found.lost.add(job.id)
                continue
            if job.id not in running:
                found.new.add(job.id)
            if self._kind.is_ending(job, now):
                found.ending.add(job.id)
        return found

    async def _run(self, job_id: str, job: Job) -> None:
        try:
            await job.run()
        except AWAY as error:
            logger.error(
                "%s %s goes on when the database is back: %s", self._kind.kind, job_id, reason_of(error)
            )
            await asyncio.sleep(self._options.lease_seconds / 3)
        except Exception:
            logger.exception("%s %s", self._kind.kind, job_id)
        finally:
            self._jobs.pop(job_id, None)
            with contextlib.suppress(*AWAY):  # the lease then ends by itself
                await asyncio.shield(self._release(job_id))
            self.wake()

    async def _release(self, job_id: str) -> None:
        await self._database.run(lambda session: lease.release(session, self._lease(job_id), self._owner))

    def _lease(self, job_id: str) -> str:
        return f"{self._kind.kind}/{job_id}"
