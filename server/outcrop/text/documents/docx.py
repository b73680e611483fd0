"""The text of a Word document: a zip archive of XML files (ECMA-376)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from xml.etree import ElementTree

from outcrop.text.documents.errors import DocumentError

_MAX_XML = 64 << 20  # bytes, unpacked
_BODY = "word/document.xml"
# Formatting, and the second version of a drawing for programs that do not know the first.
_SKIPPED = frozenset(("pPr", "rPr", "tblPr", "sectPr", "Fallback"))


def docx_text(data: bytes) -> Iterator[str]:
    """Paragraphs as lines; a table's row as a line, its cells apart by tabs."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        try:
            size = archive.getinfo(_BODY).file_size
        except KeyError:
            raise DocumentError("it is not a Word document") from None
        if size > _MAX_XML:
            raise DocumentError(f"its text has more than {_MAX_XML >> 20} MB")
        with archive.open(_BODY) as body:  # gives no more than file_size bytes, whatever is packed
            yield from _text_of(ElementTree.iterparse(body, ("start", "end")))


def _text_of(events: Iterator[tuple[str, ElementTree.Element]]) -> Iterator[str]:
    skipping = cells = 0
    for event, element in events:
        name = element.tag.rpartition("}")[2]
        if event == "start":
            skipping += name in _SKIPPED
            cells += name == "tc"
            continue
        skipping -= name in _SKIPPED
        cells -= name == "tc"
        if not skipping:
            match name:
                case "t":
                    yield element.text or ""
                case "tab":
                    yield "\t"
                case "br" | "cr":
                    yield "\n"
                case "p":
                    yield " " if cells else "\n"
                case "tc":
                    yield "\t"
                case "tr":
                    yield "\n"
        if name in ("p", "tbl"):
            element.clear()
