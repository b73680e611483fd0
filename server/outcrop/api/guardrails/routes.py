"""Create, Get, List, Update and DeleteGuardrail, and CreateGuardrailVersion."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import delete
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock.members import tags_by_key
from outcrop.api.bedrock.parameters import read_parameters, timestamp
from outcrop.api.bedrock.plane import ControlPlane, existing, fields_of, without_nulls
from outcrop.api.guardrails import shapes
from outcrop.api.guardrails.settings import refuse_unsupported
from outcrop.api.guardrails.shapes import DRAFT, KIND, VERSION_KIND
from outcrop.api.guardrails.store import FIELDS, found_version, version_id
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.ledger import resources
from outcrop.ledger.resource import Resource

READY = "READY"
_LAST = "last_version"
"""In the body of a guardrail: the number of its latest version. None is used twice."""

_VERSIONS = "versions"
"""The page token behind a page that has the draft alone."""

_CREATE = msgspec.json.Decoder(shapes.CreateGuardrailRequest)
_UPDATE = msgspec.json.Decoder(shapes.UpdateGuardrailRequest)
_CREATE_VERSION = msgspec.json.Decoder(shapes.CreateGuardrailVersionRequest)

_SHOWN = {
    "topicPolicyConfig": ("topicPolicy", {"topicsConfig": "topics", "tierConfig": "tier"}),
    "wordPolicyConfig": (
        "wordPolicy",
        {"wordsConfig": "words", "managedWordListsConfig": "managedWordLists"},
    ),
    "sensitiveInformationPolicyConfig": (
        "sensitiveInformationPolicy",
        {"piiEntitiesConfig": "piiEntities", "regexesConfig": "regexes"},
    ),
}
"""What a policy and its parts are called in requests, and in answers."""


class Guardrails:
    """A guardrail is a resource, which is its working draft; each version is a resource of its own, and does
    not change."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def routes(self) -> list[Route]:
        one, all_ = f"/guardrails/{{guardrailIdentifier:{LABEL}}}", "/guardrails"
        return [
            Route(all_, self._create, methods=["POST"], name="CreateGuardrail"),
            Route(all_, self._list, methods=["GET"], name="ListGuardrails"),
            Route(one, self._get, methods=["GET"], name="GetGuardrail"),
            Route(one, self._update, methods=["PUT"], name="UpdateGuardrail"),
            Route(one, self._delete, methods=["DELETE"], name="DeleteGuardrail"),
            Route(one, self._create_version, methods=["POST"], name="CreateGuardrailVersion"),
        ]

    async def _create(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _CREATE)
        await asyncio.to_thread(refuse_unsupported, wanted)
        guardrail = self._plane.new_resource(
            KIND,
            str(wanted.name),
            READY,
            wanted,
            token=wanted.client_request_token,
            body={FIELDS: fields_of(wanted), _LAST: 0},
        )
        tags = tags_by_key(wanted.tags)
        kept = await self._plane.run(lambda session: resources.add(session, guardrail, tags))
        made = {"guardrailId": kept.id, "guardrailArn": kept.arn, "version": DRAFT}
        return json_response({**made, "createdAt": timestamp(kept.created_at)}, status=202)

    async def _update(self, request: Request) -> Response:
        identifier = self._identifier(request)
        wanted = await self._plane.read(request, _UPDATE)
        await asyncio.to_thread(refuse_unsupported, wanted)

        def work(session: Session) -> Resource:
            guardrail = _required(session, identifier)
            guardrail.name = str(wanted.name)
            resources.change(guardrail, datetime.now(UTC), READY, **{FIELDS: fields_of(wanted)})
            return guardrail

        kept = await self._plane.run(work)
        made = {"guardrailId": kept.id, "guardrailArn": kept.arn, "version": DRAFT}
        return json_response({**made, "updatedAt": timestamp(kept.updated_at)}, status=202)

    async def _get(self, request: Request) -> Response:
        asked = read_parameters(request, shapes.GuardrailVersionIdentified)
        identifier, version = str(asked.guardrail_identifier), asked.guardrail_version or DRAFT
        found = await self._plane.run(lambda session: found_version(session, identifier, version))
        if found is None:
            raise errors.unknown_guardrail(identifier, version)
        guardrail, row = found
        fields = row.body[FIELDS]
        return json_response(
            without_nulls(
                name=fields["name"],
                description=fields.get("description"),
                guardrailId=guardrail.id,
                guardrailArn=guardrail.arn,
                version=version,
                status=row.status,
                **_policies(fields),
                createdAt=timestamp(row.created_at),
                updatedAt=timestamp(row.updated_at),
                blockedInputMessaging=fields["blockedInputMessaging"],
                blockedOutputsMessaging=fields["blockedOutputsMessaging"],
            )
        )

    async def _list(self, request: Request) -> Response:
        """The drafts of all guardrails, the newest first; or the draft of one, then its versions."""
        asked = read_parameters(request, shapes.ListGuardrailsParameters)
        identifier = asked.guardrail_identifier
        if not identifier:
            return await self._plane.page(
                resources.Wanted(KIND), asked, "guardrails", lambda session, each: _summary(each, DRAFT)
            )

        def work(session: Session) -> dict[str, object]:
            guardrail = _required(session, identifier)
            token, limit = asked.next_token, asked.limit
            shown = []
            if token is None:
                shown.append(_summary(guardrail, DRAFT))
                if limit == 1 and guardrail.body[_LAST]:
                    return {"guardrails": shown, "nextToken": _VERSIONS}
            if len(shown) == limit:
                return {"guardrails": shown}
            wanted = resources.Wanted(VERSION_KIND, name=guardrail.id)
            found, following = resources.page(
                session, wanted, limit - len(shown), None if token == _VERSIONS else token
            )
            shown += [_summary(guardrail, row.id.partition(":")[2], row) for row in found]
            return without_nulls(guardrails=shown, nextToken=following)

        return json_response(await self._plane.run(work))

    async def _delete(self, request: Request) -> Response:
        """A version, or the guardrail with all of its versions."""
        asked = read_parameters(request, shapes.DeleteGuardrailParameters)
        identifier, version = str(asked.guardrail_identifier), asked.guardrail_version

        def work(session: Session) -> None:
            guardrail = _required(session, identifier)
            if version is None:
                versions = (Resource.kind == VERSION_KIND, Resource.name == guardrail.id)
                session.execute(delete(Resource).where(*versions))
                resources.remove(session, guardrail)
                return
            row = resources.find(session, VERSION_KIND, version_id(guardrail, version))
            if row is None:
                raise errors.unknown_guardrail(identifier, version)
            session.delete(row)

        await self._plane.run(work)
        return json_response({}, status=202)

    async def _create_version(self, request: Request) -> Response:
        identifier = self._identifier(request)
        wanted = await self._plane.read(request, _CREATE_VERSION)

        def work(session: Session) -> tuple[str, str]:
            guardrail = _required(session, identifier)
            number = guardrail.body[_LAST] + 1
            fields = guardrail.body[FIELDS]
            if wanted.description is not None:
                fields = fields | {"description": wanted.description}
            version = self._plane.new_resource(
                VERSION_KIND,
                guardrail.id,
                READY,
                wanted,
                token=wanted.client_request_token,
                # The same token for another guardrail is another request.
                body={resources.REQUEST: fields_of(wanted) | {"guardrail": guardrail.id}, FIELDS: fields},
            )
            version.id = version_id(guardrail, str(number))
            # Versions have no ARN of their own; that of the guardrail is not to be found twice.
            version.arn = f"{guardrail.arn}:{number}"
            kept = resources.add(session, version)
            if kept is version:
                resources.change(guardrail, guardrail.updated_at, READY, **{_LAST: number})
            return guardrail.id, kept.id.partition(":")[2]

        guardrail_id, made = await self._plane.run(work)
        return json_response({"guardrailId": guardrail_id, "version": made}, status=202)

    def _identifier(self, request: Request) -> str:
        return str(read_parameters(request, shapes.GuardrailIdentified).guardrail_identifier)


def _required(session: Session, identifier: str) -> Resource:
    """Raises ResourceNotFoundException."""
    return existing(session, KIND, "guardrail", identifier)


def _summary(guardrail: Resource, version: str, row: Resource | None = None) -> dict[str, object]:
    """row: of the version, where it is not the draft."""
    row = row or guardrail
    fields = row.body[FIELDS]
    return without_nulls(
        id=guardrail.id,
        arn=guardrail.arn,
        status=row.status,
        name=fields["name"],
        description=fields.get("description"),
        version=version,
        createdAt=timestamp(row.created_at),
        updatedAt=timestamp(row.updated_at),
    )


def _policies(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The policies of a request, as GetGuardrail calls them."""
    return {
        shown: {parts[name]: value for name, value in fields[given].items()}
        for given, (shown, parts) in _SHOWN.items()
        if given in fields
    }
