"""Which server works on what, where several share a database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from outcrop.ledger.database import Base, Instant


class Lease(Base):
    """`owner` has `name` to itself until `until`, which it moves on while it lives."""

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    owner: Mapped[str] = mapped_column(String(40))
    until: Mapped[datetime] = mapped_column(Instant)
