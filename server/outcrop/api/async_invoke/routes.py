"""StartAsyncInvoke, GetAsyncInvoke and ListAsyncInvokes."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.async_invoke import shapes
from outcrop.api.auth.access import model_arns
from outcrop.api.auth.principal import principal_of
from outcrop.api.bedrock.members import tags_by_key
from outcrop.api.bedrock.parameters import read_parameters
from outcrop.api.bedrock.plane import ControlPlane
from outcrop.api.job_runner import JobRunner
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.catalog import identifiers
from outcrop.ledger import resources
from outcrop.storage import Storage, StorageError

_START = msgspec.json.Decoder(shapes.StartAsyncInvokeRequest)


class AsyncInvokes:
    """The operations on asynchronous invocations, which `runner` works on."""

    def __init__(self, plane: ControlPlane, storage: Storage, runner: JobRunner) -> None:
        self._plane = plane
        self._storage = storage
        self._runner = runner

    def routes(self) -> list[Route]:
        return [
            Route("/async-invoke", self._start, methods=["POST"], name="StartAsyncInvoke"),
            Route("/async-invoke", self._list, methods=["GET"], name="ListAsyncInvokes"),
            Route(
                f"/async-invoke/{{invocationArn:{LABEL}}}", self._get, methods=["GET"], name="GetAsyncInvoke"
            ),
        ]

    async def _start(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _START)
        if self._plane.limits.strict:
            raise errors.no_asynchronous_invocation()
        model_id = str(wanted.model_id)
        self._plane.catalog.resolve(model_id)
        principal = principal_of(request.scope)
        principal.authorize("bedrock:InvokeModel", *model_arns(model_id, self._plane.catalog))
        name = identifiers.without_geography(identifiers.resource_name(model_id))
        invocation = self._plane.new_resource(
            shapes.KIND,
            "",
            shapes.IN_PROGRESS,
            wanted,
            token=wanted.client_request_token,
            body={
                "model_arn": self._plane.catalog.arn(name),
                "principal": {
                    "key_id": principal.key_id, "tenant": principal.tenant, "arn": principal.arn,
                },
            },
        )  # fmt: skip
        try:
            self._storage.check(shapes.output_uri(invocation))
        except StorageError as error:
            raise errors.validation(str(error)) from None
        tags = tags_by_key(wanted.tags)
        kept = await self._plane.run(lambda session: resources.add(session, invocation, tags))
        self._runner.wake()
        return json_response({"invocationArn": kept.arn})

    async def _get(self, request: Request) -> Response:
        arn = str(read_parameters(request, shapes.InvocationIdentified).invocation_arn)
        found = await self._plane.run(lambda session: resources.find(session, shapes.KIND, arn))
        if found is None:
            raise errors.unknown_invocation(arn)
        return json_response(shapes.described(found))

    async def _list(self, request: Request) -> Response:
        query = read_parameters(request, shapes.ListAsyncInvokesRequest)
        wanted = resources.Wanted(
            shapes.KIND,
            status=query.status_equals,
            after=query.submit_time_after,
            before=query.submit_time_before,
            oldest_first=query.sort_order == "Ascending",
        )
        return await self._plane.page(
            wanted, query, "asyncInvokeSummaries", lambda session, each: shapes.described(each)
        )
