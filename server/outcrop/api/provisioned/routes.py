"""Create, Get, List, Update and DeleteProvisionedModelThroughput."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock.followed import Follower, Look
from outcrop.api.bedrock.members import tags_by_key
from outcrop.api.bedrock.parameters import read_parameters, timestamp
from outcrop.api.bedrock.plane import ControlPlane, existing
from outcrop.api.path_label import LABEL
from outcrop.api.provisioned import shapes
from outcrop.api.responses import json_response
from outcrop.catalog import identifiers
from outcrop.catalog.catalog import UnknownModel
from outcrop.catalog.model import ServedModel
from outcrop.ledger import resources
from outcrop.ledger.resource import Resource

_CREATE = msgspec.json.Decoder(shapes.CreateProvisionedModelThroughputRequest)
_UPDATE = msgspec.json.Decoder(shapes.UpdateProvisionedModelThroughputRequest)


class ProvisionedModels:
    """The operations on Provisioned Throughputs, whose places the catalog keeps."""

    def __init__(self, plane: ControlPlane, look: Look) -> None:
        self._plane = plane
        self._look = look
        self._creating = asyncio.Lock()

    def routes(self) -> list[Route]:
        path = "/provisioned-model-throughput"
        one = f"{path}/{{provisionedModelId:{LABEL}}}"
        return [
            Route(path, self._create, methods=["POST"], name="CreateProvisionedModelThroughput"),
            Route(f"{path}s", self._list, methods=["GET"], name="ListProvisionedModelThroughputs"),
            Route(one, self._get, methods=["GET"], name="GetProvisionedModelThroughput"),
            Route(one, self._update, methods=["PATCH"], name="UpdateProvisionedModelThroughput"),
            Route(one, self._delete, methods=["DELETE"], name="DeleteProvisionedModelThroughput"),
        ]

    def follower(self) -> Follower:
        """Reserves what the state has reserved, whichever server that was."""

        async def gone(provisioned_id: str) -> None:
            self._plane.catalog.release(provisioned_id)

        return Follower(shapes.KIND, self._appeared, gone)

    async def _appeared(self, provisioned: Resource) -> None:
        status, message = shapes.IN_SERVICE, ""
        try:
            self._reserve(provisioned)
        except UnknownModel:
            arn = provisioned.body[shapes.MODEL_ARN]
            status, message = shapes.FAILED, f"This server doesn't serve {arn} any more."

        def work(session: Session) -> None:
            found = resources.find(session, shapes.KIND, provisioned.id)
            if found is not None:
                resources.change(found, datetime.now(UTC), status, message=message)

        if status != provisioned.status:
            await self._plane.run(work)

    async def _create(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _CREATE)
        model_id, units = str(wanted.model_id), wanted.model_units or 0
        model = self._model(model_id)
        name = identifiers.without_geography(identifiers.resource_name(model_id))
        provisioned = self._plane.new_resource(
            shapes.KIND,
            str(wanted.provisioned_model_name),
            shapes.IN_SERVICE,
            wanted,
            token=wanted.client_request_token,
            body={shapes.MODEL_ARN: self._plane.catalog.arn(name)},
        )
        tags = tags_by_key(wanted.tags)

        def work(session: Session) -> Resource:
            kept = resources.add(session, provisioned, tags)
            if kept is provisioned:
                _require_free(session, kept, kept.name)
                self._require_room(model, units)
            return kept

        async with self._creating:  # so that two do not take the same places
            kept = await self._plane.run(work)
            await self._look()
        return json_response({"provisionedModelArn": kept.arn}, status=201)

    def _reserve(self, provisioned: Resource) -> None:
        """It may be reserved already. Raises UnknownModel."""
        units = provisioned.body[resources.REQUEST]["modelUnits"]
        self._plane.catalog.reserve(provisioned.id, provisioned.body[shapes.MODEL_ARN], units)

    def _model(self, model_id: str) -> ServedModel:
        """Raises ResourceNotFoundException or ValidationException."""
        try:
            model = self._plane.catalog.resolve(model_id)
        except UnknownModel:
            raise errors.foundation_model_not_found() from None
        if model.arn:
            raise errors.validation(
                "Provisioned Throughput is for the models of the server's settings, not for imported ones."
            )
        return model

    def _require_room(self, model: ServedModel, units: int) -> None:
        """One row of a model and half of the server's places stay for whoever has none. Raises
        ServiceQuotaExceededException."""
        catalog, inflight = self._plane.catalog, self._plane.limits.max_inflight
        if model.rows and (free := model.rows - 1 - catalog.reserved_units_of(model)) < units:
            raise errors.service_quota_exceeded(
                f"Of the {model.rows} requests that the model runs at once, {max(0, free)} can be reserved "
                f"still, not {units}. One stays for others."
            )
        if (free := inflight // 2 - catalog.reserved_units) < units:
            raise errors.service_quota_exceeded(
                f"Of the {inflight} requests that the server admits at once, {max(0, free)} can be reserved "
                f"still, not {units}. Half of them stay for others."
            )

    async def _get(self, request: Request) -> Response:
        identifier = _identifier(request)
        return json_response(
            await self._plane.run(lambda session: shapes.described(_find(session, identifier)))
        )

    async def _list(self, request: Request) -> Response:
        query = read_parameters(request, shapes.ListProvisionedModelThroughputsRequest)
        arn = query.model_arn_equals
        wanted = resources.Wanted(
            shapes.KIND,
            name=query.name_contains,
            status=query.status_equals,
            after=query.creation_time_after,
            before=query.creation_time_before,
            oldest_first=query.oldest_first,
            member=None if arn is None else (shapes.MODEL_ARN, arn),
        )
        return await self._plane.page(
            wanted, query, "provisionedModelSummaries", lambda session, each: shapes.summary(each)
        )

    async def _update(self, request: Request) -> Response:
        identifier = _identifier(request)
        wanted = await self._plane.read(request, _UPDATE)
        if wanted.desired_model_id is not None:
            raise errors.validation(
                "A Provisioned Throughput of a base model keeps its model. Remove desiredModelId, or create "
                "a Provisioned Throughput for the other model."
            )
        name = wanted.desired_provisioned_model_name

        def work(session: Session) -> None:
            found = _find(session, identifier)
            if name is not None:
                _require_free(session, found, name)
                found.name = name
            resources.change(found, datetime.now(UTC), found.status)

        await self._plane.run(work)
        return json_response({})

    async def _delete(self, request: Request) -> Response:
        identifier = _identifier(request)

        def work(session: Session) -> None:
            found = _find(session, identifier)
            until = shapes.committed_until(found)
            if until is not None and until > datetime.now(UTC):
                raise errors.conflict(
                    f"{identifier} can't be deleted before its commitment ends, at {timestamp(until)}."
                )
            resources.remove(session, found)

        await self._plane.run(work)
        await self._look()
        return json_response({})


def _identifier(request: Request) -> str:
    """An ARN or a name. Raises ValidationException."""
    return str(read_parameters(request, shapes.Identified).provisioned_model_id)


def _find(session: Session, identifier: str) -> Resource:
    """Raises ResourceNotFoundException."""
    return existing(session, shapes.KIND, "Provisioned Throughput", identifier, by_name=True)


def _require_free(session: Session, own: Resource, name: str) -> None:
    """No other may have the name, by which it is found. Raises ValidationException: the operations declare no
    conflict."""
    if resources.has_namesake(session, own, name):
        raise errors.validation(
            f"There is another Provisioned Throughput of the name {name}. Choose another name."
        )
