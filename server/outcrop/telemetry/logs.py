"""Logs for people, or as JSON, one object a line, for whatever collects them."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

request_id: ContextVar[str] = ContextVar("outcrop_request_id", default="")
"""Of the request that is being answered: it is in the JSON of everything that is logged meanwhile."""

access = logging.getLogger("outcrop.access")
"""One line for each answer, with fields and no text of the request. It speaks in JSON alone."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def configure(level: str, form: Literal["text", "json"]) -> None:
    """Set the root logger up. level: a name, in any case."""
    handler = logging.StreamHandler()
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    access.setLevel(logging.NOTSET if form == "json" else logging.WARNING)


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, request_id where there is one, and the record's own fields (`extra`)."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            entry["request_id"] = current
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
