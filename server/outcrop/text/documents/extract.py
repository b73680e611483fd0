"""The text of a document."""

from __future__ import annotations


class DocumentError(ValueError):
    """The document cannot be read; the message is for the client."""


def extract_text(format: str, data: bytes) -> str:
    """The text of a document in one of Bedrock's formats. Raises DocumentError."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DocumentError(f"the {format} document cannot be read") from None
