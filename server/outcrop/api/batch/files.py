"""The files of a job: input lines into the state, and the state's answers into output files.

As the service has them: each `x.jsonl` of the input becomes `JOB/x.jsonl.out` below the output's place, and
`JOB/manifest.json.out` has the counts (https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html).
Everything here blocks, and may be done again after an interruption.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from outcrop.ledger.database import Database
from outcrop.ledger.job_record import PENDING, JobRecord, totals
from outcrop.storage import Storage, below, explained

_ROWS = 500
"""Records that one transaction writes or reads."""

MAX_LINE = 25_000_000
"""Bytes of a line: what InvokeModel takes."""


class BadInput(ValueError):
    """The job's input is no input; the message says why."""


def load(database: Database, storage: Storage, job_id: str, uri: str) -> tuple[list[str], int]:
    """Copy every record of the input into the state. The names of its files, below the input's place, and
    the number of records. Raises BadInput and StorageError."""
    database.transact(lambda session: session.execute(delete(JobRecord).where(JobRecord.job_id == job_id)))
    with explained(uri):
        place, name = storage.open(uri)
        if name.endswith(".jsonl"):
            parts = {name.rpartition("/")[2]: name} if place.size(name) is not None else {}
        else:
            base = name if not name or name.endswith("/") else f"{name}/"
            found = sorted(each for each in place.names(base) if each.endswith(".jsonl"))
            parts = {each.removeprefix(base): each for each in found}
        if not parts:
            raise BadInput(f"There is no .jsonl file at {uri}.")
        total = 0
        for part, file in enumerate(parts.values()):
            total += _load_part(database, job_id, part, _lines(place.read(file), file))
    if not total:
        raise BadInput(f"The input at {uri} has no records.")
    return list(parts), total


def _load_part(database: Database, job_id: str, part: int, lines: Iterator[str]) -> int:
    rows: list[dict[str, object]] = []
    number = 0

    def flush() -> None:
        if rows:
            database.transact(lambda session: session.execute(insert(JobRecord), rows))
            rows.clear()

    for number, text in enumerate(lines, 1):
        rows.append(
            {
                "job_id": job_id, "part": part, "line": number - 1, "state": PENDING, "text": text,
                "input_tokens": 0, "output_tokens": 0,
            }
        )  # fmt: skip
        if len(rows) == _ROWS:
            flush()
    flush()
    return number


def _lines(pieces: Iterator[bytes], name: str) -> Iterator[str]:
    """The lines that hold anything. Raises BadInput."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield from _line(line, name)
        if len(rest) > MAX_LINE:
            break
    yield from _line(rest, name)


def _line(line: bytes, name: str) -> Iterator[str]:
    if len(line) > MAX_LINE:
        raise BadInput(f"A line of {name} has more than {MAX_LINE} bytes.")
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        raise BadInput(f"{name} is not UTF-8.") from None
    if text:
        yield text.replace("\0", "")  # which some databases do not take; JSON has no use for it


def save(
    database: Database,
    storage: Storage,
    job_id: str,
    parts: list[str],
    uri: str,
    unfinished: Callable[[], bool],
) -> dict[str, int] | None:
    """Write the answers that there are, and the manifest, which is returned; None, and nothing more is
    written, where the job is not `unfinished` any more: a server that was taken for dead, or took this one
    for dead, has ended it, and what is read of its records may not be all. Raises StorageError."""
    with explained(uri):
        place, name = storage.open(uri)
        base = below(name, job_id)
        with tempfile.TemporaryDirectory(prefix="outcrop-batch-") as folder:
            file = Path(folder) / "part"
            for part, part_name in enumerate(parts):
                with file.open("w", encoding="utf-8") as out:
                    out.writelines(f"{text}\n" for text in _answers(database, job_id, part))
                if not unfinished():
                    return None
                place.write(f"{base}/{part_name}.out", file, lambda done: None)
        manifest = database.transact(lambda session: totals(session, job_id))
        if not unfinished():
            return None
        place.write_bytes(f"{base}/manifest.json.out", json.dumps(manifest).encode())
    return manifest


def _answers(database: Database, job_id: str, part: int) -> Iterator[str]:
    last = -1

    def read(session: Session) -> list[tuple[int, str]]:
        rows = session.execute(
            select(JobRecord.line, JobRecord.text)
            .where(
                JobRecord.job_id == job_id,
                JobRecord.part == part,
                JobRecord.line > last,
                JobRecord.state != PENDING,
            )
            .order_by(JobRecord.line)
            .limit(_ROWS)
        )
        return [(row.line, row.text) for row in rows]

    while rows := database.transact(read):
        yield from (text for _, text in rows)
        last = rows[-1][0]
