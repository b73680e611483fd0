"""Tags of the control plane's resources."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock.members import ARN, MAX_TAGS, TAG_KEY, Tag, tags_by_key
from outcrop.api.bedrock.plane import ControlPlane
from outcrop.api.responses import json_response
from outcrop.api.shapes import Must, Shape
from outcrop.ledger import resource as tables
from outcrop.ledger import resources

_BASE = f"^{ARN}:"
_CUSTOM = (
    r"[a-z0-9-]{1,63}[.]{1}[a-z0-9-]{1,63}([a-z0-9-]{1,63}[.]){0,2}[a-z0-9-]{1,63}([:][a-z0-9-]{1,63}){0,2}"
)
_ARN = Must(
    required=True,
    size=(20, 1011),
    pattern=re.compile(
        rf".*(^[a-zA-Z0-9][a-zA-Z0-9\-]*$)|({_BASE}[0-9]{{12}}:custom-model/(imported)/[a-z0-9]{{12}}$)"
        rf"|({_BASE}([0-9]{{12}}|)((:(fine-tuning-job|model-customization-job|custom-model)/{_CUSTOM}"
        r"(/[a-z0-9]{12})$)|(:guardrail/[a-z0-9]+$)|(:automated-reasoning-policy/[a-zA-Z0-9]+"
        r"(:[a-zA-Z0-9]+)?$)|(:(inference-profile|application-inference-profile)/[a-zA-Z0-9-:.]+$)"
        r"|(:(provisioned-model|model-invocation-job|model-evaluation-job|evaluation-job|model-import-job"
        r"|imported-model|async-invoke|provisioned-model-v2|provisioned-model-reservation|prompt-router"
        r"|custom-model-deployment)/[a-z0-9]{12}$))).*"
    ),
)


class TagResourceRequest(Shape, rename={"resource_arn": "resourceARN"}):
    resource_arn: Annotated[str | None, _ARN] = None
    tags: Annotated[list[Tag] | None, Must(required=True, size=(0, MAX_TAGS))] = None


class UntagResourceRequest(Shape, rename={"resource_arn": "resourceARN", "tag_keys": "tagKeys"}):
    resource_arn: Annotated[str | None, _ARN] = None
    tag_keys: Annotated[list[Annotated[str, TAG_KEY]] | None, Must(required=True, size=(0, MAX_TAGS))] = None


class ListTagsForResourceRequest(Shape, rename={"resource_arn": "resourceARN"}):
    resource_arn: Annotated[str | None, _ARN] = None


_TAG = msgspec.json.Decoder(TagResourceRequest)
_UNTAG = msgspec.json.Decoder(UntagResourceRequest)
_LIST = msgspec.json.Decoder(ListTagsForResourceRequest)


class Tagging:
    """TagResource, UntagResource and ListTagsForResource."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def routes(self) -> list[Route]:
        return [
            Route("/tagResource", self._tag, methods=["POST"], name="TagResource"),
            Route("/untagResource", self._untag, methods=["POST"], name="UntagResource"),
            Route("/listTagsForResource", self._list, methods=["POST"], name="ListTagsForResource"),
        ]

    async def _tag(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _TAG)
        arn, tags = str(wanted.resource_arn), tags_by_key(wanted.tags)

        def work(session: Session) -> None:
            _require(session, arn)
            resources.set_tags(session, arn, tags)
            session.flush()
            if len(resources.tags_of(session, arn)) > MAX_TAGS:
                raise errors.too_many_tags(arn, MAX_TAGS)

        await self._plane.run(work)
        return json_response({})

    async def _untag(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _UNTAG)
        arn, keys = str(wanted.resource_arn), list(wanted.tag_keys or ())

        def work(session: Session) -> None:
            _require(session, arn)
            session.execute(delete(tables.Tag).where(tables.Tag.arn == arn, tables.Tag.key.in_(keys)))

        await self._plane.run(work)
        return json_response({})

    async def _list(self, request: Request) -> Response:
        arn = str((await self._plane.read(request, _LIST)).resource_arn)

        def work(session: Session) -> dict[str, str]:
            _require(session, arn)
            return resources.tags_of(session, arn)

        tags = await self._plane.run(work)
        return json_response({"tags": [{"key": key, "value": value} for key, value in tags.items()]})


def _require(session: Session, arn: str) -> None:
    """Raises ResourceNotFoundException."""
    if session.scalar(select(tables.Resource.id).where(tables.Resource.arn == arn).limit(1)) is None:
        raise errors.resource_not_found("resource", arn)
