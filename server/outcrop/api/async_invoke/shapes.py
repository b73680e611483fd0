"""Shapes of asynchronous invocations."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from outcrop.api.bedrock.members import ACCOUNT_ID, ARN, Tags
from outcrop.api.bedrock.parameters import PageQuery, timestamp
from outcrop.api.bedrock.plane import without_nulls
from outcrop.api.shapes import REQUIRED, Must, Shape, Union
from outcrop.ledger.resource import Resource
from outcrop.ledger.resources import REQUEST

KIND = "async-invoke"
IN_PROGRESS, COMPLETED, FAILED = "InProgress", "Completed", "Failed"

_ARN = Must(
    size=(1, 2048),
    pattern=re.compile(rf"{ARN}:[0-9]{{12}}:{KIND}/[a-z0-9]{{12}}"),
)
_S3_URI = Must(
    required=True,
    size=(1, 1024),
    pattern=re.compile(r"s3://[a-z0-9][\.\-a-z0-9]{1,61}[a-z0-9](/.*)?|file:///.+"),
)
"""The service's own, and folders of the server's machine, where it allows them."""
_KMS_KEY_ID = Must(
    size=(1, 2048),
    pattern=re.compile(
        "arn:aws(-[^:]+)?:kms:[a-zA-Z0-9-]*:[0-9]{12}:((key/[a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+))"
    ),
)


class AsyncInvokeS3OutputDataConfig(Shape):
    s3_uri: Annotated[str | None, _S3_URI] = None
    kms_key_id: Annotated[str | None, _KMS_KEY_ID] = None
    bucket_owner: Annotated[str | None, ACCOUNT_ID] = None


class AsyncInvokeOutputDataConfig(Union):
    s3_output_data_config: AsyncInvokeS3OutputDataConfig | None = None


class StartAsyncInvokeRequest(Shape):
    client_request_token: Annotated[str | None, Must(size=(1, 256), pattern=re.compile("[!-~]*"))] = None
    model_id: Annotated[
        str | None, Must(required=True, size=(1, 256), pattern=re.compile(r"[a-zA-Z_\.\-/0-9:]+"))
    ] = None
    model_input: Annotated[Any, REQUIRED] = None
    output_data_config: Annotated[AsyncInvokeOutputDataConfig | None, REQUIRED] = None
    tags: Tags = None


class InvocationIdentified(Shape):
    invocation_arn: Annotated[str | None, _ARN] = None


class ListAsyncInvokesRequest(PageQuery):
    submit_time_after: datetime | None = None
    submit_time_before: datetime | None = None
    status_equals: Annotated[str | None, Must(one_of=(IN_PROGRESS, COMPLETED, FAILED))] = None
    sort_by: Annotated[str | None, Must(one_of=("SubmissionTime",))] = None
    sort_order: Annotated[str | None, Must(one_of=("Ascending", "Descending"))] = None


def output_uri(invocation: Resource) -> str:
    uri: str = invocation.body[REQUEST]["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
    return uri


def described(invocation: Resource) -> dict[str, object]:
    """As Get and List show it."""
    return without_nulls(
        invocationArn=invocation.arn,
        modelArn=invocation.body["model_arn"],
        clientRequestToken=invocation.token,
        status=invocation.status,
        failureMessage=invocation.body.get("message"),
        submitTime=timestamp(invocation.created_at),
        lastModifiedTime=timestamp(invocation.updated_at),
        endTime=timestamp(invocation.ended_at),
        outputDataConfig=invocation.body[REQUEST]["outputDataConfig"],
    )
