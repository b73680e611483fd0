"""The life of one import."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.orm import Session

from outcrop.api.bedrock.followed import Look
from outcrop.api.imports import checkpoint_files, shapes
from outcrop.api.imports.checkpoint_files import ModelFacts, NoModel
from outcrop.ledger import resources
from outcrop.ledger.database import Database
from outcrop.ledger.resource import Resource
from outcrop.storage import Storage, StorageError

logger = logging.getLogger(__name__)


class ImportJob:
    """Copies a model's files here, looks whether this server can serve them, and has it served. After an
    interruption it begins anew."""

    def __init__(self, job_id: str, database: Database, storage: Storage, folder: Path, look: Look) -> None:
        """folder: what is copied goes into a folder in it. look: has what was imported served."""
        self._id = job_id
        self._database = database
        self._storage = storage
        self._folder = folder
        self._look = look

    def stop(self) -> None:
        """Imports cannot be stopped."""

    async def run(self) -> None:
        job = await self._database.run(self._job)
        if not (await self._database.run(self._is_imported) or await self._import(job)):
            return
        await self._look()  # first, for whoever reads that the job is completed may call the model
        await self._database.run(self._complete)
        logger.info("import %s: %s", self._id, job.body["model_arn"])

    async def _import(self, job: Resource) -> bool:
        """Whether the model is there then; if not, the job has failed."""
        uri, model_id = shapes.source_uri(job.body[resources.REQUEST]), job.body["model_id"]
        logger.info("import %s: %s", self._id, uri)
        try:
            path = await asyncio.to_thread(
                checkpoint_files.fetch, self._storage, uri, self._folder / model_id
            )
            facts = await asyncio.to_thread(checkpoint_files.check, uri, path)
        except (StorageError, NoModel) as error:
            await self._fail(str(error))
        except Exception as error:
            await self._fail(f"Internal error: {type(error).__name__}")
            raise
        else:
            if await self._database.run(lambda session: self._add(session, path, facts)):
                return True
            await self._fail(f"There is another imported model of the name {shapes.model_name(job)}.")
        return False

    def _job(self, session: Session) -> Resource:
        return session.get_one(Resource, (shapes.JOB, self._id))

    def _is_imported(self, session: Session) -> bool:
        """So it is after an interruption shortly before the end."""
        return session.get(Resource, (shapes.MODEL, self._job(session).body["model_id"])) is not None

    def _add(self, session: Session, path: Path, facts: ModelFacts) -> bool:
        """Keep the imported model; False if its name is taken."""
        job = self._job(session)
        now, name, model_id = datetime.now(UTC), shapes.model_name(job), job.body["model_id"]
        if resources.find(session, shapes.MODEL, name, by_name=True) is not None:
            return False
        model = Resource(
            kind=shapes.MODEL,
            id=model_id,
            arn=job.body["model_arn"],
            name=name,
            status="ACTIVE",
            token=None,
            created_at=now,
            updated_at=now,
            ended_at=None,
            body={
                "path": str(path),
                "copied": path == self._folder / model_id,
                "job_arn": job.arn,
                "job_name": job.name,
                "source": job.body[resources.REQUEST]["modelDataSource"],
                "architecture": facts.architecture,
                "instruct": facts.is_instruct,
            },
        )
        resources.add(session, model, job.body["model_tags"])
        return True

    def _complete(self, session: Session) -> None:
        job = self._job(session)
        resources.change(job, datetime.now(UTC), shapes.COMPLETED)
        job.ended_at = job.updated_at

    async def _fail(self, message: str) -> None:
        logger.error("import %s failed: %s", self._id, message)

        def work(session: Session) -> None:
            job = self._job(session)
            resources.change(job, datetime.now(UTC), shapes.FAILED, message=message[:2048])
            job.ended_at = job.updated_at

        await self._database.run(work)
