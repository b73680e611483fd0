"""Put, Get and DeleteModelInvocationLoggingConfiguration."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import msgspec
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock.followed import Follower, Look
from outcrop.api.bedrock.members import ROLE_ARN
from outcrop.api.bedrock.plane import ControlPlane, without_nulls
from outcrop.api.invocation_log.destination import Destination
from outcrop.api.invocation_log.log import InvocationLog
from outcrop.api.responses import json_response
from outcrop.api.shapes import REQUIRED, Must, Shape
from outcrop.ledger import resources
from outcrop.ledger.resource import Resource
from outcrop.storage import StorageError

KIND = "invocation-logging"
"""Of the one resource that is the configuration."""


_BUCKET = re.compile(r"[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]|file:///[^\0]+")
"""S3's own, and folders of the server's machine, where it allows them. The service's model has no pattern."""


class S3Config(Shape):
    bucket_name: Annotated[str | None, Must(required=True, size=(3, 63))] = None
    key_prefix: Annotated[str | None, Must(size=(0, 1024))] = None


class CloudWatchConfig(Shape):
    log_group_name: Annotated[str | None, Must(required=True, size=(1, 512))] = None
    role_arn: Annotated[str | None, ROLE_ARN] = None
    large_data_delivery_s3_config: S3Config | None = None


class LoggingConfig(Shape):
    cloud_watch_config: CloudWatchConfig | None = None
    s3_config: S3Config | None = None
    text_data_delivery_enabled: bool | None = None
    image_data_delivery_enabled: bool | None = None
    embedding_data_delivery_enabled: bool | None = None
    video_data_delivery_enabled: bool | None = None
    audio_data_delivery_enabled: bool | None = None


class PutModelInvocationLoggingConfigurationRequest(Shape):
    logging_config: Annotated[LoggingConfig | None, REQUIRED] = None


_PUT = msgspec.json.Decoder(PutModelInvocationLoggingConfigurationRequest)


class InvocationLogging:
    """The operations on the configuration, which `log` follows."""

    def __init__(self, plane: ControlPlane, log: InvocationLog, look: Look) -> None:
        self._plane = plane
        self._log = log
        self._look = look
        self._followed = ""  # the id of the configuration that is in force

    def routes(self) -> list[Route]:
        path = "/logging/modelinvocations"
        return [
            Route(path, self._put, methods=["PUT"], name="PutModelInvocationLoggingConfiguration"),
            Route(path, self._get, methods=["GET"], name="GetModelInvocationLoggingConfiguration"),
            Route(path, self._delete, methods=["DELETE"], name="DeleteModelInvocationLoggingConfiguration"),
        ]

    def follower(self) -> Follower:
        """Does as is configured, on whichever server that was."""

        async def appeared(configuration: Resource) -> None:
            self._followed = configuration.id
            self._log.destination = _destination(configuration)

        async def gone(configuration_id: str) -> None:
            if configuration_id == self._followed:  # another may have come in its place
                self._log.destination = None

        return Follower(KIND, appeared, gone)

    async def _put(self, request: Request) -> Response:
        wanted = await self._plane.read(request, _PUT)
        assert wanted.logging_config is not None
        if wanted.logging_config.cloud_watch_config is not None:
            raise errors.validation(
                "This server doesn't deliver logs to CloudWatch. Remove cloudWatchConfig, and name a bucket "
                "in s3Config."
            )
        if wanted.logging_config.s3_config is None:
            raise errors.validation("There is no destination for logs. Name a bucket in s3Config.")
        place = wanted.logging_config.s3_config
        if not _BUCKET.fullmatch(str(place.bucket_name)) or not (place.key_prefix or "").isprintable():
            raise errors.validation(
                "The loggingConfig.s3Config names no place. Give a bucket's name, and a prefix without "
                "control characters."
            )
        configuration = self._plane.new_resource(KIND, "", "ACTIVE", wanted)
        destination = _destination(configuration)
        try:
            await asyncio.to_thread(self._log.delivery.check, destination)
        except StorageError as error:
            raise errors.validation(f"Logs can't be delivered to {error}") from None

        def work(session: Session) -> None:
            _remove_all(session)
            resources.add(session, configuration)

        await self._plane.run(work)
        await self._look()
        return json_response({})

    async def _get(self, request: Request) -> Response:
        found = await self._plane.run(lambda session: resources.every(session, KIND))
        config = found[-1].body[resources.REQUEST]["loggingConfig"] if found else None
        return json_response(without_nulls(loggingConfig=config))

    async def _delete(self, request: Request) -> Response:
        await self._plane.run(_remove_all)
        await self._look()
        return json_response({})


def _remove_all(session: Session) -> None:
    for configuration in resources.every(session, KIND):
        resources.remove(session, configuration)


def _destination(configuration: Resource) -> Destination:
    return Destination.of(configuration.body[resources.REQUEST]["loggingConfig"])
