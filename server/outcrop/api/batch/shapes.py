"""Shapes of model invocation jobs, and the words for where one stands."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

from sqlalchemy.orm import Session

from outcrop.api.bedrock.members import ACCOUNT_ID, ARN, KMS_KEY_ID, ROLE_ARN, Tags, VpcConfig
from outcrop.api.bedrock.parameters import SortedQuery, timestamp
from outcrop.api.bedrock.plane import without_nulls
from outcrop.api.shapes import REQUIRED, Must, Shape, Union
from outcrop.ledger.job_record import totals
from outcrop.ledger.resource import Resource
from outcrop.ledger.resources import REQUEST

KIND = "model-invocation-job"

SUBMITTED, VALIDATING, SCHEDULED, IN_PROGRESS, STOPPING = (
    "Submitted", "Validating", "Scheduled", "InProgress", "Stopping",
)  # fmt: skip
COMPLETED, FAILED, STOPPED, PARTIALLY_COMPLETED, EXPIRED = (
    "Completed", "Failed", "Stopped", "PartiallyCompleted", "Expired",
)  # fmt: skip
UNFINISHED = (SUBMITTED, VALIDATING, SCHEDULED, IN_PROGRESS, STOPPING)
STATUSES = (
    SUBMITTED, IN_PROGRESS, COMPLETED, FAILED, STOPPING, STOPPED, PARTIALLY_COMPLETED, EXPIRED, VALIDATING,
    SCHEDULED,
)  # fmt: skip

TOTAL, PROCESSED, SUCCEEDED, FAILED_RECORDS = (
    "totalRecordCount", "processedRecordCount", "successRecordCount", "errorRecordCount",
)  # fmt: skip

_DEFAULT_HOURS = 24
_S3 = r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+(?:/[-!_*'().a-z0-9A-Z]+)*)?/?"
S3_URI = Must(required=True, size=(1, 1024), pattern=re.compile(rf"{_S3}|file:///.+"))
"""The service's own, and folders of the server's machine, where it allows them."""
_BARE = r"[a-z0-9-]{1,63}[.]{1}[a-z0-9-]{1,63}([.]?[a-z0-9-]{1,63})([:][a-z0-9-]{1,63}){0,2}"
# The modelled pattern's language; as modelled it takes exponential time for a row of hyphens.
JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+.\-]*")
_MODEL_ID = Must(
    required=True,
    size=(1, 2048),
    pattern=re.compile(
        rf"({ARN}:(([0-9]{{12}}:custom-model/[a-z0-9-]{{1,63}}[.]{{1}}"
        rf"[a-z0-9-:]{{1,63}}/[a-z0-9]{{12}}$)|(:foundation-model/({_BARE})|(([0-9a-zA-Z][_-]?)+)$)"
        r"|([0-9]{12}:(inference-profile|application-inference-profile)/[a-zA-Z0-9-:.]+$)"
        r"|([0-9]{12}:(imported-model|provisioned-model)/[a-z0-9]{12}$)))"
        rf"|({_BARE})|(([0-9a-zA-Z][_-]?)+)"
    ),
)
"""The service's own, and also imported models, which this server can batch."""


class ModelInvocationJobS3InputDataConfig(Shape):
    s3_input_format: Annotated[str | None, Must(one_of=("JSONL",))] = None
    s3_uri: Annotated[str | None, S3_URI] = None
    s3_bucket_owner: Annotated[str | None, ACCOUNT_ID] = None


class ModelInvocationJobInputDataConfig(Union):
    s3_input_data_config: ModelInvocationJobS3InputDataConfig | None = None


class ModelInvocationJobS3OutputDataConfig(Shape):
    s3_uri: Annotated[str | None, S3_URI] = None
    s3_encryption_key_id: Annotated[str | None, KMS_KEY_ID] = None
    s3_bucket_owner: Annotated[str | None, ACCOUNT_ID] = None


class ModelInvocationJobOutputDataConfig(Union):
    s3_output_data_config: ModelInvocationJobS3OutputDataConfig | None = None


class CreateModelInvocationJobRequest(Shape):
    job_name: Annotated[str | None, Must(required=True, size=(1, 63), pattern=JOB_NAME)] = None
    role_arn: Annotated[str | None, ROLE_ARN] = None
    client_request_token: Annotated[
        str | None, Must(size=(1, 256), pattern=re.compile("[a-zA-Z0-9]+(-+[a-zA-Z0-9]+)*"))
    ] = None
    model_id: Annotated[str | None, _MODEL_ID] = None
    input_data_config: Annotated[ModelInvocationJobInputDataConfig | None, REQUIRED] = None
    output_data_config: Annotated[ModelInvocationJobOutputDataConfig | None, REQUIRED] = None
    vpc_config: VpcConfig | None = None
    timeout_duration_in_hours: Annotated[int | None, Must(value=(24, 168))] = None
    tags: Tags = None
    model_invocation_type: Annotated[str | None, Must(one_of=("InvokeModel", "Converse"))] = None


class JobIdentified(Shape):
    job_identifier: Annotated[
        str | None,
        Must(
            size=(0, 1011),
            pattern=re.compile(rf"(({ARN}:[0-9]{{12}}:{KIND}/)?[a-z0-9]{{12}})"),
        ),
    ] = None


class ListModelInvocationJobsRequest(SortedQuery):
    submit_time_after: datetime | None = None
    submit_time_before: datetime | None = None
    status_equals: Annotated[str | None, Must(one_of=STATUSES)] = None
    name_contains: Annotated[str | None, Must(size=(1, 63), pattern=JOB_NAME)] = None


def input_uri(job: Resource) -> str:
    uri: str = job.body[REQUEST]["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
    return uri


def output_uri(job: Resource) -> str:
    uri: str = job.body[REQUEST]["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
    return uri


def expiration(job: Resource) -> datetime:
    hours = job.body[REQUEST].get("timeoutDurationInHours", _DEFAULT_HOURS)
    return job.created_at + timedelta(hours=hours)


def is_ending(job: Resource, now: datetime) -> bool:
    """Whether work on the job is to end before its records do."""
    return job.status == STOPPING or expiration(job) <= now


def counts(session: Session, job: Resource) -> dict[str, int]:
    """How many records there are and have been answered; nothing before they were counted."""
    names = (TOTAL, PROCESSED, SUCCEEDED, FAILED_RECORDS)
    known = totals(session, job.id) if TOTAL in job.body and job.status in UNFINISHED else job.body
    return {name: known[name] for name in names if name in known}


def described(session: Session, job: Resource) -> dict[str, Any]:
    """The job as Get and List show it."""
    request = job.body[REQUEST]
    return without_nulls(
        jobArn=job.arn,
        jobName=job.name,
        modelId=request["modelId"],
        clientRequestToken=job.token,
        roleArn=request["roleArn"],
        status=job.status,
        message=job.body.get("message"),
        submitTime=timestamp(job.created_at),
        lastModifiedTime=timestamp(job.updated_at),
        endTime=timestamp(job.ended_at),
        inputDataConfig=request["inputDataConfig"],
        outputDataConfig=request["outputDataConfig"],
        vpcConfig=request.get("vpcConfig"),
        timeoutDurationInHours=request.get("timeoutDurationInHours", _DEFAULT_HOURS),
        jobExpirationTime=timestamp(expiration(job)),
        modelInvocationType=request.get("modelInvocationType", "InvokeModel"),
        **counts(session, job),
    )
