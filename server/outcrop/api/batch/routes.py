"""Create, Get, List and StopModelInvocationJob."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.auth.access import model_arns
from outcrop.api.auth.principal import principal_of
from outcrop.api.batch import shapes
from outcrop.api.bedrock.members import tags_by_key
from outcrop.api.bedrock.parameters import read_parameters
from outcrop.api.bedrock.plane import ControlPlane, existing
from outcrop.api.job_runner import JobRunner
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.ledger import resources
from outcrop.ledger.resource import Resource
from outcrop.storage import Storage, StorageError

_CREATE = msgspec.json.Decoder(shapes.CreateModelInvocationJobRequest)


class InvocationJobs:
    """The operations on batch jobs, which `runner` works on."""

    def __init__(self, plane: ControlPlane, storage: Storage, runner: JobRunner) -> None:
        self._plane = plane
        self._storage = storage
        self._runner = runner

    def routes(self) -> list[Route]:
        one = f"/model-invocation-job/{{jobIdentifier:{LABEL}}}"
        return [
            Route("/model-invocation-job", self._create, methods=["POST"], name="CreateModelInvocationJob"),
            Route(f"{one}/stop", self._stop, methods=["POST"], name="StopModelInvocationJob"),
            Route(one, self._get, methods=["GET"], name="GetModelInvocationJob"),
            Route("/model-invocation-jobs", self._list, methods=["GET"], name="ListModelInvocationJobs"),
        ]

    async def _create(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _CREATE)
        model_id = str(wanted.model_id)
        self._plane.catalog.resolve(model_id)
        principal = principal_of(request.scope)
        principal.authorize("bedrock:InvokeModel", *model_arns(model_id, self._plane.catalog))
        job = self._plane.new_resource(
            shapes.KIND,
            str(wanted.job_name),
            shapes.SUBMITTED,
            wanted,
            token=wanted.client_request_token,
            body={
                "principal": {
                    "key_id": principal.key_id, "tenant": principal.tenant, "arn": principal.arn,
                }
            },
        )  # fmt: skip
        try:
            self._storage.check(shapes.input_uri(job))
            self._storage.check(shapes.output_uri(job))
        except StorageError as error:
            raise errors.validation(str(error)) from None
        tags = tags_by_key(wanted.tags)
        kept = await self._plane.run(lambda session: resources.add(session, job, tags))
        self._runner.wake()
        return json_response({"jobArn": kept.arn})

    async def _get(self, request: Request) -> Response:
        identifier = str(read_parameters(request, shapes.JobIdentified).job_identifier)
        return json_response(
            await self._plane.run(lambda session: shapes.described(session, _find(session, identifier)))
        )

    async def _list(self, request: Request) -> Response:
        query = read_parameters(request, shapes.ListModelInvocationJobsRequest)
        wanted = resources.Wanted(
            shapes.KIND,
            name=query.name_contains,
            status=query.status_equals,
            after=query.submit_time_after,
            before=query.submit_time_before,
            oldest_first=query.oldest_first,
        )
        return await self._plane.page(wanted, query, "invocationJobSummaries", shapes.described)

    async def _stop(self, request: Request) -> Response:
        identifier = str(read_parameters(request, shapes.JobIdentified).job_identifier)

        def work(session: Session) -> None:
            job = _find(session, identifier)
            if job.status not in shapes.UNFINISHED:
                raise errors.job_has_ended(identifier, job.status)
            resources.change(job, datetime.now(UTC), shapes.STOPPING)

        await self._plane.run(work)
        self._runner.wake()
        return json_response({})


def _find(session: Session, identifier: str) -> Resource:
    """Raises ResourceNotFoundException."""
    return existing(session, shapes.KIND, "model invocation job", identifier)
