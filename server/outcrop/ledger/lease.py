"""Which server works on what, where several share a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import String, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from outcrop.ledger.database import Base, Instant


class Lease(Base):
    """`owner` has `name` to itself until `until`, which it moves on while it lives."""

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    owner: Mapped[str] = mapped_column(String(40))
    until: Mapped[datetime] = mapped_column(Instant)


def now(session: Session) -> datetime:
    """The time by the clock that all servers on the database share: hosts' own may differ by more than a
    term."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)  # a file of this machine
    moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


def take(session: Session, name: str, owner: str, moment: datetime, term: timedelta) -> bool:
    """Have `name` for another term. False if another owner has it and its term has not ended at
    that `moment`, which is `now`."""
    lease = session.get(Lease, name)
    if lease is None:
        session.add(Lease(name=name, owner=owner, until=moment + term))
        return True
    if lease.owner != owner and lease.until > moment:
        return False
    lease.owner, lease.until = owner, moment + term
    return True


def release(session: Session, name: str, owner: str) -> None:
    """Let others have `name`; it need not be the owner's."""
    lease = session.get(Lease, name)
    if lease is not None and lease.owner == owner:
        session.delete(lease)
