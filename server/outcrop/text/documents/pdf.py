"""The text of a PDF file."""

from __future__ import annotations

import io
from collections.abc import Iterator

from pypdf import PdfReader
from pypdf.errors import FileNotDecryptedError

from outcrop.text.documents.errors import DocumentError


def pdf_text(data: bytes) -> Iterator[str]:
    """The pages' text, a blank line apart."""
    reader = PdfReader(io.BytesIO(data))
    empty = True
    try:
        for page in reader.pages:
            text = page.extract_text().strip()
            if text:
                yield text if empty else f"\n\n{text}"
                empty = False
    except FileNotDecryptedError:
        raise DocumentError("it is encrypted") from None
    if empty:
        raise DocumentError("it holds no text; scanned pages are not read")
