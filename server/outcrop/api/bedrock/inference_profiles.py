"""Inference profiles: the geographic ones that every foundation model has, and those that applications make
to keep their use of a model apart.

A model of this server is in one place, whatever geography its profile names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock.followed import Follower, Look
from outcrop.api.bedrock.members import CLIENT_TOKEN, Tags, tags_by_key
from outcrop.api.bedrock.parameters import PageQuery, read_parameters, timestamp
from outcrop.api.bedrock.plane import ControlPlane, without_nulls
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.api.shapes import Must, Shape, Union
from outcrop.catalog import identifiers
from outcrop.catalog.bedrock_models import FoundationModel
from outcrop.catalog.catalog import UnknownModel
from outcrop.ledger import resources
from outcrop.ledger.resource import Resource

APPLICATION = "application-inference-profile"
SYSTEM = "inference-profile"

_GEOGRAPHIES = {"us": "US", "eu": "EU", "apac": "APAC", "global": "Global"}
_ARN = r"arn:aws(|-us-gov|-cn|-iso|-iso-b):bedrock:(|[0-9a-z-]{0,20}):(|[0-9]{12}):"
_NAME = Must(required=True, size=(1, 64), pattern=re.compile("([0-9a-zA-Z][ _-]?)+"))
_DESCRIPTION = Must(size=(1, 200), pattern=re.compile("([0-9a-zA-Z:.][ _-]?)+"))
_SOURCE = Must(
    size=(1, 2048),
    pattern=re.compile(rf"{_ARN}(inference-profile|foundation-model)/[a-zA-Z0-9-:.]+"),
)
_IDENTIFIER = Must(
    size=(1, 2048),
    pattern=re.compile(rf"({_ARN}(inference-profile|application-inference-profile)/)?[a-zA-Z0-9-:.]+"),
)
_LISTABLE = re.compile(r"(?=.{1,57}$)[a-z0-9-]+\.([a-z0-9-]+\.){0,2}[a-z0-9-]+(:[a-z0-9-]+){0,2}")
"""Model ids that make the id of a profile, which has at most 64 characters, and the ARN of a model."""


class InferenceProfileModelSource(Union):
    copy_from: Annotated[str | None, _SOURCE] = None


class CreateInferenceProfileRequest(Shape):
    inference_profile_name: Annotated[str | None, _NAME] = None
    description: Annotated[str | None, _DESCRIPTION] = None
    client_request_token: Annotated[str | None, CLIENT_TOKEN] = None
    model_source: Annotated[InferenceProfileModelSource | None, Must(required=True)] = None
    tags: Tags = None


class _Identified(Shape):
    inference_profile_identifier: Annotated[str | None, _IDENTIFIER] = None


class _ListQuery(PageQuery):
    type_equals: Annotated[str | None, Must(one_of=("SYSTEM_DEFINED", "APPLICATION"))] = None


_CREATE = msgspec.json.Decoder(CreateInferenceProfileRequest)


class InferenceProfiles:
    """Create, Get, List and DeleteInferenceProfile."""

    def __init__(self, plane: ControlPlane, look: Look) -> None:
        self._plane = plane
        self._look = look

    def routes(self) -> list[Route]:
        one, all_ = f"/inference-profiles/{{inferenceProfileIdentifier:{LABEL}}}", "/inference-profiles"
        return [
            Route(all_, self._create, methods=["POST"], name="CreateInferenceProfile"),
            Route(all_, self._list, methods=["GET"], name="ListInferenceProfiles"),
            Route(one, self._get, methods=["GET"], name="GetInferenceProfile"),
            Route(one, self._delete, methods=["DELETE"], name="DeleteInferenceProfile"),
        ]

    def follower(self) -> Follower:
        """Makes the profiles of the state known as names of models, whichever server made them."""

        async def appeared(profile: Resource) -> None:
            self._plane.catalog.link(profile.id, _copied(profile))

        async def gone(profile_id: str) -> None:
            self._plane.catalog.unlink(profile_id)

        return Follower(APPLICATION, appeared, gone)

    async def _create(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _CREATE)
        assert wanted.model_source is not None
        assert wanted.inference_profile_name is not None
        source = str(wanted.model_source.copy_from)
        model_id = identifiers.without_geography(source.rpartition("/")[2])
        try:
            if not _LISTABLE.fullmatch(model_id):  # a server that takes any name would know it
                raise UnknownModel(model_id)
            self._plane.catalog.foundation_model(model_id)
        except UnknownModel:
            raise errors.foundation_model_not_found() from None
        profile = self._plane.new_resource(
            APPLICATION,
            wanted.inference_profile_name,
            "ACTIVE",
            wanted,
            token=wanted.client_request_token,
        )
        tags = tags_by_key(wanted.tags)
        kept = await self._plane.run(lambda session: resources.add(session, profile, tags))
        await self._look()
        return json_response({"inferenceProfileArn": kept.arn, "status": kept.status}, status=201)

    async def _get(self, request: Request) -> Response:
        identifier = str(read_parameters(request, _Identified).inference_profile_identifier)
        found = await self._plane.run(lambda session: resources.find(session, APPLICATION, identifier))
        if found is not None:
            return json_response(self._application(found))
        name = identifier.rpartition("/")[2]
        for profile in self._system_profiles():
            if name == profile["inferenceProfileId"]:
                return json_response(profile)
        raise errors.resource_not_found("inference profile", identifier)

    async def _list(self, request: Request) -> Response:
        """The system's first. A page token of them is the number of those that were shown."""
        query = read_parameters(request, _ListQuery, {"typeEquals": "type"})
        token, limit = query.next_token, query.limit
        shown: list[dict[str, object]] = []
        if query.type_equals != "APPLICATION" and (token is None or token.isdecimal()):
            start = int(token or 0)
            system = list(self._system_profiles())
            shown = system[start : start + limit]
            if len(shown) == limit:
                return json_response({"inferenceProfileSummaries": shown, "nextToken": str(start + limit)})
            token = None
        next_token = None
        if query.type_equals != "SYSTEM_DEFINED":
            wanted = resources.Wanted(APPLICATION)
            found, next_token = await self._plane.run(
                lambda session: resources.page(session, wanted, limit - len(shown), token)
            )
            shown += [self._application(each) for each in found]
        return json_response(without_nulls(inferenceProfileSummaries=shown, nextToken=next_token))

    async def _delete(self, request: Request) -> Response:
        identifier = str(read_parameters(request, _Identified).inference_profile_identifier)

        def work(session: Session) -> bool:
            found = resources.find(session, APPLICATION, identifier)
            if found is not None:
                resources.remove(session, found)
            return found is not None

        if not await self._plane.run(work):
            name = identifier.rpartition("/")[2]
            if any(name == each["inferenceProfileId"] for each in self._system_profiles()):
                raise errors.validation("System-defined inference profiles can't be deleted.")
            raise errors.resource_not_found("inference profile", identifier)
        await self._look()
        return json_response({})

    def _application(self, profile: Resource) -> dict[str, object]:
        request = profile.body[resources.REQUEST]
        return without_nulls(
            inferenceProfileName=profile.name,
            description=request.get("description"),
            createdAt=timestamp(profile.created_at),
            updatedAt=timestamp(profile.updated_at),
            inferenceProfileArn=profile.arn,
            models=[{"modelArn": self._plane.catalog.arn(_copied(profile))}],
            inferenceProfileId=profile.id,
            status=profile.status,
            type="APPLICATION",
        )

    def _system_profiles(self) -> Iterator[dict[str, object]]:
        for model in self._plane.catalog.foundation_models():
            if _LISTABLE.fullmatch(model.model_id):
                for geography, title in _GEOGRAPHIES.items():
                    yield self._system(model, geography, title)

    def _system(self, model: FoundationModel, geography: str, title: str) -> dict[str, object]:
        profile_id = f"{geography}.{model.model_id}"
        words = re.findall("[0-9a-zA-Z]+", f"{title} {model.provider} {model.name}")
        return {
            "inferenceProfileName": " ".join(words)[:64].strip(),
            "description": f"Routes requests to {' '.join(words[1:])}."[:200],
            "inferenceProfileArn": self._plane.arn(SYSTEM, profile_id),
            "models": [{"modelArn": self._plane.catalog.arn(model.model_id)}],
            "inferenceProfileId": profile_id,
            "status": "ACTIVE",
            "type": "SYSTEM_DEFINED",
        }


def _copied(profile: Resource) -> str:
    """The id of the model that an application's profile stands for."""
    source: str = profile.body[resources.REQUEST]["modelSource"]["copyFrom"]
    return identifiers.without_geography(source.rpartition("/")[2])
