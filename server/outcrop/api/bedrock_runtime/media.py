"""Shapes of images, videos, audio and documents in a Converse request."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from outcrop.api.shapes import REQUIRED, Must, Shape, Union

_S3_URI = re.compile(r"s3://[a-z0-9][\.\-a-z0-9]{1,61}[a-z0-9](/.*)?")
_ACCOUNT_ID = re.compile(r"[0-9]{12}")
_BLOB = Must(size=(1, None))

DOCUMENT_FORMATS = ("pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md")
_IMAGE_FORMATS = ("png", "jpeg", "gif", "webp")
_VIDEO_FORMATS = ("mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv", "three_gp")
_AUDIO_FORMATS = ("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "mka", "x-aac", "m4a", "mpeg",
    "mpga", "pcm", "webm")  # fmt: skip


class S3Location(Shape):
    uri: Annotated[str | None, Must(required=True, size=(1, 1024), pattern=_S3_URI)] = None
    bucket_owner: Annotated[str | None, Must(pattern=_ACCOUNT_ID)] = None


class ErrorBlock(Shape):
    message: str | None = None


class ImageSource(Union):
    data: Annotated[bytes | None, _BLOB] = msgspec.field(default=None, name="bytes")
    s3_location: S3Location | None = None


class ImageBlock(Shape):
    format: Annotated[str | None, Must(required=True, one_of=_IMAGE_FORMATS)] = None
    source: Annotated[ImageSource | None, REQUIRED] = None
    error: ErrorBlock | None = None


class VideoSource(Union):
    data: Annotated[bytes | None, _BLOB] = msgspec.field(default=None, name="bytes")
    s3_location: S3Location | None = None


class VideoBlock(Shape):
    format: Annotated[str | None, Must(required=True, one_of=_VIDEO_FORMATS)] = None
    source: Annotated[VideoSource | None, REQUIRED] = None


class AudioSource(Union):
    data: Annotated[bytes | None, _BLOB] = msgspec.field(default=None, name="bytes")
    s3_location: S3Location | None = None


class AudioBlock(Shape):
    format: Annotated[str | None, Must(required=True, one_of=_AUDIO_FORMATS)] = None
    source: Annotated[AudioSource | None, REQUIRED] = None
    error: ErrorBlock | None = None


class CitationsConfig(Shape):
    enabled: Annotated[bool | None, REQUIRED] = None


class DocumentContentBlock(Union):
    text: str | None = None


class DocumentSource(Union):
    data: Annotated[bytes | None, _BLOB] = msgspec.field(default=None, name="bytes")
    s3_location: S3Location | None = None
    text: str | None = None
    content: list[DocumentContentBlock] | None = None


class DocumentBlock(Shape):
    format: Annotated[str | None, Must(one_of=DOCUMENT_FORMATS)] = None
    name: Annotated[str | None, Must(required=True, size=(1, 200))] = None
    source: Annotated[DocumentSource | None, REQUIRED] = None
    context: str | None = None
    citations: CitationsConfig | None = None


class SearchResultContentBlock(Shape):
    text: Annotated[str | None, REQUIRED] = None


class SearchResultBlock(Shape):
    source: Annotated[str | None, REQUIRED] = None
    title: Annotated[str | None, REQUIRED] = None
    content: Annotated[list[SearchResultContentBlock] | None, REQUIRED] = None
    citations: CitationsConfig | None = None
