"""Bytes to text."""

from __future__ import annotations

import codecs

from outcrop.text.documents.errors import DocumentError

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decode_text(data: bytes, declared: str | None = None) -> str:
    """Text in the encoding that its byte order mark says, or in UTF-8, or in `declared`, or in Latin-1,
    with line breaks as "\\n". Raises DocumentError for what is no text."""
    marked = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
    for encoding in [marked] if marked else ["utf-8", declared, "latin-1"]:
        try:
            text = data.decode(encoding) if encoding else None
        except (UnicodeError, LookupError):
            continue
        if text is not None and "\0" not in text:
            return text.replace("\r\n", "\n").replace("\r", "\n")
    raise DocumentError("it is not text in a known encoding")
