"""A store's storage in an S3 bucket, or in anything that speaks S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outcrop_compile.artifact.errors import ArtifactError
from outcrop_compile.artifact.files import CHUNK, Advance

if TYPE_CHECKING:
    from botocore.client import BaseClient


class Bucket:
    """Objects of a bucket below a prefix. Credentials, region and endpoint come from the usual places of AWS
    clients (AWS_ENDPOINT_URL_S3 is one); `endpoint` overrides the last.

    A large object is written in parts that nobody sees until it is complete. Those that a killed writer
    leaves behind cost storage until the bucket's lifecycle rule AbortIncompleteMultipartUpload removes them.

    Raises ArtifactError, which says what S3 said.
    """

    def __init__(self, bucket: str, prefix: str, *, endpoint: str | None = None) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise ArtifactError("s3:// needs boto3. Install it with: pip install 'outcrop[s3]'") from None
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self.client: BaseClient = boto3.client(
            "s3", endpoint_url=endpoint, config=Config(retries={"mode": "standard", "max_attempts": 5})
        )

    def names(self, prefix: str) -> Iterator[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix
        )
        for page in self._asking(lambda: list(pages)):
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(self.prefix)

    def size(self, name: str) -> int | None:
        try:
            found = self._asking(lambda: self.client.head_object(Bucket=self.bucket, Key=self.prefix + name))
        except FileNotFoundError:
            return None
        return int(found["ContentLength"])

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        found = self._asking(
            lambda: self.client.get_object(
                Bucket=self.bucket, Key=self.prefix + name, **({"Range": f"bytes={start}-"} if start else {})
            )
        )
        pieces = found["Body"].iter_chunks(CHUNK)
        while (piece := self._asking(lambda: next(pieces, None))) is not None:
            yield piece

    def write(self, name: str, file: Path, advance: Advance) -> None:
        self._asking(
            lambda: self.client.upload_file(str(file), self.bucket, self.prefix + name, Callback=advance)
        )

    def write_bytes(self, name: str, data: bytes) -> None:
        self._asking(lambda: self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=data))

    def _asking(self, ask: Callable[[], Any]) -> Any:
        """What S3 answers. Raises FileNotFoundError for what it does not have."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return ask()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("404", "NoSuchKey", "NotFound"):
                raise FileNotFoundError(code) from None
            raise self._failed(error) from None
        except (BotoCoreError, Boto3Error) as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"s3://{self.bucket}/{self.prefix}: {error}. Check the bucket's name and region, the credentials "
            "and what they allow (s3:ListBucket, s3:GetObject, s3:PutObject), and, where it is not Amazon's, "
            "AWS_ENDPOINT_URL_S3. What was moved already is kept: run the command again"
        )
