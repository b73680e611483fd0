"""Create, Get and ListModelImportJobs; Get, List and DeleteImportedModel."""

from __future__ import annotations

import msgspec
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock.followed import Look
from outcrop.api.bedrock.members import tags_by_key
from outcrop.api.bedrock.parameters import read_parameters
from outcrop.api.bedrock.plane import ControlPlane, existing, new_id
from outcrop.api.imports import shapes
from outcrop.api.imports.registry import ImportedModels
from outcrop.api.job_runner import JobRunner
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.ledger import resources
from outcrop.ledger.resource import Resource
from outcrop.storage import Storage, StorageError

_CREATE = msgspec.json.Decoder(shapes.CreateModelImportJobRequest)


class ModelImports:
    """The operations on imports, which `runner` works on, and on what came of them."""

    def __init__(
        self,
        plane: ControlPlane,
        storage: Storage,
        runner: JobRunner,
        models: ImportedModels,
        look: Look,
    ) -> None:
        self._plane = plane
        self._storage = storage
        self._runner = runner
        self._models = models
        self._look = look

    def routes(self) -> list[Route]:
        jobs, models = "/model-import-jobs", "/imported-models"
        job, model = f"{jobs}/{{jobIdentifier:{LABEL}}}", f"{models}/{{modelIdentifier:{LABEL}}}"
        return [
            Route(jobs, self._create, methods=["POST"], name="CreateModelImportJob"),
            Route(jobs, self._list_jobs, methods=["GET"], name="ListModelImportJobs"),
            Route(job, self._get_job, methods=["GET"], name="GetModelImportJob"),
            Route(models, self._list_models, methods=["GET"], name="ListImportedModels"),
            Route(model, self._get_model, methods=["GET"], name="GetImportedModel"),
            Route(model, self._delete_model, methods=["DELETE"], name="DeleteImportedModel"),
        ]

    def start(self) -> None:
        """Go on with what was not finished."""
        self._runner.start()

    async def close(self) -> None:
        await self._runner.close()
        await self._models.close()

    async def _create(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _CREATE)
        if wanted.imported_model_kms_key_id is not None:
            raise errors.validation("This server doesn't encrypt models. Remove importedModelKmsKeyId.")
        model_id = new_id()
        job = self._plane.new_resource(
            shapes.JOB,
            str(wanted.job_name),
            shapes.IN_PROGRESS,
            wanted,
            token=wanted.client_request_token,
            body={
                "model_id": model_id,
                "model_arn": self._plane.arn(shapes.MODEL, model_id),
                "model_tags": tags_by_key(wanted.imported_model_tags),
            },
        )
        try:
            self._storage.check(shapes.source_uri(job.body[resources.REQUEST]))
        except StorageError as error:
            raise errors.validation(str(error)) from None
        tags, name = tags_by_key(wanted.job_tags), str(wanted.imported_model_name)

        def work(session: Session) -> Resource:
            kept = resources.add(session, job, tags)
            if kept is job and resources.find(session, shapes.MODEL, name, by_name=True) is not None:
                raise errors.name_taken("imported model", name)
            return kept

        kept = await self._plane.run(work)
        self._runner.wake()
        return json_response({"jobArn": kept.arn}, status=201)

    async def _get_job(self, request: Request) -> Response:
        identifier = str(read_parameters(request, shapes.JobIdentified).job_identifier)
        job = await self._plane.run(
            lambda session: existing(session, shapes.JOB, "model import job", identifier, by_name=True)
        )
        return json_response(shapes.described_job(job))

    async def _list_jobs(self, request: Request) -> Response:
        query = read_parameters(request, shapes.ListModelImportJobsRequest)
        wanted = resources.Wanted(
            shapes.JOB,
            name=query.name_contains,
            status=query.status_equals,
            after=query.creation_time_after,
            before=query.creation_time_before,
            oldest_first=query.oldest_first,
        )
        return await self._plane.page(
            wanted, query, "modelImportJobSummaries", lambda session, job: shapes.job_summary(job)
        )

    async def _list_models(self, request: Request) -> Response:
        query = read_parameters(request, shapes.ListImportedModelsRequest)
        wanted = resources.Wanted(
            shapes.MODEL,
            name=query.name_contains,
            after=query.creation_time_after,
            before=query.creation_time_before,
            oldest_first=query.oldest_first,
        )
        return await self._plane.page(
            wanted, query, "modelSummaries", lambda session, model: shapes.model_summary(model)
        )

    async def _get_model(self, request: Request) -> Response:
        identifier = str(read_parameters(request, shapes.ModelIdentified).model_identifier)
        return json_response(
            await self._plane.run(lambda session: shapes.described_model(_find(session, identifier)))
        )

    async def _delete_model(self, request: Request) -> Response:
        identifier = str(read_parameters(request, shapes.ModelIdentified).model_identifier)

        await self._plane.run(lambda session: resources.remove(session, _find(session, identifier)))
        await self._look()
        return json_response({})


def _find(session: Session, identifier: str) -> Resource:
    """Raises ResourceNotFoundException."""
    return existing(session, shapes.MODEL, "imported model", identifier, by_name=True)
