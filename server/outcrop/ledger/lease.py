"""Which server works on what, where several share a database."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import String
from sqlalchemy.orm import Mapped, Session, mapped_column

from outcrop.ledger.database import Base, Instant


class Lease(Base):
    """`owner` has `name` to itself until `until`, which it moves on while it lives."""

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    owner: Mapped[str] = mapped_column(String(40))
    until: Mapped[datetime] = mapped_column(Instant)


def take(session: Session, name: str, owner: str, now: datetime, term: timedelta) -> bool:
    """Have `name` for another term. False if another owner has it and its term has not ended."""
    lease = session.get(Lease, name)
    if lease is None:
        session.add(Lease(name=name, owner=owner, until=now + term))
        return True
    if lease.owner != owner and lease.until > now:
        return False
    lease.owner, lease.until = owner, now + term
    return True


def release(session: Session, name: str, owner: str) -> None:
    """Let others have `name`; it need not be the owner's."""
    lease = session.get(Lease, name)
    if lease is not None and lease.owner == owner:
        session.delete(lease)
