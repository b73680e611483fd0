"""The process that reads one document: its format as argument, its bytes on stdin, its text to stdout."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Iterable

from outcrop.text.documents.errors import DocumentError
from outcrop.text.documents.extract import MAX_CHARS, MAX_SECONDS

_MAX_MEMORY = 1 << 30


def _read(format: str, data: bytes) -> Iterable[str]:
    """The document's text in parts. Imports one parser alone: most of this process's time goes there."""
    match format:
        case "docx":
            from outcrop.text.documents.docx import docx_text

            return docx_text(data)
        case "html":
            from outcrop.text.documents.html import html_text

            return [html_text(data)]
        case "pdf":
            from outcrop.text.documents.pdf import pdf_text

            return pdf_text(data)
        case _:
            from outcrop.text.documents.spreadsheet import workbook_text

            return workbook_text(data)


def main() -> int:
    """0: stdout is the text; 1: stdout says why there is none."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # pipes do not count
    logging.disable()  # what a parser finds odd about a stranger's file
    try:
        text = _bounded(_read(sys.argv[1], sys.stdin.buffer.read()))
    except DocumentError as error:
        sys.stdout.write(str(error))
        return 1
    except MemoryError:
        sys.stdout.write("it needs too much memory to read")
        return 1
    except Exception:  # whatever a parser raises on a broken file
        sys.stdout.write(f"it is not a valid {sys.argv[1]} file")
        return 1
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    return 0


def _bounded(parts: Iterable[str]) -> str:
    kept, size = [], 0
    for part in parts:
        kept.append(part)
        size += len(part)
        if size > MAX_CHARS:
            raise DocumentError(f"it holds more than {MAX_CHARS} characters of text")
    return "".join(kept)


if __name__ == "__main__":
    sys.exit(main())
