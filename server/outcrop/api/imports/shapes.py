"""Shapes of model import jobs and imported models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from outcrop.api.batch.shapes import JOB_NAME, S3_URI
from outcrop.api.bedrock.members import ARN, CLIENT_TOKEN, KMS_KEY_ID, ROLE_ARN, Tags, VpcConfig
from outcrop.api.bedrock.parameters import SortedQuery, timestamp
from outcrop.api.bedrock.plane import without_nulls
from outcrop.api.shapes import REQUIRED, Must, Shape, Union
from outcrop.ledger.resource import Resource
from outcrop.ledger.resources import REQUEST

JOB, MODEL = "model-import-job", "imported-model"

IN_PROGRESS, COMPLETED, FAILED = "InProgress", "Completed", "Failed"
STATUSES = (IN_PROGRESS, COMPLETED, FAILED)

_MODEL_NAME = re.compile("([0-9a-zA-Z][_-]?)+")
_OWNED = rf"{ARN}:[0-9]{{12}}"


class S3DataSource(Shape):
    s3_uri: Annotated[str | None, S3_URI] = None


class ModelDataSource(Union):
    s3_data_source: S3DataSource | None = None


class CreateModelImportJobRequest(Shape):
    job_name: Annotated[str | None, Must(required=True, size=(1, 63), pattern=JOB_NAME)] = None
    imported_model_name: Annotated[str | None, Must(required=True, size=(1, 63), pattern=_MODEL_NAME)] = None
    role_arn: Annotated[str | None, ROLE_ARN] = None
    model_data_source: Annotated[ModelDataSource | None, REQUIRED] = None
    job_tags: Tags = None
    imported_model_tags: Tags = None
    client_request_token: Annotated[str | None, CLIENT_TOKEN] = None
    vpc_config: VpcConfig | None = None
    imported_model_kms_key_id: Annotated[str | None, KMS_KEY_ID] = None


class JobIdentified(Shape):
    job_identifier: Annotated[
        str | None,
        Must(size=(0, 1011), pattern=re.compile(rf"({_OWNED}:{JOB}/[a-z0-9]{{12}})|({JOB_NAME.pattern})")),
    ] = None


class ModelIdentified(Shape):
    model_identifier: Annotated[
        str | None,
        Must(
            size=(1, 1011), pattern=re.compile(rf"({_OWNED}:{MODEL}/[a-z0-9]{{12}})|({_MODEL_NAME.pattern})")
        ),
    ] = None


class ListModelImportJobsRequest(SortedQuery):
    creation_time_after: datetime | None = None
    creation_time_before: datetime | None = None
    status_equals: Annotated[str | None, Must(one_of=STATUSES)] = None
    name_contains: Annotated[str | None, Must(size=(1, 63), pattern=JOB_NAME)] = None


class ListImportedModelsRequest(SortedQuery):
    creation_time_after: datetime | None = None
    creation_time_before: datetime | None = None
    name_contains: Annotated[str | None, Must(size=(1, 63), pattern=_MODEL_NAME)] = None


def source_uri(request: Mapping[str, Any]) -> str:
    uri: str = request["modelDataSource"]["s3DataSource"]["s3Uri"]
    return uri


def model_name(job: Resource) -> str:
    name: str = job.body[REQUEST]["importedModelName"]
    return name


def described_job(job: Resource) -> dict[str, object]:
    """As GetModelImportJob shows it."""
    request = job.body[REQUEST]
    return without_nulls(
        **job_summary(job),
        roleArn=request["roleArn"],
        modelDataSource=request["modelDataSource"],
        failureMessage=job.body.get("message"),
        vpcConfig=request.get("vpcConfig"),
    )


def job_summary(job: Resource) -> dict[str, object]:
    """As ListModelImportJobs shows it."""
    return without_nulls(
        jobArn=job.arn,
        jobName=job.name,
        status=job.status,
        creationTime=timestamp(job.created_at),
        lastModifiedTime=timestamp(job.updated_at),
        endTime=timestamp(job.ended_at),
        importedModelArn=job.body["model_arn"] if job.status == COMPLETED else None,
        importedModelName=model_name(job),
    )


def described_model(model: Resource) -> dict[str, object]:
    """As GetImportedModel shows it."""
    return {
        **model_summary(model),
        "jobArn": model.body["job_arn"],
        "jobName": model.body["job_name"],
        "modelDataSource": model.body["source"],
        "customModelUnits": {"customModelUnitsPerModelCopy": 1, "customModelUnitsVersion": "v1.0"},
    }


def model_summary(model: Resource) -> dict[str, object]:
    """As ListImportedModels shows it."""
    return {
        "modelArn": model.arn,
        "modelName": model.name,
        "creationTime": timestamp(model.created_at),
        "instructSupported": model.body["instruct"],
        "modelArchitecture": model.body["architecture"],
    }
