"""The life of one asynchronous invocation."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from outcrop.api.async_invoke import shapes
from outcrop.api.batch.record import RecordAnswerer, principal_for
from outcrop.api.inference import Inference
from outcrop.ledger import resources
from outcrop.ledger.database import Database
from outcrop.ledger.resource import Resource
from outcrop.storage import Storage, StorageError, below, explained

logger = logging.getLogger(__name__)


class AsyncInvocation:
    """Answers one native body, and writes `OUTPUT/ID/output.json`. After an interruption it is answered
    anew."""

    def __init__(self, job_id: str, database: Database, storage: Storage, inference: Inference) -> None:
        self._id = job_id
        self._database = database
        self._storage = storage
        self._inference = inference

    def stop(self) -> None:
        """Invocations cannot be stopped."""

    async def run(self) -> None:
        job = await self._database.run(self._job)
        request = job.body[resources.REQUEST]
        answerer = RecordAnswerer(
            self._inference, request["modelId"], False, principal_for(**job.body["principal"])
        )
        answered = await answerer.answer(json.dumps({"modelInput": request["modelInput"]}), self._id)
        record = json.loads(answered.text)
        message = record["error"]["errorMessage"] if "error" in record else ""
        if not message:
            try:
                await asyncio.to_thread(self._save, shapes.output_uri(job), record["modelOutput"])
            except StorageError as error:
                message = str(error)
        if message:
            logger.error("asynchronous invocation %s failed: %s", self._id, message)
        await self._database.run(lambda session: self._end(session, message))

    def _save(self, uri: str, output: object) -> None:
        """Raises StorageError."""
        with explained(uri):
            place, name = self._storage.open(uri)
            body = json.dumps(output, ensure_ascii=False).encode()
            place.write_bytes(below(name, f"{self._id}/output.json"), body)

    def _job(self, session: Session) -> Resource:
        return session.get_one(Resource, (shapes.KIND, self._id))

    def _end(self, session: Session, message: str) -> None:
        job, now = self._job(session), datetime.now(UTC)
        if message:
            resources.change(job, now, shapes.FAILED, message=message[:2048])
        else:
            resources.change(job, now, shapes.COMPLETED)
        job.ended_at = now
