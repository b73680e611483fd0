"""Create, Get, List and DeletePromptRouter."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.auth.access import model_arns
from outcrop.api.auth.principal import principal_of
from outcrop.api.bedrock.followed import Follower, Look
from outcrop.api.bedrock.members import ARN, CLIENT_TOKEN, Tags, tags_by_key
from outcrop.api.bedrock.parameters import PageQuery, read_parameters, timestamp
from outcrop.api.bedrock.plane import ControlPlane, existing, without_nulls
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.api.shapes import REQUIRED, Must, Shape
from outcrop.catalog.catalog import UnknownModel
from outcrop.catalog.prompt_router import PromptRouter
from outcrop.ledger import resources
from outcrop.ledger.resource import Resource

KIND = "prompt-router"
_MOST_TARGETS = 2

_NAME = r"[a-z0-9-]{1,63}"
_TARGET = Must(
    required=True,
    size=(1, 2048),
    pattern=re.compile(
        rf"{ARN}::foundation-model/{_NAME}[.]{{1}}({_NAME}[.]){{0,2}}{_NAME}([:]{_NAME}){{0,2}}"
        r"|arn:aws(|-us-gov|-cn|-iso|-iso-b):bedrock:(|[0-9a-z-]{0,20}):(|[0-9]{12}):"
        r"(inference-profile|application-inference-profile)/[a-zA-Z0-9-:.]+"
    ),
)
_ARN = Must(
    size=(1, 2048), pattern=re.compile(rf"{ARN}:[0-9]{{12}}:(default-)?prompt-router/[a-zA-Z0-9-:.]+")
)
"""Routers that a client makes are `prompt-router/`, as the service's are, whose model knows the default ones
only."""


class PromptRouterTargetModel(Shape):
    model_arn: Annotated[str | None, _TARGET] = None


class RoutingCriteria(Shape):
    response_quality_difference: Annotated[float | None, Must(required=True, value=(0, 100))] = None


class CreatePromptRouterRequest(Shape):
    client_request_token: Annotated[str | None, CLIENT_TOKEN] = None
    prompt_router_name: Annotated[
        str | None, Must(required=True, size=(1, 64), pattern=re.compile("([0-9a-zA-Z][ _-]?)+"))
    ] = None
    models: Annotated[list[PromptRouterTargetModel] | None, REQUIRED] = None
    description: Annotated[str | None, Must(size=(1, 200), pattern=re.compile("([0-9a-zA-Z:.][ _-]?)+"))] = (
        None
    )
    routing_criteria: Annotated[RoutingCriteria | None, REQUIRED] = None
    fallback_model: Annotated[PromptRouterTargetModel | None, REQUIRED] = None
    tags: Tags = None


class _Identified(Shape):
    prompt_router_arn: Annotated[str | None, _ARN] = None


class _ListQuery(PageQuery):
    type: Annotated[str | None, Must(one_of=("custom", "default"))] = None


_CREATE = msgspec.json.Decoder(CreatePromptRouterRequest)


class PromptRouters:
    """The operations on routers. There are no default ones: they belong to models that the service has."""

    def __init__(self, plane: ControlPlane, look: Look) -> None:
        self._plane = plane
        self._look = look

    def routes(self) -> list[Route]:
        one, all_ = f"/prompt-routers/{{promptRouterArn:{LABEL}}}", "/prompt-routers"
        return [
            Route(all_, self._create, methods=["POST"], name="CreatePromptRouter"),
            Route(all_, self._list, methods=["GET"], name="ListPromptRouters"),
            Route(one, self._get, methods=["GET"], name="GetPromptRouter"),
            Route(one, self._delete, methods=["DELETE"], name="DeletePromptRouter"),
        ]

    def follower(self) -> Follower:
        """Makes the routers of the state known as names of models, whichever server made them."""

        async def appeared(router: Resource) -> None:
            self._plane.catalog.routers[router.id] = _routing(router)

        async def gone(router_id: str) -> None:
            self._plane.catalog.routers.pop(router_id, None)

        return Follower(KIND, appeared, gone)

    async def _create(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _CREATE)
        router = self._plane.new_resource(
            KIND, str(wanted.prompt_router_name), "AVAILABLE", wanted, token=wanted.client_request_token
        )
        self._check(request, _routing(router))
        tags = tags_by_key(wanted.tags)

        def work(session: Session) -> Resource:
            kept = resources.add(session, router, tags)
            if kept is router and resources.has_namesake(session, router, router.name):
                raise errors.name_taken("prompt router", router.name)
            return kept

        kept = await self._plane.run(work)
        await self._look()
        return json_response({"promptRouterArn": kept.arn})

    def _check(self, request: Request, routing: PromptRouter) -> None:
        """Its models must exist, and be for the caller to use. Raises ApiError."""
        if not 1 <= len(routing.targets) <= _MOST_TARGETS:
            raise errors.validation(
                f"A prompt router routes between two models, and {len(routing.targets)} were given in models "
                "and fallbackModel. Give two, one of them also as fallbackModel."
            )
        principal = principal_of(request.scope)
        for target in routing.targets:
            principal.authorize("bedrock:InvokeModel", *model_arns(target, self._plane.catalog))
            try:
                self._plane.catalog.resolve(target)
            except UnknownModel:
                raise errors.resource_not_found("model", target) from None

    async def _get(self, request: Request) -> Response:
        arn = str(read_parameters(request, _Identified).prompt_router_arn)
        return json_response(await self._plane.run(lambda session: _described(_find(session, arn))))

    async def _list(self, request: Request) -> Response:
        query = read_parameters(request, _ListQuery)
        if query.type == "default":
            return json_response({"promptRouterSummaries": []})
        wanted = resources.Wanted(KIND)
        return await self._plane.page(
            wanted, query, "promptRouterSummaries", lambda session, each: _described(each)
        )

    async def _delete(self, request: Request) -> Response:
        arn = str(read_parameters(request, _Identified).prompt_router_arn)

        await self._plane.run(lambda session: resources.remove(session, _find(session, arn)))
        await self._look()
        return json_response({})


def _find(session: Session, arn: str) -> Resource:
    """Raises ResourceNotFoundException."""
    return existing(session, KIND, "prompt router", arn)


def _routing(router: Resource) -> PromptRouter:
    request = router.body[resources.REQUEST]
    fallback: str = request["fallbackModel"]["modelArn"]
    targets = dict.fromkeys([*(model["modelArn"] for model in request["models"]), fallback])
    return PromptRouter(tuple(targets), fallback, request["routingCriteria"]["responseQualityDifference"])


def _described(router: Resource) -> dict[str, object]:
    request = router.body[resources.REQUEST]
    return without_nulls(
        promptRouterName=router.name,
        routingCriteria=request["routingCriteria"],
        description=request.get("description"),
        createdAt=timestamp(router.created_at),
        updatedAt=timestamp(router.updated_at),
        promptRouterArn=router.arn,
        models=request["models"],
        fallbackModel=request["fallbackModel"],
        status=router.status,
        type="custom",
    )
