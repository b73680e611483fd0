"""The text of a document, within bounds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from outcrop.text.documents.errors import DocumentError
from outcrop.text.documents.plain import decode_text

MAX_CHARS = 2_000_000  # of text; a prompt of 128k tokens holds about a quarter of it
MAX_SECONDS = 10  # of a processor's time; twice that on the clock, where processors are busy

_PLAIN = ("csv", "md", "txt")
_PARSED = ("docx", "html", "pdf", "xls", "xlsx")
_REFUSED = {"doc": "save it as docx"}

# Two may be read at once on a small machine: each needs a processor, and up to a gigabyte.
_turns = threading.BoundedSemaphore(max(2, (os.cpu_count() or 1) // 2))


def extract_text(format: str, data: bytes) -> str:
    """The text of a document in one of Bedrock's formats. Blocks: call it from a thread.

    Formats that need a parser are read in a process of their own, with limits on its time and memory: so
    neither a decompression bomb nor a parser's bug reaches this process, nor does parsing hold up its
    other threads. Raises DocumentError.
    """
    if format in _PLAIN:
        text = decode_text(data)
        if len(text) > MAX_CHARS:
            raise DocumentError(f"it holds more than {MAX_CHARS} characters of text")
        return text
    if format in _PARSED:
        with _turns:
            return _extract_apart(format, data)
    hint = f"; {_REFUSED[format]}" if format in _REFUSED else ""
    raise DocumentError(f"documents of the format {format} are not supported{hint}")


def _extract_apart(format: str, data: bytes) -> str:
    command = [sys.executable, "-m", "outcrop.text.documents.worker", format]
    # The parser of a stranger's file needs none of this process's secrets.
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUTF8": "1"}
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=2 * MAX_SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise DocumentError("it takes too long to read") from None
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode == 0:
        return output
    raise DocumentError(output or "it is too large or too complex to read")
