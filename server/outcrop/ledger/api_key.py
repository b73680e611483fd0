"""Keys that may call, where servers share a database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from outcrop.ledger.database import Base


class ApiKey(Base):
    """revision: grows with every change of any key, and keys are never deleted; so the highest tells whether
    anything has changed. master: the fingerprint of the master secret that it was made with. document: a
    `outcrop.api.auth.keys.Key`, which holds no secret."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, index=True)
    master: Mapped[str] = mapped_column(String(32))
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
