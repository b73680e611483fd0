"""Shapes of Provisioned Throughputs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated

from outcrop.api.bedrock.members import ARN, CLIENT_TOKEN, Tags
from outcrop.api.bedrock.parameters import SortedQuery, timestamp
from outcrop.api.bedrock.plane import without_nulls
from outcrop.api.shapes import Must, Shape
from outcrop.ledger.resource import Resource
from outcrop.ledger.resources import REQUEST

KIND = "provisioned-model"
CREATING, IN_SERVICE, UPDATING, FAILED = "Creating", "InService", "Updating", "Failed"
STATUSES = (CREATING, IN_SERVICE, UPDATING, FAILED)
"""Those of the service. Here one is in service as soon as it is made, and failed where the server that has
been started does not have its model."""

COMMITMENTS = {"OneMonth": timedelta(days=30), "SixMonths": timedelta(days=180)}
"""For how long a Provisioned Throughput with this commitment cannot be deleted."""

MODEL_ARN = "model_arn"
"""In the body of the resource: its model's."""

_PART = "[a-z0-9-]{1,63}"
_CUSTOM = (
    rf"[0-9]{{12}}:custom-model/((imported)|({_PART}[.]{{1}}{_PART}))(([:]{_PART}){{0,2}})?/[a-z0-9]{{12}}"
)
_BARE = rf"{_PART}[.]{{1}}{_PART}([.]?{_PART})([:]{_PART}){{0,2}}"
_MODEL_ID = re.compile(rf"{ARN}:(({_CUSTOM})|(:foundation-model/({_BARE})))|({_BARE})|(([0-9a-zA-Z][_-]?)+)")
_MODEL_ARN = re.compile(
    rf"{ARN}:(({_CUSTOM})|(:foundation-model/{_PART}[.]{{1}}({_PART}[.]){{0,2}}{_PART}([:]{_PART}){{0,2}}))"
)
_NAME = re.compile("([0-9a-zA-Z][_-]?)+")
_IDENTIFIER = re.compile(rf"(([0-9a-zA-Z][_-]?)+)|({ARN}:[0-9]{{12}}:provisioned-model/[a-z0-9]{{12}})")


class CreateProvisionedModelThroughputRequest(Shape):
    client_request_token: Annotated[str | None, CLIENT_TOKEN] = None
    model_units: Annotated[int | None, Must(required=True, value=(1, None))] = None
    provisioned_model_name: Annotated[str | None, Must(required=True, size=(1, 63), pattern=_NAME)] = None
    model_id: Annotated[str | None, Must(required=True, size=(1, 2048), pattern=_MODEL_ID)] = None
    commitment_duration: Annotated[str | None, Must(one_of=tuple(COMMITMENTS))] = None
    tags: Tags = None


class UpdateProvisionedModelThroughputRequest(Shape):
    desired_provisioned_model_name: Annotated[str | None, Must(size=(1, 63), pattern=_NAME)] = None
    desired_model_id: Annotated[str | None, Must(size=(1, 2048), pattern=_MODEL_ID)] = None


class Identified(Shape):
    provisioned_model_id: Annotated[str | None, Must(pattern=_IDENTIFIER)] = None


class ListProvisionedModelThroughputsRequest(SortedQuery):
    creation_time_after: datetime | None = None
    creation_time_before: datetime | None = None
    status_equals: Annotated[str | None, Must(one_of=STATUSES)] = None
    model_arn_equals: Annotated[str | None, Must(size=(20, 1011), pattern=_MODEL_ARN)] = None
    name_contains: Annotated[str | None, Must(size=(1, 63), pattern=_NAME)] = None


def committed_until(provisioned: Resource) -> datetime | None:
    duration = provisioned.body[REQUEST].get("commitmentDuration")
    return None if duration is None else provisioned.created_at + COMMITMENTS[duration]


def summary(provisioned: Resource) -> dict[str, object]:
    """As List shows it."""
    request, arn = provisioned.body[REQUEST], provisioned.body[MODEL_ARN]
    return without_nulls(
        provisionedModelName=provisioned.name,
        provisionedModelArn=provisioned.arn,
        modelArn=arn,
        desiredModelArn=arn,
        foundationModelArn=arn,
        modelUnits=request["modelUnits"],
        desiredModelUnits=request["modelUnits"],
        status=provisioned.status,
        commitmentDuration=request.get("commitmentDuration"),
        commitmentExpirationTime=timestamp(committed_until(provisioned)),
        creationTime=timestamp(provisioned.created_at),
        lastModifiedTime=timestamp(provisioned.updated_at),
    )


def described(provisioned: Resource) -> dict[str, object]:
    """As Get shows it."""
    failure = provisioned.body.get("message") if provisioned.status == FAILED else None
    return summary(provisioned) | without_nulls(failureMessage=failure)
