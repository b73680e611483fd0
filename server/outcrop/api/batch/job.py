"""The life of one batch job on the server that works on it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from outcrop.api.batch import files, shapes
from outcrop.api.batch.record import Answered, RecordAnswerer, principal_for
from outcrop.api.inference import Inference
from outcrop.ledger import resources
from outcrop.ledger.connect import AWAY
from outcrop.ledger.database import Database
from outcrop.ledger.job_record import PENDING, JobRecord
from outcrop.ledger.resource import Resource
from outcrop.storage import Storage, StorageError
from outcrop.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_FETCHED = 64
"""Records that are read from the state at once."""

_LOGGED_PERCENT = 10

Place = tuple[int, int]
"""Of a record: its part and its line."""


class BatchJob:
    """Takes a job from whatever state it is in to its end.

    Each record's answer is written in a transaction of its own, which only the first answer of a record can
    do; so however often a server dies, a record has one answer. Those that were in progress are answered
    anew. The output is assembled at the end, from the state alone, and can be assembled again.
    """

    def __init__(
        self,
        job_id: str,
        database: Database,
        storage: Storage,
        inference: Inference,
        metrics: Metrics,
        rows: int,
    ) -> None:
        """rows: records in progress at once."""
        self._id = job_id
        self._database = database
        self._storage = storage
        self._inference = inference
        self._metrics = metrics
        self._rows = rows
        self._waiting: deque[tuple[Place, str]] = deque()
        self._fetched: Place = (0, -1)
        self._done = self._total = self._logged = 0
        self._fetching = asyncio.Lock()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Returns when the job has ended. Raises what nobody foresaw; the job has failed then, unless it is
        the database that is away."""
        job = await self._job()
        try:
            if job.status in (shapes.SUBMITTED, shapes.VALIDATING):
                await self._load()
            await self._answer_all()
            await self._finish()
        except (StorageError, files.BadInput) as error:
            await self._fail(str(error))
        except AWAY:
            raise  # the job goes on when the database is back, here or elsewhere
        except Exception as error:
            await self._fail(f"Internal error: {type(error).__name__}")
            raise

    def stop(self) -> None:
        """Give up what is in progress: the job is to stop, or its time is over."""
        self._ended.set()

    async def _job(self) -> Resource:
        return await self._database.run(lambda session: _get(session, self._id))

    async def _change(
        self,
        status: str,
        only_from: tuple[str, ...] = shapes.UNFINISHED,
        body: Mapping[str, object] | None = None,
    ) -> str:
        """Write a status, unless the job's is another than those; the status that it has then."""

        def work(session: Session) -> str:
            job = _get(session, self._id)
            if job.status in only_from:
                resources.change(job, datetime.now(UTC), status, **(body or {}))
                if status not in shapes.UNFINISHED:
                    job.ended_at = job.updated_at
            return job.status

        return await self._database.run(work)

    async def _load(self) -> None:
        job = await self._job()
        await self._change(shapes.VALIDATING, (shapes.SUBMITTED,))
        parts, total = await asyncio.to_thread(
            files.load, self._database, self._storage, self._id, shapes.input_uri(job)
        )
        logger.info("batch job %s: %d records in %d files", self._id, total, len(parts))
        await self._change(shapes.SCHEDULED, (shapes.VALIDATING,), {"parts": parts, shapes.TOTAL: total})

    async def _answer_all(self) -> None:
        if await self._change(shapes.IN_PROGRESS, (shapes.SCHEDULED,)) == shapes.STOPPING:
            return
        job = await self._job()
        request = job.body[resources.REQUEST]
        answerer = RecordAnswerer(
            self._inference,
            request["modelId"],
            request.get("modelInvocationType") == "Converse",
            principal_for(**job.body["principal"]),
        )
        found = await self._database.run(lambda session: shapes.counts(session, job))
        self._total, self._done = found[shapes.TOTAL], found[shapes.PROCESSED]
        workers = [asyncio.create_task(self._work(answerer)) for _ in range(self._rows)]
        ended = asyncio.create_task(self._ended.wait())
        all_done = asyncio.gather(*workers)
        try:
            await asyncio.wait((all_done, ended), return_when=asyncio.FIRST_COMPLETED)
            if all_done.done():
                all_done.result()
        finally:
            ended.cancel()
            all_done.cancel()
            await asyncio.gather(all_done, ended, return_exceptions=True)

    async def _work(self, answerer: RecordAnswerer) -> None:
        while (record := await self._next()) is not None:
            (part, line), text = record
            answered = await answerer.answer(text, f"{self._id}-{part}-{line}")
            await self._write((part, line), answered)

    async def _next(self) -> tuple[Place, str] | None:
        """The next record without an answer."""
        async with self._fetching:  # no two fetch the same
            if not self._waiting:
                self._waiting.extend(await self._database.run(self._fetch))
                if self._waiting:
                    self._fetched = self._waiting[-1][0]
        return self._waiting.popleft() if self._waiting else None

    def _fetch(self, session: Session) -> list[tuple[Place, str]]:
        part, line = self._fetched
        rows = session.execute(
            select(JobRecord.part, JobRecord.line, JobRecord.text)
            .where(
                JobRecord.job_id == self._id,
                JobRecord.state == PENDING,
                or_(JobRecord.part > part, (JobRecord.part == part) & (JobRecord.line > line)),
            )
            .order_by(JobRecord.part, JobRecord.line)
            .limit(_FETCHED)
        )
        return [((row.part, row.line), row.text) for row in rows]

    async def _write(self, place: Place, answered: Answered) -> None:
        part, line = place

        def work(session: Session) -> tuple[bool, str]:
            written = session.execute(
                update(JobRecord)
                .where(
                    JobRecord.job_id == self._id,
                    JobRecord.part == part,
                    JobRecord.line == line,
                    JobRecord.state == PENDING,
                )
                .values(
                    state=answered.state,
                    text=answered.text,
                    input_tokens=answered.input_tokens,
                    output_tokens=answered.output_tokens,
                )
                .returning(JobRecord.line)
            ).first()
            return written is not None, _get(session, self._id).status

        is_first, status = await self._database.run(work)
        if is_first:
            self._metrics.batch_records.labels(answered.state).inc()
            self._done += 1
            self._log()
        if status == shapes.STOPPING:
            self._ended.set()

    def _log(self) -> None:
        percent = 100 * self._done // self._total
        if percent >= self._logged + _LOGGED_PERCENT:
            self._logged = percent
            logger.info("batch job %s: %d of %d records (%d %%)", self._id, self._done, self._total, percent)

    async def _finish(self) -> None:
        """Write the output of what has been answered, and the job's last status."""
        job = await self._job()
        manifest: dict[str, int] | None = {}
        if "parts" in job.body:
            manifest = await asyncio.to_thread(
                files.save,
                self._database,
                self._storage,
                self._id,
                job.body["parts"],
                shapes.output_uri(job),
                self._unfinished,
            )
        if manifest is None:
            logger.warning("batch job %s was ended by another server", self._id)
            return
        left = manifest.get(shapes.TOTAL, 0) - manifest.get(shapes.PROCESSED, 0)
        if job.status == shapes.STOPPING:
            status = shapes.STOPPED
        elif left:
            status = shapes.PARTIALLY_COMPLETED if manifest[shapes.PROCESSED] else shapes.EXPIRED
        else:
            status = shapes.COMPLETED
        await self._change(status, body=manifest)
        await self._database.run(self._forget)
        logger.info("batch job %s: %s, %s", self._id, status, manifest)

    def _unfinished(self) -> bool:
        """Whether no server has ended the job. Blocks."""
        return self._database.transact(lambda session: _get(session, self._id).status in shapes.UNFINISHED)

    async def _fail(self, message: str) -> None:
        logger.error("batch job %s failed: %s", self._id, message)
        await self._change(shapes.FAILED, body={"message": message[:2048]})
        await self._database.run(self._forget)

    def _forget(self, session: Session) -> None:
        session.execute(delete(JobRecord).where(JobRecord.job_id == self._id))


def _get(session: Session, job_id: str) -> Resource:
    return session.get_one(Resource, (shapes.KIND, job_id))
